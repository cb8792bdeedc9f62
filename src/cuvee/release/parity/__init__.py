"""The exported GGUF file against the checkpoint it was made from.

Same token ids, same rendered conversations, and how far the predictions are apart: one row
(`cuvee.records.Parity`) a file. `check` loads torch, so it is imported from
its module, where it is needed. Not here: what a release does with a row that did not pass.
"""

from cuvee.release.parity.text import Text, read_text, shipped_text

__all__ = ["Text", "read_text", "shipped_text"]
