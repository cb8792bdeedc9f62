"""What a checker says of one answer; `cuvee.verify.check` makes a `Verdict` row of it."""

import dataclasses

from cuvee.records import VerdictName


@dataclasses.dataclass(frozen=True)
class Judgement:
    """The part of a `Verdict` that does not name the trace; the fields mean the same."""

    verdict: VerdictName
    reason: str
    checker: str
    extracted: str | None = None
    expected: str | None = None
    detail: str | None = None
    seconds: float = 0.0
