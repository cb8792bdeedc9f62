"""The stage `teach`: problems in, traces out, one task a teacher and domain.

Reads `01_problems/DOMAIN.parquet`, writes `02_traces/DOMAIN/TEACHER.parquet`: `samples`
traces a problem, in the order of the problems, failed requests included. A published
teacher's traces are copied from `01_problems/traces/DOMAIN.parquet`; it is never asked.

Every teacher has a lane of its own: one that is down does not stop the others. Remote
teachers are asked side by side; what cuvee starts itself runs one after another, because two
served models rarely fit into one machine, and not at all where the ledger has every answer.
A task some of whose requests failed is done again by the next run, unless the server refused
them for good. Two runs that ask the same at the same moment may both pay for it: the ledger
keeps the first answer. With `rounds:` the tasks of a later round (`round-2/DOMAIN/TEACHER`)
ask the problems of `02_traces/round-2/asked/DOMAIN.parquet`, and number the samples on. Not
here: what a trace is worth (`cuvee.verify`, `cuvee.select`), who is asked again (`cuvee.rounds`).
"""

import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cuvee.atomic import remove
from cuvee.errors import DataError, RecipeError, TeacherError
from cuvee.progress import bar, live, warn
from cuvee.recipe import Recipe, Teacher
from cuvee.records import Trace, count_rows, iter_rows, iter_values, write_rows
from cuvee.runfolder import Run, Task
from cuvee.teach.client import (
    Books,
    Request,
    Usage,
    all_answered,
    api_key,
    ask,
    request_seed,
)
from cuvee.teach.costs import Costs, lines, table
from cuvee.teach.endpoints import check_url, find_teacher
from cuvee.teach.ledger import Ledger, located
from cuvee.teach.ledger.carry import count_rows as count_answers
from cuvee.teach.ledger.carry import import_answers
from cuvee.teach.reach import Opener, Reachable, one_at_a_time, reach

INDIFFERENT: Mapping[str, Any] = {
    "domains": True,
    "key_env": True,
    "concurrency": True,
    "timeout": True,
    "deadline": True,
    "stream": True,
    "retries": True,
    "usd_per_mtok": True,
    "terms": True,
    "serve": {
        *("address", "command", "devices", "gpus", "over", "replicas", "slots"),
        *("start_timeout", "threads"),
    },
}
"""Keys of a teacher that cannot change its answers (pydantic's form of an exclusion)."""


@dataclasses.dataclass(frozen=True)
class ProblemRequests:
    """The requests of a file of problems, read anew each time: a million need no memory."""

    path: Path
    samples: int
    """Requests a problem."""
    seed: int
    first: int = 0
    """Number of the first sample."""

    def __len__(self) -> int:
        """Return how many there are. Raises DataError where the file cannot be read."""
        return count_rows(self.path) * self.samples

    def __iter__(self) -> Iterator[Request]:
        """Yield `samples` requests a problem, in order; the seed of each depends on it alone.

        Raises DataError where the file cannot be read.
        """
        for problem in iter_values(self.path, ["id", "domain", "prompt"]):
            for sample in range(self.first, self.first + self.samples):
                yield Request(
                    problem_id=problem["id"],
                    domain=problem["domain"],
                    sample=sample,
                    prompt=problem["prompt"],
                    seed=request_seed(self.seed, problem["id"], sample),
                )


@dataclasses.dataclass(frozen=True)
class Desk:
    """What the tasks share once one of them asks."""

    books: Books
    costs: Costs
    found: Callable[[Teacher], Reachable]
    opened: Opener


OpenDesk = Callable[[], Desk]


def tasks(run: Run, resources: ExitStack, *, in_round: int = 1) -> list[Task]:
    """Return the tasks of a round, teacher by teacher; `resources` closes what they open.

    In the first round every problem is asked, and published traces are copied; in a later one
    those that the round before left to be asked.
    """
    opened = one_at_a_time(resources)
    opening = threading.Lock()
    open_once = functools.cache(lambda: _open_desk(run, resources, opened))

    check_once = functools.cache(lambda: _check_teachers(run, open_once()))

    def desk() -> Desk:
        with opening:  # several lanes may come at once
            check_once()
            return open_once()

    pairs = [
        (teacher, domain)
        for teacher in run.recipe.teachers
        for domain in run.recipe.domains
        if teacher in run.recipe.teachers_of(domain)
    ]
    if in_round > 1:
        asked = [(teacher, domain) for teacher, domain in pairs if not teacher.published]
        return [_again_task(run, t, domain, in_round=in_round, desk=desk) for t, domain in asked]
    return [
        _copy_task(run, teacher, domain)
        if teacher.published
        else _ask_task(run, teacher, domain, desk=desk)
        for teacher, domain in pairs
    ]


def _open_desk(run: Run, resources: ExitStack, opened: Opener) -> Desk:
    """Open the ledger and show the cost table, until `resources` ends."""
    _take_in_answers(run)
    ledger = resources.enter_context(Ledger.open(run.recipe.ledger))
    account = run.account()
    names = [teacher.name for teacher in run.recipe.teachers]
    costs = Costs(lambda: ledger.spent(account), run.recipe.budget, {name: [] for name in names})
    resources.enter_context(live(lambda: table(costs), lambda: lines(costs)))
    models: dict[str, Reachable] = {}

    def found(teacher: Teacher) -> Reachable:
        # Several lanes look up remote teachers alone, which costs nothing.
        if teacher.name not in models:
            models[teacher.name] = find_teacher(teacher, run=run)
        return models[teacher.name]

    return Desk(Books(ledger, account, run.recipe.budget), costs, found, opened)


def _take_in_answers(run: Run) -> None:
    """Add the answers of the recipe's exports to the ledger; what it holds already stays.

    Raises DataError where a file is no export, or holds answers that are not sound.
    """
    for name in run.recipe.answers:
        file = Path(name).expanduser()
        with bar(f"answers of {file.name}", total=count_answers(file), unit="answers") as tick:
            done = import_answers(located(run.recipe.ledger), file, tick=tick)
        if done.refused:
            raise DataError(
                f"answers: {file}: {done.refused.total()} rows are no sound answers; the first: "
                f"{done.details[0]}"
            )


def _copy_task(run: Run, teacher: Teacher, domain: str) -> Task:
    """Return the task of a published teacher."""

    def work() -> Mapping[str, Any]:
        rows = iter_rows(run.published(domain), Trace)
        own = (trace for trace in rows if trace.model == teacher.name)
        copied = write_rows(run.traces(domain, teacher.name), own, Trace)
        if not copied:
            warn(f"{teacher.name}: no published trace of a problem that was kept in {domain}")
        return {"traces": copied}

    return Task(
        stage="teach",
        name=f"{domain}/{teacher.name}",
        inputs=(run.published(domain),),
        outputs=(run.traces(domain, teacher.name),),
        settings={"published": teacher.name},
        work=work,
        lane=teacher.name,
    )


def _ask_task(run: Run, teacher: Teacher, domain: str, *, desk: OpenDesk) -> Task:
    return Task(
        stage="teach",
        name=f"{domain}/{teacher.name}",
        inputs=(run.problems(domain),),
        outputs=(run.traces(domain, teacher.name),),
        settings=asking_settings(run, teacher),
        work=lambda: _ask(run, teacher, domain, desk()),
        lane=teacher.name,
        apart=teacher.url is not None,
    )


def _again_task(run: Run, own: Teacher, domain: str, *, in_round: int, desk: OpenDesk) -> Task:
    """Return the task of a round after the first; nothing is opened where nothing is asked."""
    teacher, first = as_in_round(run.recipe, own, in_round)
    asked = run.asked(domain, in_round=in_round)
    traces = run.traces(domain, teacher.name, in_round=in_round)

    def work() -> Mapping[str, Any]:
        if count_rows(asked):
            return _ask(run, teacher, domain, desk(), in_round=in_round)
        return {"traces": write_rows(traces, [], Trace)}

    return Task(
        stage="teach",
        name=f"round-{in_round}/{domain}/{teacher.name}",
        inputs=(asked,),
        outputs=(traces,),
        settings=asking_settings(run, teacher) | {"first": first},
        work=work,
        lane=teacher.name,
        apart=teacher.url is not None,
    )


def as_in_round(recipe: Recipe, teacher: Teacher, number: int) -> tuple[Teacher, int]:
    """Return the teacher as it is asked in a round (>= 1), and its first sample's number there."""
    rounds = recipe.rounds
    if rounds is None or number == 1:
        return teacher, 0
    temperature = rounds.temperature_in(number, teacher.sampling.temperature)
    changes = {
        "samples": rounds.samples_in(number, teacher.samples),
        "sampling": teacher.sampling.model_copy(update={"temperature": temperature}),
    }
    return teacher.model_copy(update=changes), rounds.first_sample(number, teacher.samples)


def asking_settings(run: Run, teacher: Teacher) -> dict[str, Any]:
    """Return what a teacher's answers depend on, as JSON values."""
    return {
        "teacher": teacher.model_dump(mode="json", exclude=dict(INDIFFERENT)),
        "seed": run.recipe.seed,
    }


def _ask(
    run: Run, teacher: Teacher, domain: str, desk: Desk, *, in_round: int = 1
) -> Mapping[str, Any]:
    """Ask a teacher, as it is in a round, all problems of a domain there; write its traces."""
    requests = _requests(run, teacher, domain, in_round=in_round)
    if not len(requests):
        raise DataError(f"{run.problems(domain)}: no problems to ask")
    endpoint = reach(
        desk.found(teacher),
        requests,
        sampling=teacher.sampling,
        ledger=desk.books.ledger,
        opened=desk.opened,
    )
    answers = ask(
        endpoint,
        requests,
        sampling=teacher.sampling,
        books=desk.books,
        meter=desk.costs.meter(teacher.name),
        stop=run.stop,
    )
    file = run.traces(domain, teacher.name, in_round=in_round)
    written = write_rows(file, answers, Trace)
    usage = answers.usage()
    # What is left for a later round may be what the server refuses; of the first that is no sign.
    left_over = in_round > 1 and usage.refused == usage.failed
    if usage.failed == written and not left_over:
        remove(file)
        raise TeacherError(
            f"{teacher.name}: all {written} requests failed; the first: {usage.first_error}"
        )
    _warn_of_failures(f"{domain}/{teacher.name}", usage, written)
    counts = {"traces": written} | dataclasses.asdict(usage)
    if usage.usd is not None:
        counts["usd"] = round(usage.usd, 9)  # as the ledger keeps it
    return {name: value for name, value in counts.items() if value is not None}


def _requests(run: Run, teacher: Teacher, domain: str, *, in_round: int = 1) -> ProblemRequests:
    (own,) = (t for t in run.recipe.teachers if t.name == teacher.name)
    _, first = as_in_round(run.recipe, own, in_round)
    file = run.asked(domain, in_round=in_round)
    return ProblemRequests(file, teacher.samples, run.recipe.seed, first)


def _check_teachers(run: Run, desk: Desk) -> None:
    """Raise RecipeError for any teacher's mistake: to be said before the first one costs.

    A missing key is none where the ledger has all the teacher's answers.
    """
    for teacher in run.recipe.teachers:
        check_url(teacher)
        if teacher.url is None:
            continue
        endpoint = desk.found(teacher).endpoint
        try:
            api_key(endpoint)
        except RecipeError:
            asked = [d for d in run.recipe.domains if teacher in run.recipe.teachers_of(d)]
            for domain in asked:
                requests = _requests(run, teacher, domain)
                ledger = desk.books.ledger
                if not all_answered(endpoint, requests, sampling=teacher.sampling, ledger=ledger):
                    raise


def _warn_of_failures(task: str, usage: Usage, traces: int) -> None:
    if passing := usage.failed - usage.refused:
        warn(
            f"{task}: {passing} of {traces} requests failed (the first: {usage.first_error}); "
            "the next run asks them again"
        )
    if usage.refused:
        warn(
            f"{task}: the server refused {usage.refused} of {traces} requests for good (the "
            f"first error: {usage.first_error}); they are not asked again, and become no examples"
        )
