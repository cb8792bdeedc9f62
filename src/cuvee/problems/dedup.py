"""Exact and near duplicates among problems; the first of each stays.

In: problems in order. Out: for each, None or the earlier problem it repeats. Exact means
the same tokens (`cuvee.problems.wording`). Near means a Jaccard similarity of the word
5-grams of at least 0.9 *and* the same numbers: problems that differ in their numbers alone
are different problems. Near duplicates are looked for in questions of 30 tokens and more;
with 0.9, one replaced word is tolerated from 91 tokens on, wherever it stands. Time is
linear in the number of problems (MinHash and banding find the candidates, which are then
compared exactly).
Not found: paraphrases, translations, and problems whose variables were renamed.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from cuvee.problems.wording import Hashes, common, ngrams, numbers, tokens
from cuvee.records import Problem

SHINGLE = 5
SHORTEST = 30
SIMILARITY = 0.9
BANDS, ROWS = 16, 8
"""A pair of Jaccard j meets in a band with probability 1 - (1 - j^8)^16: 0.9999 at 0.9."""

EDGE = ["^"] * (SHINGLE - 1)
"""Put at both ends, so that every word is in five 5-grams: what is asked for is often the
last word ("... and returns the sum")."""

_RNG = np.random.default_rng(20250526)  # fixed: the same problems are dropped on every machine
_ODD = _RNG.integers(1, 1 << 63, size=BANDS * ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_SHIFT = _RNG.integers(0, 1 << 63, size=BANDS * ROWS, dtype=np.uint64)


@dataclasses.dataclass(frozen=True)
class Repeat:
    """Which earlier problem a problem repeats."""

    reason: str
    """`exact_duplicate` or `near_duplicate`."""
    of: Problem
    similarity: float
    """Jaccard similarity in [0.9, 1]; 1 for an exact one."""

    @property
    def detail(self) -> str:
        """Return a line for people."""
        return f"repeats {self.of.id} of {self.of.source} (similarity {self.similarity:.2f})"


def find_repeats(problems: Sequence[Problem]) -> Iterable[Repeat | None]:
    """Yield for each problem, in order, the kept problem it repeats, or None.

    Of two exact duplicates with different golds the first stays too: which of the golds is
    right cannot be told here.
    """
    exact: dict[tuple[str, ...], Problem] = {}
    buckets: dict[tuple[object, ...], list[tuple[Problem, Hashes]]] = defaultdict(list)
    for problem in problems:
        words = tokens(problem.question)
        first = exact.setdefault(tuple(words), problem)
        if first is not problem:
            yield Repeat("exact_duplicate", first, 1.0)
            continue
        if len(words) < SHORTEST:
            yield None
            continue
        shingles = ngrams([*EDGE, *words, *EDGE], SHINGLE)
        same_numbers = tuple(sorted(numbers(words).items()))
        keys = [(same_numbers, *band) for band in _bands(shingles)]
        repeat = _nearest(shingles, [pair for key in keys for pair in buckets.get(key, [])])
        if repeat is None:
            for key in keys:
                buckets[key].append((problem, shingles))
        yield repeat


def _bands(shingles: Hashes) -> list[tuple[int, bytes]]:
    """Return the bands of the MinHash signature, each with its number."""
    hashed = (shingles[:, None] * _ODD + _SHIFT) >> np.uint64(32)
    signature = hashed.min(axis=0).astype(np.uint32).reshape(BANDS, ROWS)
    return [(number, band.tobytes()) for number, band in enumerate(signature)]


def _nearest(shingles: Hashes, candidates: list[tuple[Problem, Hashes]]) -> Repeat | None:
    best: Repeat | None = None
    for problem, other in candidates:
        shared = common(shingles, other)
        similarity = shared / (len(shingles) + len(other) - shared)
        if similarity >= SIMILARITY and (best is None or similarity > best.similarity):
            best = Repeat("near_duplicate", problem, similarity)
    return best
