"""`Refined`: the row that says what came of refining one example in one way."""

import dataclasses
from typing import Literal

Way = Literal["rules", "teacher"]


@dataclasses.dataclass(frozen=True)
class Refined:
    """What came of refining one example in one way. Its original stands in `chosen/`."""

    id: str
    """The example's, so the trace's."""
    problem_id: str
    domain: str
    teacher: str
    """Who wrote the trace."""
    way: Way
    accepted: bool
    """Whether the example has this text, or goes on from it."""
    reason: str
    """`refined`, `unchanged`, or why the text before stayed: `unsupported`, `too_little`, ..."""
    detail: str | None
    tokens_before: int
    """Of reasoning + answer, by the student's tokenizer, before this way."""
    tokens: int | None
    """After it, accepted or not; None where it was not counted."""
    verdict: str | None
    """On the refined text; None where it was refused before, or nothing changed."""
    applied: str
    """JSON: rule -> pieces it left out."""
    trace: str | None
    """Id of the refiner's own trace; None for the rules."""
