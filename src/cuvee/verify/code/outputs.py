"""Is an output the expected one? JSON values, plain Python values and printed text.

Two values in, a bool out. What a program said is hostile: nothing here takes long or raises
whatever it is. Not here: how the output was obtained (`cuvee.verify.code.check`).
"""

import math
from collections.abc import Sequence
from typing import Any

from cuvee.verify.code.asserts import Assertion
from cuvee.verify.code.plain import Opaque, unpack

TOLERANCE = 1e-6
"""Of a float where a function should return a float and its tests say nothing else."""

_HASHED_BOUND = 10_000
"""Most numbers in the sets and keys of a value: they can be chosen so that each collides."""


class NotPlainError(Exception):
    """A program's value is no packed one, or one that takes too long to rebuild."""


def rebuild(packed: Any) -> Any:
    """Return the value that a program packed. Raises NotPlainError where it made one up."""
    try:
        if _hashed(packed) > _HASHED_BOUND:
            raise NotPlainError("more numbers in sets and keys than can be compared in time")
        return unpack(packed)
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
        raise NotPlainError(f"{type(error).__name__}: {error}") from error
    except (AttributeError, MemoryError) as error:
        raise NotPlainError(type(error).__name__) from error


def _hashed(packed: Any) -> int:
    """Count what would be hashed and is no text (Python salts the hash of a text)."""
    if isinstance(packed, list):
        return sum(map(_hashed, packed))
    if not isinstance(packed, dict):
        return 0
    hashing = packed.keys() & {"set", "frozenset", "dict", "keys", "items"}
    own = sum(
        not isinstance(item, str) and not _has_text_key(item)
        for tag in hashing
        for item in (packed[tag] if isinstance(packed[tag], list) else ())
    )
    return own + sum(map(_hashed, packed.values()))


def _has_text_key(item: Any) -> bool:
    pair = item.get("tuple") if isinstance(item, dict) else None
    return isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)


def holds(assertion: Assertion, got: Any) -> bool:
    """Say whether what an assert says of a call's result is so, by Python's own `==`."""
    try:
        match assertion.relation:
            case "equal":
                return bool(got == assertion.expected)
            case "is":
                return got is assertion.expected
            case "true":
                return bool(got)
            case "false":
                return not got
    except RecursionError:
        return False


def same_plain(got: Any, expected: Any, *, tolerance: float | None, as_sets: bool) -> bool:
    """Compare two rebuilt values by Python's `==`, floats within the tolerance.

    `as_sets` compares the sets of their elements. A value that is not plain is as good as
    another that is as true.
    """
    try:
        if as_sets:
            return _same_sets(got, expected)
        return _equal_plain(got, expected, TOLERANCE if tolerance is None else tolerance)
    except (RecursionError, TypeError):
        return False


def _same_sets(got: Any, expected: Any) -> bool:
    if not isinstance(got, list | tuple | set | frozenset) or len(got) > _HASHED_BOUND:
        return False
    return set(got) == set(expected)


def _equal_plain(got: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(expected, Opaque):
        return bool(got) is bool(expected)
    if isinstance(expected, float) and isinstance(got, int | float):
        return _close(got, expected, tolerance)
    if isinstance(expected, list | tuple) and type(got) is type(expected):
        return len(got) == len(expected) and all(
            _equal_plain(g, e, tolerance) for g, e in zip(got, expected, strict=True)
        )
    if isinstance(expected, dict) and isinstance(got, dict):
        return got.keys() == expected.keys() and all(
            _equal_plain(got[key], expected[key], tolerance) for key in expected
        )
    return bool(got == expected)


def same_value(got: Any, expected: Any, *, tolerance: float | None = None) -> bool:
    """Compare two JSON values: numbers by value, floats within the tolerance, True is not 1.

    The tolerance (None: TOLERANCE) is of a float where a float is expected: absolute up to
    1, relative above. JSON knows no tuples (they are lists) and no keys but strings.
    """
    try:
        return _equal(got, expected, TOLERANCE if tolerance is None else tolerance)
    except RecursionError:
        return False


def _equal(got: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(expected, list):
        return (
            isinstance(got, list)
            and len(got) == len(expected)
            and all(_equal(g, e, tolerance) for g, e in zip(got, expected, strict=True))
        )
    if isinstance(expected, dict):
        return (
            isinstance(got, dict)
            and got.keys() == expected.keys()
            and all(_equal(got[key], expected[key], tolerance) for key in expected)
        )
    if isinstance(got, bool) or isinstance(expected, bool):
        return got is expected
    if isinstance(expected, float) and isinstance(got, int | float):
        return _close(got, expected, tolerance)
    return bool(got == expected)


def _close(got: float, expected: float, tolerance: float) -> bool:
    if math.isnan(expected):
        return got != got  # `isnan` refuses an int beyond every float
    if math.isinf(expected) or got == expected:
        return got == expected
    try:
        return abs(got - expected) <= tolerance * max(1.0, abs(expected))
    except OverflowError:  # an int beyond every float
        return False


def same_text(printed: str, expected: str, *, tolerance: float | None) -> bool:
    r"""Compare outputs line by line: blanks at a line's end and blank lines at the end apart.

    With a tolerance, lines are compared word by word, and a number where a number is
    expected may differ within it, absolute up to 1, relative above; two integers may not.
    `\r\n` ends a line as `\n` does.
    """
    got, wanted = _lines(printed), _lines(expected)
    if got == wanted:
        return True
    if tolerance is None or len(got) != len(wanted):
        return False
    return all(
        g == w or _same_words(g.split(), w.split(), tolerance)
        for g, w in zip(got, wanted, strict=True)
    )


def _lines(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _same_words(got: Sequence[str], wanted: Sequence[str], tolerance: float) -> bool:
    return len(got) == len(wanted) and all(
        g == w or _close_words(g, w, tolerance) for g, w in zip(got, wanted, strict=True)
    )


def _close_words(got: str, wanted: str, tolerance: float) -> bool:
    if (_is_integer(got) and _is_integer(wanted)) or "_" in got:
        return False  # Python alone reads 1_000
    try:
        return _close(float(got), float(wanted), tolerance)
    except ValueError:
        return False


def _is_integer(word: str) -> bool:
    return word.removeprefix("-").isdigit()
