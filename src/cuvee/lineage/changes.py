"""Where two texts differ, in sentences and lines: what stayed, what is gone, what is new.

Two texts in, segments out. The segments that are not new make up the first text, those that are
not gone the second. Not here: why they differ (`cuvee.lineage.refining`).
"""

import dataclasses
import difflib
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Literal

_PIECE = re.compile(r"\s+|\S.*?(?:[.!?](?=\s)|(?=\n)|\Z)", re.DOTALL)
"""A sentence, a line, or the whitespace between two; together they are the whole text."""
MOST_PIECES = 4000
"""Of one text; what is longer, between what both begin and end with, counts as changed whole.
Finding the best match takes the square of it, and the texts are a model's."""

Kind = Literal["same", "gone", "new"]


@dataclasses.dataclass(frozen=True)
class Segment:
    """A stretch of text."""

    kind: Kind
    text: str


def segments(before: str, after: str) -> list[Segment]:
    """Return the stretches of two texts in order; at one place what is gone before what is new."""
    old, new = _PIECE.findall(before), _PIECE.findall(after)
    start = _alike(zip(old, new, strict=False))
    rest = zip(reversed(old[start:]), reversed(new[start:]), strict=False)
    end = _alike(rest)
    old_middle, new_middle = old[start : len(old) - end], new[start : len(new) - end]
    found = [
        ("same", old[:start]),
        *_compared(old_middle, new_middle),
        ("same", old[len(old) - end :]),
    ]
    return [Segment(kind, "".join(pieces)) for kind, pieces in found if pieces]


def _alike(pairs: Iterable[tuple[str, str]]) -> int:
    """Return how many pairs from the first on are two of the same."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _compared(old: list[str], new: list[str]) -> Iterator[tuple[Kind, list[str]]]:
    if max(len(old), len(new)) > MOST_PIECES:
        yield from (("gone", old), ("new", new))
        return
    for tag, a, b, c, d in difflib.SequenceMatcher(a=old, b=new).get_opcodes():
        if tag == "equal":
            yield "same", old[a:b]
        else:
            yield from (("gone", old[a:b]), ("new", new[c:d]))


def differences(before: str, after: str) -> Iterator[tuple[str, str]]:
    """Yield what is gone and what stands there instead, place by place.

    One of the two may be empty.
    """
    gone = ""
    for segment in [*segments(before, after), Segment("same", "")]:
        if segment.kind == "new":
            yield gone, segment.text
            gone = ""
            continue
        if gone:
            yield gone, ""
        gone = segment.text if segment.kind == "gone" else ""
