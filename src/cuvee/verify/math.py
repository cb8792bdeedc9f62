r"""Is a mathematical answer equal to the gold answer? By math-verify, in killable processes.

Pairs of text in, one `Judgement` each out, in order. Both sides are wrapped in `\boxed{}`:
unwrapped, math-verify takes `3` for `3\sqrt{13}`. Its own timeouts are switched off (they
need the main thread, and read as "different"); the pool kills from outside instead. Not
here: where an answer stands in a reply (`cuvee.verify.answers`).

As a program (`python -m cuvee.verify.math MEMORY_MB`) this is the pool's worker.
"""

import decimal
import functools
import logging
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from cuvee.progress import Tick
from cuvee.recipe import Verify
from cuvee.records import VerdictName
from cuvee.verify import pool
from cuvee.verify.judgement import Judgement

CHECKER = "math-verify"
NUMBER_CHECKER = "number"

_PLAIN_NUMBER = re.compile(r"[+-]?[0-9]{1,9}(?:\.[0-9]{1,6})?")
"""math-verify rounds to 6 decimals and 15 digits: within them it compares exactly."""

_VERDICTS: dict[str, VerdictName] = {"equal": "correct", "different": "wrong"}


def check_math(pairs: Sequence[tuple[str, str]], *, limits: Verify, tick: Tick) -> list[Judgement]:
    """Compare pairs of (gold, answer); return their judgements in the same order.

    `correct` (`equal`), `wrong` (`different`), or `not_checked`: `unusable_gold` (it cannot
    be read), `math_timeout`, `math_crash`. `tick` counts pairs. A pair that occurs twice is
    compared once. Raises VerifierError where math-verify itself cannot be started.
    """
    known: dict[tuple[str, str], Judgement] = {}
    asked: dict[tuple[str, str], int] = {}
    for gold, answer in pairs:
        by_number = _compare_numbers(gold, answer)
        if by_number is None:
            asked[gold, answer] = asked.get((gold, answer), 0) + 1
        else:
            known[gold, answer] = by_number
            tick(1)
    outcomes = pool.run(
        [sys.executable, "-P", "-m", "cuvee.verify.math", str(limits.memory_mb)],
        list(asked),
        processes=limits.processes or os.cpu_count() or 1,
        seconds=limits.math_seconds,
        tick=tick,
    )
    for (pair, times), outcome in zip(asked.items(), outcomes, strict=True):
        known[pair] = _judge(*pair, outcome)
        tick(times - 1)
    return [known[pair] for pair in pairs]


def _compare_numbers(gold: str, answer: str) -> Judgement | None:
    """Judge two plain numbers at once, as math-verify would; None for anything else."""
    if not (_PLAIN_NUMBER.fullmatch(gold.strip()) and _PLAIN_NUMBER.fullmatch(answer.strip())):
        return None
    if decimal.Decimal(gold.strip()) == decimal.Decimal(answer.strip()):
        return Judgement("correct", "equal", NUMBER_CHECKER, answer, gold)
    return Judgement("wrong", "different", NUMBER_CHECKER, answer, gold)


def _judge(gold: str, answer: str, outcome: pool.Outcome) -> Judgement:
    said = outcome.value if outcome.status == "done" else {"reason": f"math_{outcome.status}"}
    reason, detail = said["reason"], said.get("detail") or outcome.detail
    verdict = _VERDICTS.get(reason, "not_checked")
    return Judgement(verdict, reason, CHECKER, answer, gold, detail, outcome.seconds)


def compare(gold: str, answer: str) -> dict[str, str | None]:
    r"""Compare two answers by math-verify, without a time limit; return reason and detail.

    `gold` and `answer` are LaTeX as it stands in a `\boxed{}`. The reasons are `equal`,
    `different`, `unusable_gold` and `math_crash` (math-verify failed on this pair).
    """
    import math_verify  # 1 s, and only workers need it
    from sympy.polys.polyerrors import (  # type: ignore[import-untyped]
        BasePolynomialError,
    )

    try:
        golds, answers = _parse(gold), _parse(answer)
        same_text = {g for g in golds if isinstance(g, str)} & set(_texts(answers))
        if not any(not isinstance(g, str) for g in golds) and not same_text:
            return {"reason": "unusable_gold", "detail": "the gold cannot be read as mathematics"}
        if same_text or math_verify.verify(
            list(golds), list(answers), timeout_seconds=None, raise_on_error=True
        ):
            return {"reason": "equal", "detail": None}
    except (
        ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError,
        ValueError, MemoryError, BasePolynomialError,
    ) as error:  # fmt: skip
        # What sympy raises on odd input; anything else ends the worker, which says the same.
        return {"reason": "math_crash", "detail": f"{type(error).__name__}: {error}"[:500]}
    unread = not any(not isinstance(a, str) for a in answers)
    return {
        "reason": "different",
        "detail": "the answer cannot be read as mathematics" if unread else None,
    }


def _texts(parsed: Sequence[Any]) -> list[str]:
    return [p for p in parsed if isinstance(p, str)]


@functools.lru_cache(maxsize=512)
def _parse(text: str) -> tuple[Any, ...]:
    """Return what math-verify reads: sympy expressions and, last, the text itself."""
    from math_verify import LatexExtractionConfig, parse

    boxed = f"\\boxed{{{text}}}"
    config = [LatexExtractionConfig(boxed_match_priority=0)]
    return tuple(parse(boxed, config, parsing_timeout=None, raise_on_error=True))


def main(memory_mb: int) -> None:
    """Answer the pool's tasks, each a pair [gold, answer]."""
    logging.disable()
    # What is slow the first time (grammar, simplification) is done before a task is timed.
    compare(r"\frac{x^2-1}{x-1}", "x+1")
    pool.serve(lambda task: compare(*task), memory_mb=memory_mb)


if __name__ == "__main__":
    main(int(sys.argv[1]))
