"""Inner loops over the tokens of many texts, compiled by numba.

Arrays in and out. Tokens of several texts stand one after the other: text i has the tokens
[starts[i], starts[i + 1]). Every hash is a function of the text alone, the same on every
machine and in every run; they mix well but are no defence against somebody who makes two
texts collide on purpose. What the tokens are is said, and defined in Python, in
`cuvee.problems.wording`. Compiled on first use, and kept in numba's cache.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Bytes = NDArray[np.uint8]
Words = NDArray[np.uint32]
Counts = NDArray[np.int64]
F = TypeVar("F", bound=Callable[..., Any])

SPACE_CLASS, DIGIT_CLASS, LETTER_CLASS, CHARACTER_CLASS = 0, 1, 2, 3
MARK_CLASS, SIGN_CLASS, POINT_CLASS, COMMA_CLASS = 4, 5, 6, 7
"""Classes of characters. SPACE: left out; CHARACTER: a token of its own, with its marks."""

NUMBER, VARIABLE, WORD, SIGN = 0, 1, 2, 3
"""Kinds of tokens. VARIABLE: a single letter."""

LEFT_OUT = 0
"""As the fold of a command: it is left out."""

# Unsigned constants, because numba makes a float of uint64 and int64 together.
_SEED = np.uint64(0xCBF29CE484222325)
_PRIME = np.uint64(0x100000001B3)
_ODD = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
_MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
_33 = np.uint64(33)
_NONE = np.uint64(LEFT_OUT)


def kernel(function: F) -> F:
    """Compile a loop; the interpreter's lock is released while it runs."""
    return cast("F", numba.njit(nogil=True, cache=True)(function))


@kernel
def mixed(value: np.uint64) -> np.uint64:
    """Return 64 bits mixed so that each depends on all (the finaliser of MurmurHash3)."""
    value = (value ^ (value >> _33)) * _MIX_1
    value = (value ^ (value >> _33)) * _MIX_2
    return value ^ (value >> _33)


@kernel
def _has_thousands(characters: Words, at: int, end: int, classes: Bytes) -> bool:
    """Return whether a comma and exactly three digits stand at `at`."""
    if at + 3 >= end or classes[characters[at]] != COMMA_CLASS:
        return False
    for digit in range(at + 1, at + 4):
        if classes[characters[digit]] != DIGIT_CLASS:
            return False
    return at + 4 >= end or classes[characters[at + 4]] != DIGIT_CLASS


@kernel
def _number_end(characters: Words, start: int, end: int, classes: Bytes) -> int:
    """Return where a number that starts at `start` ends."""
    at = start
    while at < end and classes[characters[at]] == DIGIT_CLASS:
        at += 1
    if at - start <= 3:
        while _has_thousands(characters, at, end, classes):
            at += 4
    while (
        at + 1 < end
        and classes[characters[at]] == POINT_CLASS
        and classes[characters[at + 1]] == DIGIT_CLASS
    ):
        at += 1
        while at < end and classes[characters[at]] == DIGIT_CLASS:
            at += 1
    return at


@kernel
def _word_end(characters: Words, start: int, end: int, classes: Bytes) -> int:
    """Return where the word or character that starts at `start` ends, its marks with it."""
    at = start + 1
    spaced = classes[characters[start]] == LETTER_CLASS
    while at < end:
        found = classes[characters[at]]
        if found != MARK_CLASS and not (spaced and found == LETTER_CLASS):
            break
        at += 1
    return at


@kernel
def _hash(characters: Words, start: int, end: int, classes: Bytes) -> np.uint64:
    """Return the hash of the characters without commas (FNV-1a over code points, mixed)."""
    value = _SEED
    for at in range(start, end):
        if classes[characters[at]] != COMMA_CLASS:
            value = (value ^ np.uint64(characters[at])) * _PRIME
    return mixed(value)


@kernel
def tokenise(characters: Words, ends: Counts, classes: Bytes) -> tuple[Hashes, Bytes, Counts]:
    """Return hashes and kinds of all tokens, and where each text's tokens start.

    `characters`: code points of all texts; `ends`: 0 and where each text ends among them;
    `classes`: of every code point.
    """
    hashes = np.empty(len(characters), dtype=np.uint64)
    kinds = np.empty(len(characters), dtype=np.uint8)
    starts = np.zeros(len(ends), dtype=np.int64)
    count = 0
    for text in range(len(ends) - 1):
        at, end = ends[text], ends[text + 1]
        while at < end:
            start, found = at, classes[characters[at]]
            if found == DIGIT_CLASS:
                at = _number_end(characters, start, end, classes)
                kinds[count] = NUMBER
            elif found in (LETTER_CLASS, CHARACTER_CLASS):
                at = _word_end(characters, start, end, classes)
                alone = found == LETTER_CLASS and at == start + 1
                kinds[count] = VARIABLE if alone else WORD
            elif found in (SIGN_CLASS, MARK_CLASS):
                at += 1
                kinds[count] = SIGN
            else:
                at += 1
                continue
            hashes[count] = _hash(characters, start, at, classes)
            count += 1
        starts[text + 1] = count
    return hashes[:count].copy(), kinds[:count].copy(), starts


@kernel
def _command_fold(token: np.uint64, commands: Hashes, folds: Hashes) -> np.uint64:
    """Return what a token after a backslash is folded to."""
    for known in range(len(commands)):
        if commands[known] == token:
            return np.uint64(folds[known])
    return token


@kernel
def _is_one(token: np.uint64, of: Hashes) -> bool:
    found = False
    for known in of:
        found = found or known == token
    return found


@kernel
def fold_tokens(
    wordings: tuple[Hashes, Bytes, Counts], anonymous: Hashes, commands: Hashes, folds: Hashes
) -> tuple[Hashes, Bytes, Counts]:
    """Return the tokens of the texts' skeletons (`cuvee.problems.wording.skeleton`).

    `anonymous`: the hashes of the backslash, of `0`, of `x` and of the signs left out.
    """
    hashes, kinds, starts = wordings
    folded, kept_kinds = np.empty_like(hashes), np.empty_like(kinds)
    new_starts = np.zeros_like(starts)
    count = 0
    for text in range(len(starts) - 1):
        command = False
        for at in range(starts[text], starts[text + 1]):
            token, kind = hashes[at], kinds[at]
            if command:
                token = _command_fold(token, commands, folds)
            command = kind == SIGN and hashes[at] == anonymous[0]
            if command or token == _NONE or (kind == SIGN and _is_one(token, anonymous)):
                continue
            if kind == NUMBER:
                token = anonymous[1]
            elif kind == VARIABLE:
                token = anonymous[2]
            folded[count], kept_kinds[count] = token, kind
            count += 1
        new_starts[text + 1] = count
    return folded[:count].copy(), kept_kinds[:count].copy(), new_starts


@kernel
def text_hashes(hashes: Hashes, starts: Counts) -> Hashes:
    """Return 128 bits of each text's tokens in their order, [texts, 2]."""
    found = np.empty((len(starts) - 1, 2), dtype=np.uint64)
    for text in range(len(found)):
        first, second = _SEED, _PRIME
        for at in range(starts[text], starts[text + 1]):
            first = mixed(first * _ODD + hashes[at])
            second = mixed((second ^ hashes[at]) * _MIX_1)
        found[text, 0], found[text, 1] = first, second
    return found


@kernel
def number_hashes(hashes: Hashes, kinds: Bytes, starts: Counts) -> Hashes:
    """Return one hash of each text's numbers, in whatever order they stand."""
    found = np.zeros(len(starts) - 1, dtype=np.uint64)
    for text in range(len(found)):
        for at in range(starts[text], starts[text + 1]):
            if kinds[at] == NUMBER:
                found[text] += mixed(hashes[at] ^ _ODD)
    return found


@kernel
def grams(hashes: Hashes, n: int) -> Hashes:
    """Return the hashes of the n-grams of one text's tokens, in order, repeats with them."""
    found = np.empty(max(0, len(hashes) - n + 1), dtype=np.uint64)
    for first in range(len(found)):
        value = _NONE
        for at in range(first, first + n):
            # Polynomial in an odd base modulo 2^64: depends on the order of the words.
            value = value * _ODD + hashes[at]
        found[first] = mixed(value)
    return found


@kernel
def in_common(left: Hashes, right: Hashes) -> int:
    """Return how many hashes two ascending arrays without repeats have in common."""
    count = at = other = 0
    while at < len(left) and other < len(right):
        if left[at] == right[other]:
            count += 1
            at += 1
            other += 1
        elif left[at] < right[other]:
            at += 1
        else:
            other += 1
    return count
