"""Traces and verdicts in, examples and dropped rows out: the filters in order, the choice.

Every trace ends as exactly one example or one dropped row, which names the first objection
it met, in the order: finished, judged right, well formed, no control tokens, language,
repetition, token window, chosen. Not here: files (`cuvee.select.stage`).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from cuvee.errors import DataError
from cuvee.progress import Tick
from cuvee.recipe import Domain, Select
from cuvee.records import Dropped, Example, Problem, Trace, Verdict
from cuvee.select.choose import Candidate, choose
from cuvee.select.filters import (
    Objection,
    control_tokens,
    foreign,
    malformed,
    outside,
    repetitive,
    unaccepted,
    unfinished,
)


@dataclasses.dataclass(frozen=True)
class Student:
    """What the choice needs to know of the model that will be trained."""

    control_tokens: tuple[str, ...]
    """Its special tokens, as text."""
    count: Callable[[str, str, str], int]
    """prompt, reasoning, answer -> how many tokens of it will be trained."""


def sift(
    traces: Sequence[Trace],
    verdicts: Sequence[Verdict],
    problems: Mapping[str, Problem],
    *,
    domain: Domain,
    student: Student,
    tick: Tick,
) -> tuple[list[Candidate], list[Dropped]]:
    """Return the traces that pass every filter, and a row for every other one.

    `problems` by id. Raises DataError where a trace stands twice, or has not exactly one
    verdict and one problem.
    """
    by_trace = _one_each(traces, verdicts)
    candidates: list[Candidate] = []
    dropped: list[Dropped] = []
    for trace in traces:
        if trace.problem_id not in problems:
            raise DataError(f"trace {trace.id}: no problem {trace.problem_id} in the domain")
        prompt = problems[trace.problem_id].prompt
        objection, tokens = _judge(
            trace, by_trace[trace.id], prompt, domain=domain, student=student
        )
        if objection is None:
            candidates.append(Candidate(trace, tokens))
        else:
            dropped.append(_dropped(trace, objection))
        tick(1)
    return candidates, dropped


def settle(
    candidates: Sequence[Candidate],
    problems: Mapping[str, Problem],
    *,
    select: Select,
    seed: int,
) -> tuple[list[Example], list[Dropped]]:
    """Return the examples, in the order of choosing, and a row for every other candidate."""
    choice = choose(
        candidates,
        policy=select.policy,
        per_problem=select.per_problem,
        target=select.target,
        seed=seed,
    )
    examples = [
        _example(chosen, problems[chosen.trace.problem_id].prompt) for chosen in choice.chosen
    ]
    dropped = [_dropped(left.trace, Objection("not_chosen")) for left in choice.not_chosen]
    dropped += [_dropped(left.trace, Objection("over_target")) for left in choice.over_target]
    return examples, dropped


def _judge(
    trace: Trace, verdict: Verdict, prompt: str, *, domain: Domain, student: Student
) -> tuple[Objection | None, int]:
    """Return the first objection to a trace, or None and its count of tokens."""
    select = domain.select
    objection = (
        unfinished(trace)
        or unaccepted(verdict, select.accept)
        or malformed(trace, verifier=domain.verifier)
        or control_tokens(trace, student.control_tokens)
        or foreign(trace, language=select.language, least=select.language_share)
        or repetitive(trace, most=select.max_repetition)
    )
    if objection is not None:
        return objection, 0
    # Last, because counting is what costs.
    tokens = student.count(prompt, trace.reasoning, trace.answer)
    return outside(tokens, window=select.tokens), tokens


def _one_each(traces: Sequence[Trace], verdicts: Sequence[Verdict]) -> Mapping[str, Verdict]:
    """Return the verdict of each trace; raise DataError where they do not pair one to one."""
    by_trace = {verdict.trace_id: verdict for verdict in verdicts}
    ids = {trace.id for trace in traces}
    if len(ids) != len(traces) or len(by_trace) != len(verdicts) or ids != set(by_trace):
        raise DataError(
            f"{len(traces)} traces ({len(ids)} different) and {len(verdicts)} verdicts "
            f"({len(by_trace)} different) do not pair one to one: {len(ids - set(by_trace))} "
            "traces have no verdict; verify again"
        )
    return by_trace


def _example(chosen: Candidate, prompt: str) -> Example:
    trace = chosen.trace
    return Example(
        id=trace.id,
        problem_id=trace.problem_id,
        domain=trace.domain,
        teacher=trace.model,
        prompt=prompt,
        reasoning=trace.reasoning,
        answer=trace.answer,
        tokens=chosen.tokens,
    )


def _dropped(trace: Trace, objection: Objection) -> Dropped:
    return Dropped(
        id=trace.id,
        domain=trace.domain,
        kind="trace",
        model=trace.model,
        reason=objection.reason,
        detail=objection.detail,
    )
