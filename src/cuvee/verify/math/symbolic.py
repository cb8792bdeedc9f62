r"""Two answers compared by math-verify; as a program, a worker of the pool.

Text in, a reason out, without limits of time: the pool kills from outside. math-verify's own
search in prose, its time limits (they need the main thread and read as "different") and its
removal of units (it takes `3x+2t` for `3x+2`) are not used: what was stated is already found
and tidied (`cuvee.verify.math.notation`).

`python -m cuvee.verify.math.symbolic MEMORY_MB` answers tasks [gold, answer], each side
[text, percent].
"""

import functools
import logging
import sys
from typing import Any

from cuvee.verify.math import worker

Side = tuple[str, bool]
"""A text in the one notation, and whether a percent sign was taken off it."""


def compare(gold: Side, answer: Side) -> dict[str, str | None]:
    r"""Compare two answers; return reason and detail.

    The reasons are `equal`, `different`, `unusable_gold` (it cannot be read) and `math_crash`
    (math-verify failed on this pair).
    """
    try:
        return _compare(gold, answer)
    except (
        ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError,
        ValueError, MemoryError, _polynomial_error(),
    ) as error:  # fmt: skip
        # What sympy raises on odd input; anything else ends the worker, which says the same.
        return {"reason": "math_crash", "detail": f"{type(error).__name__}: {error}"[:500]}


def _compare(gold: Side, answer: Side) -> dict[str, str | None]:
    reference, stated = _read(gold[0]), _read(answer[0])
    if reference is None:
        return {"reason": "unusable_gold", "detail": "the gold cannot be read as mathematics"}
    if stated is None:
        return {"reason": "different", "detail": "the answer cannot be read as mathematics"}
    same = _equal(reference, stated)
    if not same and gold[1] != answer[1]:  # 50\% is 50 and 0.5
        with_sign, without = (gold[0], answer) if gold[1] else (answer[0], gold)
        hundredth = _read(rf"\frac{{{with_sign}}}{{100}}")
        other = _read(without[0])
        same = hundredth is not None and other is not None and _equal(hundredth, other)
    return {"reason": "equal" if same else "different", "detail": None}


def _equal(gold: Any, answer: Any) -> bool:
    """Ask math-verify; what it rounds to 6 decimals must also agree to 3 digits."""
    import math_verify  # 1 s, and only workers need it
    from sympy import Eq, Ne  # type: ignore[import-untyped]

    if isinstance(gold, Ne) or isinstance(answer, Ne):  # it has no rule for "is not"
        if type(gold) is not type(answer):
            return False
        gold, answer = (Eq(*side.args, evaluate=False) for side in (gold, answer))

    if not math_verify.verify(
        gold, answer, allow_set_relation_comp=True, timeout_seconds=None, raise_on_error=True
    ):
        return _same_solutions(gold, answer)
    if getattr(gold, "is_Float", False) or getattr(answer, "is_Float", False):
        a, b = float(gold), float(answer)
        return abs(a - b) <= 1e-3 * max(abs(a), abs(b))
    return True


def _same_solutions(gold: Any, answer: Any) -> bool:
    """Whether two inequalities in one unknown hold for the same numbers: `2x > 6`, `x > 3`."""
    from latex2sympy2_extended.logic import And  # type: ignore[import-untyped]
    from sympy import GreaterThan, LessThan, StrictGreaterThan, StrictLessThan

    sides = (gold, answer)
    inequality = And | GreaterThan | LessThan | StrictGreaterThan | StrictLessThan
    if not all(isinstance(side, inequality) for side in sides):
        return False
    if len(gold.free_symbols) != 1 or gold.free_symbols != answer.free_symbols:
        return False
    solutions = [side.as_set() for side in sides]
    return bool(solutions[0] == solutions[1])


@functools.lru_cache(maxsize=512)
def _read(text: str) -> Any | None:
    """Return what math-verify makes of a text, or None where it makes nothing of it."""
    from latex2sympy2_extended.latex2sympy2 import (  # type: ignore[import-untyped]
        NormalizationConfig,
        normalize_latex,
    )
    from math_verify.parser import parse_latex_cached

    config = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none"
    )
    try:
        return parse_latex_cached(normalize_latex(text, config))
    except (MemoryError, RecursionError):
        raise  # our limits, not the text's fault
    except Exception:  # noqa: BLE001 - its grammar raises just that on what it cannot read
        return None


@functools.cache
def _polynomial_error() -> type[Exception]:
    from sympy.polys.polyerrors import BasePolynomialError  # type: ignore[import-untyped]

    return BasePolynomialError  # type: ignore[no-any-return]


def main(memory_mb: int) -> None:
    """Answer the pool's tasks."""
    logging.disable()
    # What is slow the first time (grammar, simplification) is done before a task is timed.
    for gold, answer in ((r"\frac{x^2-1}{x-1}", "x+1"), (r"(\frac{\pi}{2},1]", r"[0,\sqrt{2})")):
        compare((gold, False), (answer, False))
    worker.serve(lambda task: compare(*task), memory_mb=memory_mb)


if __name__ == "__main__":
    main(int(sys.argv[1]))
