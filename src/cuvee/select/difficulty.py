"""How hard a problem was for the teachers: the share of its checked traces that are not right.

Verdicts in, a `Tally` a problem out. Checked is what was answered and judged: `correct`,
`wrong` or `no_answer` (truncated ones included), but neither a failed request nor
`not_checked`. Not here: how hard a problem is for the student.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable

from cuvee.records import Verdict
from cuvee.select.objection import Objection

BANDS = ("0.0-0.2", "0.2-0.4", "0.4-0.6", "0.6-0.8", "0.8-1.0")
"""Bands of difficulty, each with its lower end and without its upper one; the last with both."""
UNKNOWN = "unknown"
"""The band of a problem of which no trace was checked."""


@dataclasses.dataclass(frozen=True)
class Tally:
    """The checked traces of one problem, of all teachers together."""

    right: int = 0
    checked: int = 0

    @property
    def pass_rate(self) -> float | None:
        """Return the share in [0, 1] of right ones; None where nothing was checked."""
        return self.right / self.checked if self.checked else None

    @property
    def band(self) -> str:
        """Return the band of the difficulty, 1 - pass rate; exact at the bands' ends."""
        if not self.checked:
            return UNKNOWN
        return BANDS[min(len(BANDS) - 1, (self.checked - self.right) * len(BANDS) // self.checked)]


def tally(verdicts: Iterable[Verdict]) -> dict[str, Tally]:
    """Return the tally of each problem that has a verdict."""
    right: Counter[str] = Counter()
    checked: dict[str, int] = {}
    for verdict in verdicts:
        checked[verdict.problem_id] = checked.get(verdict.problem_id, 0) + is_checked(verdict)
        right[verdict.problem_id] += verdict.verdict == "correct"
    return {problem: Tally(right[problem], count) for problem, count in checked.items()}


def is_checked(verdict: Verdict) -> bool:
    """Return whether a trace counts for the pass rate: answered and judged."""
    return verdict.verdict != "not_checked" and verdict.reason != "request_failed"


def off_pass_rate(found: Tally, *, window: tuple[float, float]) -> Objection | None:
    """Object to a problem outside the window: `pass_rate_low`, `pass_rate_high`.

    Both ends are inside. A problem of which nothing was checked has no pass rate and is kept.
    """
    rate, (low, high) = found.pass_rate, window
    if rate is None or low <= rate <= high:
        return None
    detail = f"{found.right} of {found.checked} checked traces are right ({rate:.2f})"
    if rate < low:
        return Objection("pass_rate_low", f"{detail}, at least {low:g} wanted")
    return Objection("pass_rate_high", f"{detail}, at most {high:g} wanted")
