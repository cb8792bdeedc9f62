"""A question's wording in a form that can be compared: tokens, numbers, n-grams.

Folded away: Unicode forms, case, white space, and signs that do not change what is asked
(quotes, `$`, sentence punctuation). Kept: every number as one token and every operator, so
"17 + 5 - 9" and "17 - 5 + 9" differ. Used by `dedup` and `decontaminate`; no rows here.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+|[^\w\s]|_")
SILENT = set(".,;:?\"'`$‘’“”„«»…")
"""Tokens that are left out; inside a number (1,000 or 3.5) they are part of it."""

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that multiplying by it loses nothing modulo 2^64 (2^64 / golden ratio)."""


def tokens(text: str) -> list[str]:
    """Return the tokens of a text after Unicode NFKC and case folding."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return [token for token in TOKEN.findall(folded) if token not in SILENT]


def numbers(words: Sequence[str]) -> Counter[str]:
    """Return how often each number is among the tokens."""
    return Counter(word for word in words if word[0].isdigit())


def ngrams(words: Sequence[str], n: int) -> Hashes:
    """Return the distinct 64-bit hashes of the word n-grams, sorted; none if too short."""
    if len(words) < n:
        return np.empty(0, dtype=np.uint64)
    ids = np.array([_word_hash(word) for word in words], dtype=np.uint64)
    combined = np.zeros(len(words) - n + 1, dtype=np.uint64)
    for offset in range(n):
        # Polynomial in an odd base modulo 2^64: depends on the order of the words.
        combined = combined * MULTIPLIER + ids[offset : offset + len(combined)]
    return np.unique(combined)


def common(left: Hashes, right: Hashes) -> int:
    """Return how many n-grams two texts share."""
    return len(np.intersect1d(left, right, assume_unique=True))


@lru_cache(maxsize=1 << 18)
def _word_hash(word: str) -> int:
    digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")
