"""MinHash signatures of 128 bytes, and the buckets in which similar texts meet.

In: the hashes of a text's tokens. Out: its signature, and the rows of earlier texts whose
signatures are like it. A signature is 16 bands of 8 values; a value is one byte of the least
of a text's shingles under one of 128 hash functions (Broder 1997; a byte of it: b-bit
minwise hashing, Li and König 2010). Two texts of Jaccard similarity j have a value in common
with probability p = j + (1 - j) / 256, and meet in a bucket (a whole band in common, and the
same key) with probability 1 - (1 - p^8)^16: 0.9999 at j = 0.9.

Held of each text: 128 bytes of signature, 8 of key, 64 of links, and 64 to 128 of the table:
280 MB for a million, and for a moment over twice that while the arrays double. A look takes
`DEEPEST` texts of a bucket at most, the latest first, so that time stays linear when a million
texts are alike; `Buckets.cut` counts the looks that left texts out.
Not here: what is similar enough (`cuvee.problems.dedup` compares the shingles themselves).
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from cuvee.problems.word_kernels import Bytes, Counts, Hashes, Words, grams, kernel, mixed

SHINGLE = 5
BANDS, ROWS = 16, 8
VALUES = BANDS * ROWS
DEEPEST = 64
MOST = 8
"""Rows a look returns at most: those with the most values in common."""
LEAST = 100
"""Values in common, of 128, for a row to be returned: at j = 0.9 fewer are seen once in
200,000 times (binomial, p = 0.9004)."""

Links = NDArray[np.int32]
_EDGE = SHINGLE - 1
_RNG = np.random.default_rng(20250526)  # fixed: the same problems are dropped on every machine
_ODD = _RNG.integers(0, 1 << 31, size=VALUES, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
_SHIFT = _RNG.integers(0, 1 << 32, size=VALUES, dtype=np.uint32)
_HALF = np.uint64(32)
_BYTE_OF = np.uint32(0x9E3779B1)
_TOP = np.uint32(24)
_END = -1


@kernel
def shingles(hashes: Hashes) -> Hashes:
    """Return the 5-grams of a text's tokens with an edge of four at both ends.

    With the edge every token is in five of them: what is asked for is often the last word
    ("... and returns the sum").
    """
    padded = np.zeros(len(hashes) + 2 * _EDGE, dtype=np.uint64)
    for at in range(len(hashes)):  # slices would take numba seconds to compile
        padded[_EDGE + at] = hashes[at]
    return grams(padded, SHINGLE)


@kernel
def _lower(least: Words, shingle: int) -> None:
    """Lower the least values to those of one more shingle (32-bit multiply and add)."""
    value = np.uint32(np.uint64(shingle) >> _HALF)
    for function in range(VALUES):
        hashed = np.uint32(value * _ODD[function] + _SHIFT[function])
        least[function] = min(least[function], hashed)


@kernel
def signatures(hashes: Hashes, starts: Counts) -> Bytes:
    """Return the signature of each text, [texts, 128]."""
    found = np.empty((len(starts) - 1, VALUES), dtype=np.uint8)
    least = np.empty(VALUES, dtype=np.uint32)
    for text in range(len(starts) - 1):
        least.fill(np.uint32(0xFFFFFFFF))
        for shingle in shingles(hashes[starts[text] : starts[text + 1]]):
            _lower(least, shingle)
        for function in range(VALUES):
            found[text, function] = np.uint32(least[function] * _BYTE_OF) >> _TOP
    return found


@dataclasses.dataclass
class Buckets:
    """The signatures of texts, and which of them share a band. Grows as texts are added."""

    signatures: Bytes
    """[room, 128]; the first `size` rows are used."""
    keys: Hashes
    """[room]: texts with different keys never meet."""
    links: Links
    """[room, 16]: for each band of a row the next place (16 * row + band) of its chain."""
    heads: Links
    """The first place of each chain; a power of two of them."""
    size: int = 0
    cut: int = 0
    """Looks that left out texts because of `DEEPEST`."""


def empty_buckets(room: int = 1024) -> Buckets:
    """Return buckets that hold nothing, with room for a power of two of texts."""
    return Buckets(
        np.empty((room, VALUES), dtype=np.uint8),
        np.empty(room, dtype=np.uint64),
        np.empty((room, BANDS), dtype=np.int32),
        np.full(room * BANDS, _END, dtype=np.int32),
    )


def look(buckets: Buckets, signature: Bytes, key: np.uint64) -> list[int]:
    """Return up to `MOST` rows like a signature, those with most values in common first."""
    rows, cut = _look(
        (buckets.signatures, buckets.keys, buckets.links, buckets.heads), signature, key
    )
    buckets.cut += cut
    return [row for row in rows.tolist() if row != _END]


def add(buckets: Buckets, signature: Bytes, key: np.uint64) -> int:
    """Add a text and return its row."""
    row = buckets.size
    if row == len(buckets.keys):
        _grow(buckets)
    buckets.signatures[row] = signature
    buckets.keys[row] = key
    _link((buckets.signatures, buckets.keys, buckets.links, buckets.heads), row, row + 1)
    buckets.size = row + 1
    return row


def _grow(buckets: Buckets) -> None:
    """Double the room and link all rows anew."""
    larger = empty_buckets(2 * len(buckets.keys))
    larger.signatures[: buckets.size] = buckets.signatures
    larger.keys[: buckets.size] = buckets.keys
    buckets.signatures, buckets.keys = larger.signatures, larger.keys
    buckets.links, buckets.heads = larger.links, larger.heads
    _link((buckets.signatures, buckets.keys, buckets.links, buckets.heads), 0, buckets.size)


Arrays = tuple[Bytes, Hashes, Links, Links]


@kernel
def _bucket(signature: Bytes, band: int, key: np.uint64) -> np.uint64:
    """Return the hash of a bucket: of a band of a signature, and of the key."""
    value = np.uint64(band)
    for position in range(band * ROWS, band * ROWS + ROWS):
        value = (value << np.uint64(8)) ^ (value >> np.uint64(56)) ^ np.uint64(signature[position])
    return mixed(mixed(value) ^ key)


@kernel
def _slot(signature: Bytes, band: int, key: np.uint64, slots: int) -> np.int64:
    """Return the place in `heads` of a band of a signature."""
    return np.int64(_bucket(signature, band, key) & np.uint64(slots - 1))


@kernel
def bucket_hashes(found: Bytes, keys: Hashes) -> Hashes:
    """Return the hashes of the buckets of each text, [texts, 16].

    `found`: signatures, [texts, 128]; `keys`: [texts]. Two texts in one bucket have a hash in
    common; others have one by chance.
    """
    hashes = np.empty((len(keys), BANDS), dtype=np.uint64)
    for text in range(len(keys)):
        for band in range(BANDS):
            hashes[text, band] = _bucket(found[text], band, keys[text])
    return hashes


@kernel
def _link(arrays: Arrays, first: int, last: int) -> None:
    """Put the rows [first, last) at the head of their chains."""
    rows, keys, links, heads = arrays
    for row in range(first, last):
        for band in range(BANDS):
            slot = _slot(rows[row], band, keys[row], len(heads))
            links[row, band] = heads[slot]
            heads[slot] = row * BANDS + band


@kernel
def _in_common(left: Bytes, right: Bytes) -> int:
    count = 0
    for value in range(VALUES):
        count += left[value] == right[value]
    return count


@kernel
def _same_band(left: Bytes, right: Bytes, band: int) -> bool:
    same = True
    for value in range(band * ROWS, band * ROWS + ROWS):
        same = same and left[value] == right[value]
    return same


@kernel
def _insert(found: Counts, counts: Counts, row: int, common: int) -> None:
    """Keep the rows with the highest counts, highest first; of equal ones the first found."""
    for known in found:
        if known == row:
            return
    at = len(found)
    while at > 0 and counts[at - 1] < common:
        at -= 1
    if at < len(found):
        for later in range(len(found) - 1, at, -1):
            found[later], counts[later] = found[later - 1], counts[later - 1]
        found[at], counts[at] = row, common


@kernel
def _look(arrays: Arrays, signature: Bytes, key: np.uint64) -> tuple[Counts, bool]:
    """Return the rows most alike (-1: none), and whether a bucket was left before its end."""
    rows, keys, links, heads = arrays
    found = np.full(MOST, _END, dtype=np.int64)
    counts = np.zeros(MOST, dtype=np.int64)
    cut = False
    for band in range(BANDS):
        place = heads[_slot(signature, band, key, len(heads))]
        steps = 0
        while place != _END:
            row = place // BANDS
            # A chain holds other buckets too, by chance: they are passed by, and not counted.
            own = place % BANDS == band and keys[row] == key
            if own and _same_band(signature, rows[row], band):
                if steps == DEEPEST:
                    cut = True
                    break
                steps += 1
                common = _in_common(signature, rows[row])
                if common >= LEAST:
                    _insert(found, counts, row, common)
            place = links[row, place % BANDS]
    return found, cut
