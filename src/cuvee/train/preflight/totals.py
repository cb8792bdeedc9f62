"""What is counted while the batches pass: lengths, tokens, and the rows each check concerns.

Not here: what the counts mean (`verdict`).
"""

import dataclasses
import hashlib
from array import array
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cuvee.models.tokens import IGNORED
from cuvee.train.preflight.checks import opens
from cuvee.train.preflight.encode import Batch
from cuvee.train.preflight.findings import KEPT_IDS

Rows = NDArray[np.bool_]


@dataclasses.dataclass
class Concerned:
    """How many rows a check concerns, and the first of their ids."""

    count: int = 0
    ids: list[str] = dataclasses.field(default_factory=list)

    def add(self, ids: Sequence[str]) -> None:
        """Count some more rows."""
        self.count += len(ids)
        self.ids += ids[: KEPT_IDS - len(self.ids)]


@dataclasses.dataclass
class Totals:
    """Counts over all batches so far; they take some 200 bytes a row."""

    lengths: "array[int]" = dataclasses.field(default_factory=lambda: array("i"))
    """Tokens of every example."""
    trained_lengths: "array[int]" = dataclasses.field(default_factory=lambda: array("i"))
    """Tokens of the training rows, in order."""
    answer_tokens: int = 0
    """Of the training rows."""
    dropped: list[str] = dataclasses.field(default_factory=list)
    answer_tokens_dropped: int = 0
    held_out_ids: list[str] = dataclasses.field(default_factory=list)
    problems: set[str] = dataclasses.field(default_factory=set)
    """Of the kept rows."""
    opened: int = 0
    """Kept rows whose prompt opens the reasoning."""
    concerned: dict[str, Concerned] = dataclasses.field(default_factory=dict)
    """Name of a check -> rows of the kept ones that break it."""
    _seen: set[bytes] = dataclasses.field(default_factory=set)
    _side: dict[bytes, bool] = dataclasses.field(default_factory=dict)

    @property
    def kept(self) -> int:
        """Return how many examples are not too long."""
        return len(self.trained_lengths) + len(self.held_out_ids)

    def count(self, check: str) -> int:
        """Return how many of the kept rows break a check."""
        return self.concerned[check].count if check in self.concerned else 0

    def count_lengths(self, batch: Batch, fits: Rows) -> None:
        """Count all rows of a batch, of which those of `fits` are kept."""
        self.lengths.extend(batch.lengths.tolist())
        self.dropped += _ids(batch, ~fits)
        targets = batch.lengths - batch.prompt_lengths
        self.answer_tokens_dropped += int(targets[~fits].sum())

    def count_kept(self, batch: Batch, broken: Mapping[str, Rows], held_out: Rows) -> None:
        """Count the kept rows of a batch: which break which check, which are held out."""
        self.trained_lengths.extend(batch.lengths[~held_out].tolist())
        self.held_out_ids += _ids(batch, held_out)
        self.problems |= {example.problem_id for example in batch.examples}
        trained = np.add.reduceat(batch.labels != IGNORED, batch.starts[:-1], dtype=np.int64)
        self.answer_tokens += int(trained[~held_out].sum())
        self.opened += sum(map(opens, batch.prompts))
        repeated = {
            "duplicates": self._repeated(batch),
            "prompt_on_both_sides": self._on_both_sides(batch, held_out),
        }
        for check, rows in (dict(broken) | repeated).items():
            self.concerned.setdefault(check, Concerned()).add(_ids(batch, rows))

    def _repeated(self, batch: Batch) -> Rows:
        """Return which rows have the tokens of an earlier one."""
        repeated = np.zeros(len(batch.examples), dtype=np.bool_)
        for number, (begin, end) in enumerate(zip(batch.starts, batch.starts[1:], strict=False)):
            digest = _digest(batch.ids[begin:end].tobytes())
            repeated[number] = digest in self._seen
            self._seen.add(digest)
        return repeated

    def _on_both_sides(self, batch: Batch, held_out: Rows) -> Rows:
        """Return which rows have the prompt of an earlier one on the other side."""
        crossing = np.zeros(len(batch.examples), dtype=np.bool_)
        for number, side in enumerate(held_out.tolist()):
            digest = _digest(batch.prompts[number].encode("utf-8", "surrogatepass"))
            crossing[number] = self._side.setdefault(digest, side) != side
        return crossing


def _ids(batch: Batch, rows: Rows) -> list[str]:
    return [batch.examples[number].id for number in np.flatnonzero(rows)]


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
