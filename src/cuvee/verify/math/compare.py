r"""Pairs of (gold, answer) in, one `Judgement` each out, in order.

Both sides are brought to one notation; exact normal forms decide most pairs at once, math-verify
the rest in processes that are killed from outside. Not here: where an answer stands in a reply
(`cuvee.verify.answers`).
"""

import functools
import os
import re
import sys
from collections.abc import Sequence

from cuvee.progress import Tick
from cuvee.recipe import Verify
from cuvee.records import VerdictName
from cuvee.verify.answers import final_answer
from cuvee.verify.judgement import Judgement
from cuvee.verify.math import normal, pool
from cuvee.verify.math.notation import MAX_CHARS, Stated, tidy, without_letter_unit

CHECKER = "math-verify"
FAST_CHECKER = "normal-form"

_VERDICTS: dict[str, VerdictName] = {"equal": "correct", "different": "wrong"}
_SHOWN_CHARS = 2000
_HAS_LETTER = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]")
"""A letter that is not of a LaTeX command."""


def check_math(pairs: Sequence[tuple[str, str]], *, limits: Verify, tick: Tick) -> list[Judgement]:
    """Compare pairs of (gold, answer); return their judgements in the same order.

    Either side is LaTeX or plain text, boxed or not; where it holds a box among other text, the
    box is taken. `correct` (`equal`), `wrong` (`different`), or `not_checked`: `unusable_gold`
    (it cannot be read), `too_long` (over 10,000 characters), `math_timeout`, `math_crash`.
    `tick` counts pairs. A pair that occurs twice is compared once. Safe in any thread. Raises
    VerifierError where math-verify itself cannot be started.
    """
    known: dict[tuple[str, str], Judgement] = {}
    asked: dict[tuple[str, str], int] = {}
    for pair in pairs:
        if pair in asked:
            asked[pair] += 1
            continue
        if pair not in known:
            judgement = compare_at_once(*pair)
            if judgement is None:
                asked[pair] = 1
                continue
            known[pair] = judgement
        tick(1)
    outcomes = pool.run(
        [sys.executable, "-P", "-m", "cuvee.verify.math.symbolic", str(limits.memory_mb)],
        [_task(*pair) for pair in asked],
        processes=limits.processes or os.cpu_count() or 1,
        seconds=limits.math_seconds,
        tick=tick,
    )
    for (pair, times), outcome in zip(asked.items(), outcomes, strict=True):
        known[pair] = _judge(*pair, outcome)
        tick(times - 1)
    return [known[pair] for pair in pairs]


def compare_at_once(gold: str, answer: str) -> Judgement | None:
    """Judge a pair without math-verify, or return None where that takes it."""
    verdict: VerdictName
    shown = answer[:_SHOWN_CHARS]
    if not gold.strip():
        detail = "the gold is empty"
        return Judgement("not_checked", "unusable_gold", FAST_CHECKER, shown, gold, detail)
    if gold == answer:
        return Judgement("correct", "equal", FAST_CHECKER, shown, gold)
    if not answer.strip():
        return Judgement("wrong", "different", FAST_CHECKER, shown, gold, "the answer is empty")
    if max(len(gold), len(answer)) > MAX_CHARS:
        detail = f"{max(len(gold), len(answer)):,} characters; {MAX_CHARS:,} are compared"
        return Judgement(
            "not_checked", "too_long", FAST_CHECKER, shown, gold[:_SHOWN_CHARS], detail
        )
    same = normal.equal(*sides(gold, answer))
    if same is None:
        return None
    verdict = "correct" if same else "wrong"
    return Judgement(verdict, "equal" if same else "different", FAST_CHECKER, shown, gold)


@functools.lru_cache(maxsize=4096)
def _stated(text: str) -> Stated:
    """Read one side; a gold that is a whole solution states its answer in a box."""
    if r"\boxed" in text or r"\fbox" in text:
        text = final_answer(text) or text
    return tidy(text)


def sides(gold: str, answer: str) -> tuple[Stated, Stated]:
    """Read both sides; letters in the answer are no variables where the gold has none."""
    reference, stated = _stated(gold), _stated(answer)
    if not _HAS_LETTER.search(reference.text):
        stated = without_letter_unit(stated)
    return reference, stated


def _task(gold: str, answer: str) -> list[tuple[str, bool]]:
    return [(side.text, side.percent) for side in sides(gold, answer)]


def _judge(gold: str, answer: str, outcome: pool.Outcome) -> Judgement:
    said = outcome.value if outcome.status == "done" else {"reason": f"math_{outcome.status}"}
    reason, detail = said["reason"], said.get("detail") or outcome.detail
    verdict = _VERDICTS.get(reason, "not_checked")
    return Judgement(verdict, reason, CHECKER, answer, gold, detail, outcome.seconds)
