"""The rounds of a run as waves of tasks, each of which needs the files of the one before.

The first round is the stages `teach` and `verify` as they are. After it, and after each further
one, a task `verify/rounds/N/DOMAIN` counts what came of it and decides of the next: it reads the
round's problems, traces and verdicts, and writes `03_verdicts/rounds/N/DOMAIN.parquet` and
`.json` (`cuvee.rounds.record`) and the problems that are asked again,
`02_traces/round-M/asked/DOMAIN.parquet` (M = N + 1). Then come the tasks of `cuvee.teach.stage`
and `cuvee.verify.stage` for round M. A round that is not begun asks no problem: its files have
no rows, so what reads all rounds need not know how many there were. Not here: who is asked
again and why not (`cuvee.rounds.decide`).
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from cuvee.progress import bar, say
from cuvee.recipe import Domain, Rounds
from cuvee.records import Problem, Trace, Verdict, count_rows, iter_rows, iter_values, write_rows
from cuvee.rounds.count import attempts, price, tried
from cuvee.rounds.decide import Aim, Decision, Tried, decide
from cuvee.rounds.record import (
    Attempt,
    Round,
    attempts_file,
    read_round,
    round_file,
    write_round,
)
from cuvee.runfolder import Run, Task
from cuvee.select.clustered import sift_on_ray
from cuvee.select.sift import Asked, Sifted, Student, judged, sift
from cuvee.select.stage import load_student, student_files
from cuvee.teach.judging import asking, judges
from cuvee.teach.stage import as_in_round
from cuvee.teach.stage import tasks as teach_tasks
from cuvee.verify.stage import judge_traces
from cuvee.verify.stage import tasks as verify_tasks
from cuvee.workers.nodes import checked_cluster

Wave = Callable[[ExitStack], list[Task]]
"""Returns tasks; its argument closes what they open."""

Sifting = Callable[..., Iterator[Sifted]]
"""`cuvee.select.sift.sift`, or what does the same on a cluster."""


def waves(run: Run) -> list[Wave]:
    """Return what follows the first round's verdicts, in order; nothing without `rounds:`."""
    rounds = run.recipe.rounds
    if rounds is None:
        return []
    found: list[Wave] = [functools.partial(_count_tasks, run, rounds, 1)]
    for number in range(2, rounds.most + 1):
        found += [
            functools.partial(teach_tasks, run, in_round=number),
            functools.partial(_verify_tasks, run, number),
            functools.partial(_count_tasks, run, rounds, number),
        ]
    return found


def _verify_tasks(run: Run, number: int, resources: ExitStack) -> list[Task]:
    if not any(domain.judge for domain in run.recipe.domains.values()):
        return verify_tasks(run, resources, in_round=number)
    found = judges(run, asking(run, resources))
    return verify_tasks(run, resources, judges=found, in_round=number)


@dataclasses.dataclass(frozen=True)
class _Place:
    """One round in one domain."""

    run: Run
    rounds: Rounds
    name: str
    """The domain's."""
    number: int
    sifting: Callable[[], tuple[Sifting, Student]]
    """Returns the filters, mapped as the recipe says, and the student they count tokens for."""


def _count_tasks(run: Run, rounds: Rounds, number: int, resources: ExitStack) -> list[Task]:
    @functools.cache
    def sifting() -> tuple[Sifting, Student]:
        student = load_student(run.recipe.base)
        if run.recipe.workers != "ray":
            return sift, student
        resources.enter_context(checked_cluster(run.recipe.address))
        return sift_on_ray, student

    names = run.recipe.domains
    return [_count_task(_Place(run, rounds, name, number, sifting)) for name in names]


def _count_task(place: _Place) -> Task:
    run, rounds, name, number = place.run, place.rounds, place.name, place.number
    recipe, domain = run.recipe, run.recipe.domains[name]
    teachers = [
        [t.name, t.published, t.usd_per_mtok is not None, t.samples]
        for t in recipe.teachers_of(name)
    ]
    before = range(1, number)
    judging = [] if domain.judge is None else [judge_traces(run, name, in_round=number)]
    left = [run.asked(name, in_round=number + 1)] if number < rounds.most else []
    return Task(
        stage="verify",
        name=f"rounds/{number}/{name}",
        inputs=(
            run.problems(name),
            *([run.asked(name, in_round=number)] if number > 1 else []),
            *run.trace_files(name, in_round=number),
            run.verdicts(name, in_round=number),
            *judging,
            *(attempts_file(run, name, earlier) for earlier in before),
            *(round_file(run, name, earlier) for earlier in before),
            *student_files(recipe.base),
        ),
        outputs=(attempts_file(run, name, number), round_file(run, name, number), *left),
        settings={
            "base": recipe.base,
            "columns": [field.name for field in dataclasses.fields(Attempt)],
            "seed": recipe.seed,
            "rounds": rounds.model_dump(mode="json"),
            "select": domain.select.model_dump(mode="json"),
            "verifier": domain.verifier,
            "teachers": teachers,
        },
        work=lambda: _count(place),
    )


def _count(place: _Place) -> Mapping[str, Any]:
    """Count a round in a domain, decide of the next, and write both; return the counts."""
    run, rounds, name, number = place.run, place.rounds, place.name, place.number
    begun = number == 1 or count_rows(run.asked(name, in_round=number)) > 0
    rows = _attempts(place) if begun else iter(())
    write_rows(attempts_file(run, name, number), rows, Attempt)
    if begun:
        decision, found = _told(run, rounds, name, number)
    else:
        last = read_round(round_file(run, name, number - 1))
        decision, found = None, _not_begun(last)
    write_round(round_file(run, name, number), found)
    if number < rounds.most:
        again = frozenset(decision.asked if decision else ())
        problems = (p for p in iter_rows(run.problems(name), Problem) if p.id in again)
        write_rows(run.asked(name, in_round=number + 1), problems, Problem)
    if not begun:
        return {"not begun": found.stop}
    _say(name, found)
    return {
        "asked": found.asked,
        "traces": found.requests,
        "right": found.right,
        "fit": found.fit,
        "new examples": found.new_examples,
        "asked again": found.next_asked,
        **({"stop": found.stop} if found.stop else {}),
    }


def _attempts(place: _Place) -> Iterator[Attempt]:
    """Yield what came of each trace of a round."""
    run, name, number = place.run, place.name, place.number
    said = judged(list(iter_rows(run.verdicts(name, in_round=number), Verdict)))
    columns = ["id", "source", "question", "prompt"]
    rows = iter_values(run.asked(name, in_round=number), columns)
    problems = {row.pop("id"): Asked(**row) for row in rows}
    domain = run.recipe.domains[name]
    sifting, student = place.sifting()
    with bar(f"round {number} of {name}", total=len(said.verdicts), unit="traces") as tick:
        traces = _traces(run, name, number)
        sifted = sifting(traces, said, problems, domain=domain, student=student, tick=tick)
        judging = _judging(run, name, number)
        traces = _traces(run, name, number)
        yield from attempts(traces, said, sifted, judging, priced=_with_price(run))


def _traces(run: Run, name: str, number: int) -> Iterator[Trace]:
    files = run.trace_files(name, in_round=number)
    return (trace for file in files for trace in iter_rows(file, Trace))


def _judging(run: Run, name: str, number: int) -> dict[str, float] | None:
    """Return what deciding on each trace cost, where a judge with a price did.

    None without such a judge, and where no answer of his has a cost.
    """
    if run.recipe.domains[name].judge not in _with_price(run):
        return None
    columns = ["problem_id", "usd", "error"]
    rows = iter_values(judge_traces(run, name, in_round=number), columns)
    answered = {row["problem_id"]: row["usd"] for row in rows if row["error"] is None}
    known = {trace: usd for trace, usd in answered.items() if usd is not None}
    return known if known or not answered else None


def _told(run: Run, rounds: Rounds, name: str, number: int) -> tuple[Decision, Round]:
    """Return the decision of the next round, and what is kept of this one."""

    def found() -> Iterator[Attempt]:
        files = (attempts_file(run, name, earlier) for earlier in range(1, number + 1))
        return (attempt for file in files for attempt in iter_rows(file, Attempt))

    domain, next_number = run.recipe.domains[name], number + 1
    samples = {
        teacher.name: as_in_round(run.recipe, teacher, next_number)[0].samples
        for teacher in run.recipe.teachers_of(name)
        if not teacher.published
    }
    ids = (row["id"] for row in iter_values(run.problems(name), ["id"]))
    problems = tried(ids, found(), askable=frozenset(samples))
    aim = _aim(run, rounds, domain, number)
    lacking = (p for p in problems if p.have < aim.enough and not p.refused)
    waiting = frozenset(p.problem_id for p in lacking)
    takes = price(found, waiting=waiting, samples=samples, priced=_priced(run, name))
    decision = decide(problems, aim, takes)
    return decision, _round(run, name, number, decision, examples=_examples(problems, aim))


def _aim(run: Run, rounds: Rounds, domain: Domain, number: int) -> Aim:
    return Aim(
        per_problem=domain.select.per_problem,
        enough=1 if rounds.until == "solved" else domain.select.per_problem,
        target=domain.select.target,
        usd_per_example=rounds.usd_per_example,
        min_examples=rounds.min_examples,
        rounds_left=rounds.most - number,
        seed=run.recipe.seed,
    )


def _priced(run: Run, name: str) -> frozenset[str]:
    """Return the teachers of a domain each answer of which costs something that is known."""
    with_price = _with_price(run)
    names = {teacher.name for teacher in run.recipe.teachers_of(name)}
    return frozenset(names if run.recipe.domains[name].judge in with_price else names & with_price)


def _with_price(run: Run) -> frozenset[str]:
    return frozenset(t.name for t in run.recipe.teachers if t.usd_per_mtok is not None)


def _examples(problems: list[Tried], aim: Aim) -> int:
    """Return how many examples there are, as the stage `select` would count them."""
    have = sum(min(problem.have, aim.per_problem) for problem in problems)
    return have if aim.target is None else min(have, aim.target)


def _round(run: Run, name: str, number: int, decision: Decision, *, examples: int) -> Round:
    before = read_round(round_file(run, name, number - 1)).examples if number > 1 else 0
    counted: Counter[str] = Counter()
    usd: float | None = None
    for row in iter_rows(attempts_file(run, name, number), Attempt):
        counted["traces"] += 1
        counted["failed"] += not row.answered
        counted["checked"] += row.checked
        counted["right"] += row.right
        counted["fit"] += row.text is not None
        counted["tokens"] += row.tokens or 0
        usd = usd if row.usd is None else (usd or 0.0) + row.usd
    return Round(
        number=number,
        asked=count_rows(run.asked(name, in_round=number)),
        requests=counted["traces"],
        failed=counted["failed"],
        checked=counted["checked"],
        right=counted["right"],
        fit=counted["fit"],
        new_examples=examples - before,
        examples=examples,
        usd=None if usd is None else round(usd, 9),  # as the ledger keeps it
        tokens=counted["tokens"],
        next_asked=len(decision.asked),
        next_requests=decision.requests,
        next_expected=round(decision.expected, 3),
        next_usd=None if decision.usd is None else round(decision.usd, 9),
        stop=decision.stop,
        why=decision.why,
        next_refused=decision.refused,
    )


def _not_begun(last: Round) -> Round:
    """Return the record of a round that was not begun, after the `last` one of which there is."""
    return dataclasses.replace(
        last,
        number=last.number + 1,
        asked=0,
        requests=0,
        failed=0,
        checked=0,
        right=0,
        fit=0,
        new_examples=0,
        usd=None,
        tokens=0,
    )


def _say(name: str, found: Round) -> None:
    """Print what a round brought, and what is done next or why nothing is."""
    rate = "" if found.pass_rate is None else f" ({found.pass_rate:.0%})"
    spent = f"{found.tokens} tokens" if found.usd is None else f"${found.usd:.4g}"
    say(
        f"round {found.number} of {name}: {found.asked} problems asked, {found.right} of "
        f"{found.checked} answers right{rate}, {found.new_examples} new examples "
        f"({found.examples} so far), {spent}"
    )
    say(f"  {'no round' if found.stop else 'round'} {found.number + 1}: {found.why}")
