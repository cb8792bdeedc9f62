"""The stage `teach`: problems in, traces out, one task a teacher and domain.

Reads `01_problems/DOMAIN.parquet`, writes `02_traces/DOMAIN/TEACHER.parquet`: `samples`
traces a problem, in the order of the problems, failed requests included. The ledger is
opened once; one teacher is open at a time, for all its domains, because two served models
rarely fit into one machine. Not here: what a trace is worth (`cuvee.verify`, `cuvee.select`).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from cuvee.errors import DataError, TeacherError
from cuvee.progress import warn
from cuvee.recipe import Recipe, Teacher
from cuvee.records import Problem, Trace, read_rows, write_rows
from cuvee.runfolder import Run, Task
from cuvee.teach.client import Endpoint, Request, ask, request_seed
from cuvee.teach.endpoints import check_teacher, open_teacher
from cuvee.teach.ledger import Ledger

INDIFFERENT: Mapping[str, Any] = {
    "domains": True,
    "key_env": True,
    "concurrency": True,
    "timeout": True,
    "retries": True,
    "terms": True,
    "serve": {"command", "devices", "slots", "start_timeout", "threads"},
}
"""Keys of a teacher that cannot change its answers (pydantic's form of an exclusion)."""

OpenLedger = Callable[[], Ledger]
OpenTeacher = Callable[[Teacher], Endpoint]


def tasks(run: Run, resources: ExitStack) -> list[Task]:
    """Return the tasks, teacher by teacher; `resources` closes what they open."""
    open_ledger = functools.cache(lambda: resources.enter_context(Ledger.open(run.recipe.ledger)))
    opened = one_at_a_time(run, resources)
    return [
        _task(run, teacher, domain, open_ledger=open_ledger, opened=opened)
        for teacher in run.recipe.teachers
        for domain in run.recipe.domains
        if teacher in run.recipe.teachers_of(domain)
    ]


def one_at_a_time(run: Run, resources: ExitStack) -> OpenTeacher:
    """Return what opens a teacher, and closes the one before when another's turn comes."""
    slot = resources.enter_context(ExitStack())
    endpoints: dict[str, Endpoint] = {}

    def opened(teacher: Teacher) -> Endpoint:
        if teacher.name not in endpoints:
            endpoints.clear()
            slot.close()
            endpoints[teacher.name] = open_teacher(teacher, run=run, resources=slot)
        return endpoints[teacher.name]

    return opened


def _task(
    run: Run, teacher: Teacher, domain: str, *, open_ledger: OpenLedger, opened: OpenTeacher
) -> Task:
    def work() -> Mapping[str, Any]:
        problems = read_rows(run.problems(domain), Problem)
        if not problems:
            raise DataError(f"{run.problems(domain)}: no problems to ask")
        _check_what_follows(run.recipe, teacher)
        traces, usage = ask(
            opened(teacher),
            requests_of(problems, samples=teacher.samples, seed=run.recipe.seed),
            sampling=teacher.sampling,
            ledger=open_ledger(),
            label=f"teach {domain}/{teacher.name}",
        )
        _check_answered(run, traces, domain=domain, teacher=teacher.name)
        write_rows(run.traces(domain, teacher.name), traces, Trace)
        return {"traces": len(traces)} | dataclasses.asdict(usage)

    return Task(
        stage="teach",
        name=f"{domain}/{teacher.name}",
        inputs=(run.problems(domain),),
        outputs=(run.traces(domain, teacher.name),),
        settings={
            "teacher": teacher.model_dump(mode="json", exclude=dict(INDIFFERENT)),
            "seed": run.recipe.seed,
        },
        work=work,
    )


def requests_of(problems: list[Problem], *, samples: int, seed: int) -> list[Request]:
    """Return `samples` requests a problem, in order; the seed of each depends on it alone."""
    return [
        Request(
            problem_id=problem.id,
            domain=problem.domain,
            sample=sample,
            prompt=problem.prompt,
            seed=request_seed(seed, problem.id, sample),
        )
        for problem in problems
        for sample in range(samples)
    ]


def _check_what_follows(recipe: Recipe, teacher: Teacher) -> None:
    """Check this teacher and those after it, so that a missing key is said before all cost."""
    for later in recipe.teachers[recipe.teachers.index(teacher) :]:
        check_teacher(later)


def _check_answered(run: Run, traces: list[Trace], *, domain: str, teacher: str) -> None:
    """Raise TeacherError where every request failed; warn where some did."""
    errors = [trace.error for trace in traces if trace.error is not None]
    if len(errors) == len(traces):
        raise TeacherError(f"{teacher}: all {len(traces)} requests failed; the first: {errors[0]}")
    if errors:
        warn(
            f"{teacher}: {len(errors)} of {len(traces)} requests failed (the first: {errors[0]}); "
            f"to ask them again, remove {run.traces(domain, teacher)} and run again"
        )
