"""What a filter returns: why a trace is not fit to be trained on; and all filters' reasons."""

import dataclasses
from collections.abc import Mapping

FILTERS: Mapping[str, tuple[str, ...]] = {
    "finish": ("request_failed", "truncated", "unfinished"),
    "vote": ("too_few_votes", "tied_vote", "no_agreement", "outvoted"),
    "verdict": ("verdict_wrong", "verdict_no_answer", "verdict_not_checked", "verdict_correct"),
    "pass rate": ("pass_rate_low", "pass_rate_high"),
    "workers": ("worker_lost",),
    "structure": ("no_reasoning", "think_tags", "empty_answer", "code_blocks", "not_python"),
    "control tokens": ("control_token",),
    "language": ("language",),
    "repetition": ("repetition", "loop"),
    "copying": ("copied",),
    "giving up": ("gives_up",),
    "answering early": ("answers_early",),
    "rubric": ("grade_low", "not_graded"),
    "token window": ("too_short", "too_long"),
    "choice": ("same_text", "not_chosen", "over_target"),
}
"""Filter -> the reasons it drops a trace for, in the order in which they are applied: every
dropped trace carries the reason of the first filter that objected. `choice` is no filter: it
is why a fit trace did not become an example. Nor is `workers`: with `workers: ray`, a trace
whose text no worker lived to read is read by no filter from there on."""

REASONS: tuple[str, ...] = tuple(reason for reasons in FILTERS.values() for reason in reasons)


@dataclasses.dataclass(frozen=True)
class Objection:
    """Why a trace is dropped."""

    reason: str
    """One word for counting, of `REASONS`."""
    detail: str | None = None
    """For people: what was found and what is wanted."""
