"""Is an output the expected one? JSON values that functions return, and printed text.

Two values in, a bool out. Not here: how the output was obtained (`cuvee.verify.code`).
"""

import math
from collections.abc import Sequence
from typing import Any

TOLERANCE = 1e-6
"""Of a float where a float is expected: absolute up to 1, relative above. All else is exact."""


def same_value(got: Any, expected: Any) -> bool:
    """Compare two JSON values: numbers by value, floats within TOLERANCE, True is not 1.

    JSON knows no tuples (they are lists) and no keys but strings.
    """
    try:
        return _equal(got, expected)
    except RecursionError:
        return False


def _equal(got: Any, expected: Any) -> bool:
    if isinstance(expected, list):
        return (
            isinstance(got, list)
            and len(got) == len(expected)
            and all(_equal(g, e) for g, e in zip(got, expected, strict=True))
        )
    if isinstance(expected, dict):
        return (
            isinstance(got, dict)
            and got.keys() == expected.keys()
            and all(_equal(got[key], expected[key]) for key in expected)
        )
    if isinstance(got, bool) or isinstance(expected, bool):
        return got is expected
    if isinstance(expected, float) and isinstance(got, int | float):
        return _close(got, expected)
    return bool(got == expected)


def _close(got: float, expected: float) -> bool:
    if math.isnan(expected):
        return math.isnan(got)
    if math.isinf(expected) or got == expected:
        return got == expected
    try:
        return abs(got - expected) <= TOLERANCE * max(1.0, abs(expected))
    except OverflowError:  # an int beyond every float
        return False


def same_text(printed: str, expected: str) -> bool:
    """Compare outputs word by word in each line, blank lines at the end apart.

    A word that is a float where a float is expected may differ within TOLERANCE.
    """
    got, wanted = printed.rstrip().split("\n"), expected.rstrip().split("\n")
    return len(got) == len(wanted) and all(
        _same_words(g.split(), w.split()) for g, w in zip(got, wanted, strict=True)
    )


def _same_words(got: Sequence[str], wanted: Sequence[str]) -> bool:
    return len(got) == len(wanted) and all(
        g == w or _close_words(g, w) for g, w in zip(got, wanted, strict=True)
    )


def _close_words(got: str, wanted: str) -> bool:
    if "." not in wanted and "e" not in wanted.lower():
        return False
    try:
        return _close(float(got), float(wanted))
    except ValueError:
        return False
