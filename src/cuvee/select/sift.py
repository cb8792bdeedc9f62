"""Traces and verdicts in, candidates and dropped rows out: the filters in their order.

Every trace ends as exactly one of both; a dropped row names the first objection it met, in
the order of `cuvee.select.objection.FILTERS`. Traces pass by one at a time, so there may be any
number. `sift` does all of it here; its parts, `cases`, `sift_cases` and `arranged`, are also
those of a cluster (`cuvee.select.clustered`). Not here: the choice among candidates
(`cuvee.select.choose`), files (`cuvee.select.stage`).
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from cuvee.errors import DataError
from cuvee.progress import Tick
from cuvee.recipe import Domain, Select
from cuvee.records import Dropped, Trace, Verdict, content_hash
from cuvee.select.choose import Candidate
from cuvee.select.difficulty import Tally, off_pass_rate, tally
from cuvee.select.graded import NO_GRADES, below, merit
from cuvee.select.objection import FILTERS, Objection
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
    """What the choice needs to know of the model that will be trained; it can be pickled."""

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


@dataclasses.dataclass(frozen=True)
class Case:
    """A trace that only its text can still speak against, and what that is read with."""

    trace: Trace
    asked: Asked
    grade: Grade | None


Sifted = Candidate | Dropped
"""What becomes of a trace."""


def sift(
    traces: Iterable[Trace],
    said: Judged,
    problems: Mapping[str, Asked],
    *,
    domain: Domain,
    student: Student,
    tick: Tick,
) -> Iterator[Sifted]:
    """Yield what becomes of each trace: a candidate, or the row that says why not.

    `problems` by id. Raises DataError as `cases` does.
    """
    rest = cases(traces, said, problems, select=domain.select)
    while batch := list(itertools.islice(rest, BATCH)):
        yield from arranged(sift_cases(batch, domain=domain, student=student))
        tick(len(batch))


def cases(
    traces: Iterable[Trace], said: Judged, problems: Mapping[str, Asked], *, select: Select
) -> Iterator[Case | Dropped]:
    """Yield each trace with what its text is read with; dropped where that is not needed.

    `problems` by id. Raises DataError where a trace stands twice, or has not exactly one
    verdict and one problem.
    """
    seen: set[str] = set()
    for trace in traces:
        if trace.id in seen or trace.id not in said.verdicts:
            raise _unpaired(f"trace {trace.id} stands twice, or has no verdict")
        if trace.problem_id not in problems:
            raise DataError(f"trace {trace.id}: no problem {trace.problem_id} in the domain")
        seen.add(trace.id)
        verdict, found = said.verdicts[trace.id], said.tallies[trace.problem_id]
        objection = verdict_objection(trace, verdict, found, select=select)
        if objection is None:
            yield Case(trace, problems[trace.problem_id], said.grades.get(trace.id))
        else:
            yield drop(trace, objection)
    if len(seen) != len(said.verdicts):
        raise _unpaired(f"{len(said.verdicts)} verdicts for {len(seen)} traces")


def _unpaired(why: str) -> DataError:
    return DataError(f"traces and verdicts do not pair one to one: {why}; verify again")


def sift_cases(
    batch: Sequence[Case | Dropped], *, domain: Domain, student: Student
) -> list[Sifted]:
    """Return what becomes of each case, in order; what is dropped already stays so.

    The filters of text first, then the token window of those that are left.
    """
    rows: list[Sifted | None] = []
    fit: dict[int, Case] = {}
    for place, case in enumerate(batch):
        if isinstance(case, Dropped):
            rows.append(case)
            continue
        rows.append(_by_text(case, domain=domain, student=student))
        if rows[-1] is None:
            fit[place] = case
    # Last, because counting is what costs; and once, because the count stays with the example.
    targets = [(c.asked.prompt, c.trace.reasoning, c.trace.answer) for c in fit.values()]
    for (place, case), tokens in zip(fit.items(), student.count(targets), strict=True):
        rows[place] = _by_length(case, tokens, window=domain.select.tokens)
    return [row for row in rows if row is not None]


def arranged(rows: Iterable[Sifted]) -> Iterator[Sifted]:
    """Yield rows, one a trace, as they are written: of each `BATCH` the counted ones last.

    So the files of a run do not depend on what its filters were mapped with.
    """
    rest = iter(rows)
    while batch := list(itertools.islice(rest, BATCH)):
        yield from sorted(batch, key=_was_counted)


def _was_counted(row: Sifted) -> bool:
    return isinstance(row, Candidate) or row.reason in FILTERS["token window"]


def _by_text(case: Case, *, domain: Domain, student: Student) -> Dropped | None:
    objection = wording_objection(case.trace, case.asked, domain=domain, student=student) or below(
        case.grade, least=domain.select.rubric_min
    )
    return None if objection is None else drop(case.trace, objection)


def _by_length(case: Case, tokens: int, *, window: tuple[int, int]) -> Sifted:
    trace = case.trace
    if (objection := outside(tokens, window=window)) is not None:
        return drop(trace, objection)
    text = content_hash(trace.reasoning, trace.answer)
    return Candidate(trace.id, trace.problem_id, trace.model, tokens, text, merit(case.grade))


def verdict_objection(
    trace: Trace, verdict: Verdict, found: Tally, *, select: Select
) -> Objection | None:
    """Return the first objection to how a trace ended and what was said of it, or None."""
    return (
        unfinished(trace)
        or unvoted(verdict)
        or unaccepted(verdict, select.accept)
        or off_pass_rate(found, window=select.pass_rate)
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
