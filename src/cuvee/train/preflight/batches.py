"""Batches of examples, tokenised and checked: the part of the preflight that takes its time.

Lists of `Example` in, a `Checked` each out, in order. `check_here` does them in this process,
on all cores; a cluster does the same (`cuvee.train.preflight.clustered`). Not here: what is
counted over all batches (`totals`), and what of them is held out.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping

from transformers import PreTrainedTokenizerBase

from cuvee.records import Example
from cuvee.train.preflight.checks import Frame, Rows, broken_rows
from cuvee.train.preflight.encode import Batch, encode


@dataclasses.dataclass(frozen=True)
class Reader:
    """What each batch is read with; it can be pickled."""

    tokenizer: PreTrainedTokenizerBase
    frame: Frame
    end: str
    """The text that ends a turn."""
    max_tokens: int


@dataclasses.dataclass(frozen=True)
class Checked:
    """A batch as it will be trained, and what was found in it."""

    batch: Batch
    """All its rows, those that are too long included."""
    broken: Mapping[str, Rows]
    """Name of a check -> which of the rows that are not too long break it; where all are too
    long, nothing."""


Check = Callable[[Iterable[list[Example]], Reader], Iterator[Checked]]
"""Checks batches, in order."""


def check_batch(examples: list[Example], reader: Reader) -> Checked:
    """Tokenise and check some examples. Raises DataError as `encode` does."""
    batch = encode(examples, reader.tokenizer, end=reader.end)
    fits = batch.lengths <= reader.max_tokens
    if not fits.any():
        return Checked(batch, {})
    return Checked(batch, broken_rows(batch.only(fits), reader.tokenizer, reader.frame))


def check_here(batches: Iterable[list[Example]], reader: Reader) -> Iterator[Checked]:
    """Check batches in this process, one after another."""
    return (check_batch(examples, reader) for examples in batches)
