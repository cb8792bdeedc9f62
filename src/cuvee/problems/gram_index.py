"""Which of many held texts share n-grams with a text: an inverted index in flat arrays.

In: the hashes of the held texts' tokens, then of others. Out: pairs of a text and a held one
with what they share. Time is linear in the tokens of the texts, and in the held texts that
have a phrase in common with each. Of a held n-gram 24 to 40 bytes are kept.
Not here: what is too much (`cuvee.problems.decontaminate`).
"""

import dataclasses
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cuvee.problems.word_kernels import Counts, Hashes, grams, kernel

_EMPTY = np.uint64(0)


@dataclasses.dataclass(frozen=True)
class GramIndex:
    """The n-grams of the held texts, each with the texts it occurs in."""

    n: int
    slots: Hashes
    """Open addressing: an n-gram's hash, or 0."""
    postings: Counts
    """[slots, 2]: where the texts of the n-gram start and end in `texts`."""
    texts: NDArray[np.int32]
    sizes: Counts
    """[held texts]: distinct n-grams of each."""


@dataclasses.dataclass(frozen=True)
class Shared:
    """Pairs of texts with n-grams in common; by text, then by held text. All of one length."""

    text: Counts
    held: Counts
    grams: Counts
    """Distinct n-grams in common."""
    smaller: Counts
    """Distinct n-grams of the text that has fewer."""
    larger: Counts


def build_gram_index(hashes: Hashes, starts: Counts, *, n: int) -> GramIndex:
    """Return the index of the texts whose tokens are [starts[i], starts[i + 1])."""
    bounds = pairwise(starts.tolist())
    distinct = [np.unique(grams(hashes[start:end], n)) for start, end in bounds]
    sizes = np.array([len(own) for own in distinct], dtype=np.int64)
    every = np.concatenate([np.empty(0, dtype=np.uint64), *distinct])
    order = np.argsort(every, kind="stable")
    texts = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)[order]
    values, firsts = np.unique(every[order], return_index=True)
    room = 1 << max(4, (2 * len(values)).bit_length())
    slots, postings = np.zeros(room, dtype=np.uint64), np.zeros((room, 2), dtype=np.int64)
    _fill(slots, postings, values, np.append(firsts, len(every)).astype(np.int64))
    return GramIndex(n, slots, postings, texts, sizes)


def find_shared(index: GramIndex, hashes: Hashes, starts: Counts, *, share: float) -> Shared:
    """Return the pairs that have at least `share` of the smaller one's n-grams in common."""
    arrays = (index.slots, index.postings, index.texts, index.sizes)
    found = _find(arrays, hashes, starts, index.n, share)
    return Shared(*(found[:, column] for column in range(5)))


@kernel
def _slot(slots: Hashes, gram: np.uint64) -> np.int64:
    """Return where an n-gram stands, or the empty place where it would."""
    mask = np.int64(len(slots) - 1)
    at = np.int64(gram & np.uint64(mask))
    while slots[at] != _EMPTY and slots[at] != gram:
        at = (at + 1) & mask
    return at


@kernel
def _fill(slots: Hashes, postings: Counts, values: Hashes, bounds: Counts) -> None:
    for number in range(len(values)):
        at = _slot(slots, values[number])
        slots[at] = values[number]
        postings[at, 0], postings[at, 1] = bounds[number], bounds[number + 1]


Arrays = tuple[Hashes, Counts, NDArray[np.int32], Counts]


@kernel
def _count(arrays: Arrays, own: Hashes, counts: Counts, touched: Counts) -> int:
    """Count for each held text the n-grams of `own` (distinct) that it has.

    `counts`: zeros before. Returns how many held texts there are at the start of `touched`.
    """
    slots, postings, texts, _ = arrays
    found = 0
    for gram in own:
        at = _slot(slots, gram)
        for posting in range(postings[at, 0], postings[at, 1]):
            held = texts[posting]
            if counts[held] == 0:
                touched[found] = held
                found += 1
            counts[held] += 1
    return found


@kernel
def _distinct(values: Hashes) -> Hashes:
    ordered = np.sort(values)
    count = 0
    for at in range(len(ordered)):
        if at == 0 or ordered[at] != ordered[at - 1]:
            ordered[count] = ordered[at]
            count += 1
    return ordered[:count]


@kernel
def _count_held(slots: Hashes, values: Hashes) -> int:
    count = 0
    for gram in values:
        count += slots[_slot(slots, gram)] != _EMPTY
    return count


@kernel
def _with_room(rows: Counts) -> Counts:
    """Return rows with as many empty ones after them."""
    larger = np.empty((2 * len(rows), rows.shape[1]), dtype=np.int64)
    for row in range(len(rows)):
        for column in range(rows.shape[1]):
            larger[row, column] = rows[row, column]
    return larger


@kernel
def _find(arrays: Arrays, hashes: Hashes, starts: Counts, n: int, share: float) -> Counts:
    """Return rows of text, held text, n-grams shared, of the smaller, of the larger."""
    sizes = arrays[3]
    counts, touched = np.zeros(len(sizes), dtype=np.int64), np.zeros(len(sizes), dtype=np.int64)
    rows = np.empty((1024, 5), dtype=np.int64)
    size = 0
    for text in range(len(starts) - 1):
        own = grams(hashes[starts[text] : starts[text + 1]], n)
        if _count_held(arrays[0], own) == 0:
            continue
        own = _distinct(own)
        for number in range(_count(arrays, own, counts, touched)):
            held = touched[number]
            smaller, larger = min(len(own), sizes[held]), max(len(own), sizes[held])
            if counts[held] >= share * smaller:
                if size == len(rows):
                    rows = _with_room(rows)
                rows[size, 0], rows[size, 1], rows[size, 2] = text, held, counts[held]
                rows[size, 3], rows[size, 4] = smaller, larger
                size += 1
            counts[held] = 0
    return rows[:size].copy()
