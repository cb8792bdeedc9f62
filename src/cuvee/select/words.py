"""The words of a text and their n-grams, as the filters of prose count them.

A character of a script without spaces (Han, kana) is a word; elsewhere words go from space
to space, in lower case. Linear in the length of the text.
"""

import functools
import re

import numpy as np
from numpy.typing import NDArray

GRAM = 8
"""Words of one n-gram: shorter ones recur in honest mathematics, longer ones miss loops."""

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
KANA = "\u3040-\u30ff"

_SPACELESS = re.compile(f"[{HAN}{KANA}]")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""2**64 divided by the golden ratio, made odd: the usual multiplier of a rolling hash."""


@functools.lru_cache(maxsize=8)
def grams(text: str) -> NDArray[np.uint64]:
    """Return a 64-bit number for each word 8-gram of a text, in order; equal ones are equal.

    [number of words - 7], empty for shorter texts. Different 8-grams share a number with a
    chance of about 2**-64 a pair. Numbers of two processes do not compare. The last few texts
    are remembered: two filters ask for the same ones. Not to be written to.
    """
    lowered = text.lower()
    if _SPACELESS.search(lowered):
        lowered = _SPACELESS.sub(r" \g<0> ", lowered)
    words = lowered.split()
    count = len(words) - GRAM + 1
    if count < 1:
        return np.empty(0, np.uint64)
    numbers = np.fromiter(map(hash, words), np.int64, len(words)).view(np.uint64)
    found = np.zeros(count, np.uint64)
    for place in range(GRAM):
        found = found * _FACTOR + numbers[place : place + count]
        found ^= found >> np.uint64(29)
    found.flags.writeable = False
    return found
