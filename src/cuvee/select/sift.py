"""Traces and verdicts in, candidates and dropped rows out: the filters in their order.

Every trace ends as exactly one of both; a dropped row names the first objection it met, in
the order of `cuvee.select.objection.FILTERS`. Traces pass by one at a time, so there may be any
number. Not here: the choice among candidates (`cuvee.select.choose`), files
(`cuvee.select.stage`).
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from cuvee.errors import DataError
from cuvee.progress import Tick
from cuvee.recipe import Domain
from cuvee.records import Dropped, Trace, Verdict, content_hash
from cuvee.select.choose import Candidate
from cuvee.select.difficulty import Tally, off_pass_rate, tally
from cuvee.select.graded import NO_GRADES, below, merit
from cuvee.select.objection import Objection
from cuvee.select.prose import answers_early, copied, foreign, gives_up
from cuvee.select.repetition import repetitive
from cuvee.select.structure import control_tokens, malformed, outside, unaccepted, unfinished
from cuvee.select.vote import unvoted
from cuvee.verify.judge_rubric import Grade

BATCH = 64
"""Traces whose tokens are counted in one call: enough to keep all cores busy."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the filters and the choice need to know of a problem."""

    source: str
    question: str
    prompt: str


@dataclasses.dataclass(frozen=True)
class Student:
    """What the choice needs to know of the model that will be trained."""

    control_tokens: tuple[str, ...]
    """Its special tokens, as text."""
    count: Callable[[Sequence[tuple[str, str, str]]], list[int]]
    """Of each (prompt, reasoning, answer): how many tokens of it will be trained."""


@dataclasses.dataclass(frozen=True)
class Judged:
    """What the verifier (or a vote) said of a domain's traces."""

    verdicts: Mapping[str, Verdict]
    """By trace."""
    tallies: Mapping[str, Tally]
    """By problem."""
    grades: Mapping[str, Grade] = dataclasses.field(default_factory=lambda: NO_GRADES)
    """By trace, where the choice goes by a rubric."""


def judged(verdicts: Sequence[Verdict]) -> Judged:
    """Return the verdicts by trace and by problem; raise DataError where a trace has two."""
    by_trace = {verdict.trace_id: verdict for verdict in verdicts}
    if len(by_trace) != len(verdicts):
        raise _unpaired(f"{len(verdicts)} verdicts are of {len(by_trace)} traces")
    return Judged(by_trace, tally(verdicts))


def sift(
    traces: Iterable[Trace],
    said: Judged,
    problems: Mapping[str, Asked],
    *,
    domain: Domain,
    student: Student,
    tick: Tick,
) -> Iterator[Candidate | Dropped]:
    """Yield what becomes of each trace: a candidate, or the row that says why not.

    `problems` by id. Raises DataError where a trace stands twice, or
    has not exactly one verdict and one problem.
    """
    seen: set[str] = set()
    rest = iter(traces)
    while batch := list(itertools.islice(rest, BATCH)):
        for trace in batch:
            if trace.id in seen or trace.id not in said.verdicts:
                raise _unpaired(f"trace {trace.id} stands twice, or has no verdict")
            if trace.problem_id not in problems:
                raise DataError(f"trace {trace.id}: no problem {trace.problem_id} in the domain")
            seen.add(trace.id)
        yield from _sift_batch(batch, said, problems, domain=domain, student=student)
        tick(len(batch))
    if len(seen) != len(said.verdicts):
        raise _unpaired(f"{len(said.verdicts)} verdicts for {len(seen)} traces")


def _unpaired(why: str) -> DataError:
    return DataError(f"traces and verdicts do not pair one to one: {why}; verify again")


def _sift_batch(
    batch: Sequence[Trace],
    said: Judged,
    problems: Mapping[str, Asked],
    *,
    domain: Domain,
    student: Student,
) -> Iterator[Candidate | Dropped]:
    """Apply the filters of text to each trace, then the token window to those that are left."""
    fit: list[Trace] = []
    for trace in batch:
        objection = text_objection(
            trace,
            said.verdicts[trace.id],
            said.tallies[trace.problem_id],
            problems[trace.problem_id],
            domain=domain,
            student=student,
        ) or below(said.grades.get(trace.id), least=domain.select.rubric_min)
        if objection is None:
            fit.append(trace)
        else:
            yield drop(trace, objection)
    # Last, because counting is what costs; and once, because the count stays with the example.
    targets = [(problems[t.problem_id].prompt, t.reasoning, t.answer) for t in fit]
    for trace, tokens in zip(fit, student.count(targets), strict=True):
        objection = outside(tokens, window=domain.select.tokens)
        if objection is None:
            text = content_hash(trace.reasoning, trace.answer)
            grades = merit(said.grades.get(trace.id))
            yield Candidate(trace.id, trace.problem_id, trace.model, tokens, text, grades)
        else:
            yield drop(trace, objection)


def text_objection(
    trace: Trace,
    verdict: Verdict,
    found: Tally,
    asked: Asked,
    *,
    domain: Domain,
    student: Student,
) -> Objection | None:
    """Return the first objection to a trace short of its length in tokens, or None."""
    select = domain.select
    return (
        unfinished(trace)
        or unvoted(verdict)
        or unaccepted(verdict, select.accept)
        or off_pass_rate(found, window=select.pass_rate)
        or wording_objection(trace, asked, domain=domain, student=student)
    )


def wording_objection(
    trace: Trace, asked: Asked, *, domain: Domain, student: Student
) -> Objection | None:
    """Return the first objection to what a trace says, whatever was said of it, or None."""
    select = domain.select
    return (
        malformed(trace, verifier=domain.verifier)
        or control_tokens(trace, student.control_tokens)
        or foreign(trace, language=select.language, least=select.language_share)
        or repetitive(trace, most=select.max_repetition)
        or copied(trace, asked.question, most=select.max_copied)
        or (None if select.allow_giving_up else gives_up(trace))
        or answers_early(trace, asked.question, least=select.answer_after)
    )


def drop(trace: Trace, objection: Objection) -> Dropped:
    """Return the row of a trace that is left out."""
    return Dropped(
        id=trace.id,
        domain=trace.domain,
        kind="trace",
        model=trace.model,
        reason=objection.reason,
        detail=objection.detail,
    )
