"""What a training will really learn: every example tokenised once, checked, counted, written.

`preflight` makes `tokens.parquet` and `preflight.json`; `tokenised` and `row_ids` hand the rows
to a trainer, `read_findings` what was found to a reader. Not here: how it is shown
(`cuvee.train.preflight_page`), and the training (`cuvee.train.sft`).
"""

from cuvee.train.preflight.batches import Check, check_here
from cuvee.train.preflight.clustered import check_on_ray
from cuvee.train.preflight.files import TOKENS, row_ids, tokenised
from cuvee.train.preflight.findings import FINDINGS, Finding, Findings, Level, read_findings
from cuvee.train.preflight.packing import PACKING, packed_lengths
from cuvee.train.preflight.run import preflight

__all__ = [
    "FINDINGS",
    "PACKING",
    "TOKENS",
    "Check",
    "Finding",
    "Findings",
    "Level",
    "check_here",
    "check_on_ray",
    "packed_lengths",
    "preflight",
    "read_findings",
    "row_ids",
    "tokenised",
]
