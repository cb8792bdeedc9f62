"""Rows of the work of this machine: problems, verify, select, release.

Hours are what the run folder's tasks took, by the problem or answer, or assumed rates; disk is
by the size of the model. Not here: what is asked over HTTP, training, merging.
"""

import dataclasses
import functools
from collections.abc import Callable

from cuvee.plan.about import judge_rows, refine_rows, rubric_rows
from cuvee.plan.asking import HOUR, rounds_asked
from cuvee.plan.case import Case, answers_a_problem, problems_of, problems_of_benchmark
from cuvee.plan.figures import Figure, known, measured, total
from cuvee.plan.merging import OUT_BYTES, hours_of_bytes
from cuvee.plan.rows import Row
from cuvee.plan.sizes import gguf_bytes
from cuvee.plan.yields import all_answers_a_problem

BYTES_A_PROBLEM = 2000
START_SECONDS = 1.0
"""Of a task, before its first row: what a pilot's seconds do not grow by."""
RATES = {
    "math": ("symbolic comparison", (300.0, 50.0, 1500.0)),
    "code": ("tests in a sandbox", (20.0, 2.0, 150.0)),
}
PLAIN = ("text comparison", (3000.0, 500.0, 10000.0))
"""Answers checked a second on two cores: why; value, low, high."""


def problems_rows(case: Case) -> list[Row]:
    """Return a row for each domain and benchmark."""
    rows = []
    named = {name: problems_of(case, name) for name in case.recipe.domains}
    named |= {f"benchmarks/{b.name}": problems_of_benchmark(case, b) for b in case.benchmarks}
    for name, problems in named.items():
        task = f"problems/{name}"
        if problems is None:
            rows.append(Row("problems", name, hours=None, disk=None, tasks=(task,),
                            note="unknown until loaded; --assume problems.NAME=N"))  # fmt: skip
            continue
        count = case.measured.problems.get(name.removeprefix("benchmarks/"))
        hours = _by_the(case, task, count, problems)
        if hours is None:
            rate = case.assumptions.figure("problems_per_second")
            hours = (problems / rate).scaled(1 / HOUR)
        rows.append(Row("problems", name, hours=hours, disk=problems.scaled(BYTES_A_PROBLEM),
                        tasks=(task,), note=_problems(problems),
                        done=case.measured.is_done(task, case.recipe.limit)))  # fmt: skip
    return rows


def _problems(problems: Figure) -> str:
    at_most = "at most " if problems.origin == "assumed" else ""
    return f"{at_most}{problems.value:,.0f} problems"


def verify_rows(case: Case) -> list[Row]:
    """Return a row for each round and domain, and for each that is graded; a judge's ask."""
    judged = judge_rows(case)
    rows = []
    for name, section in case.recipe.domains.items():
        if section.judge is not None:
            rows += [row for row in judged if row.name.rpartition("/")[2] == name]
            continue
        rate = functools.partial(_checked, case, name)
        for asked in rounds_asked(case, name):
            each = answers_a_problem(case, name, in_round=asked.in_round)
            work = _Work("verify", name, f"verify/{asked.folder}{name}", asked.share.scaled(each))
            seen = case.measured.selected.get(name)
            count = seen.answers if seen is not None and asked.in_round == 1 else None
            rows.append(_of_answers(case, work, count=count, rate=rate))
    return [*rows, *rubric_rows(case)]


def select_rows(case: Case) -> list[Row]:
    """Return a row for each domain, and for each that is refined."""
    rows = []
    for name in case.recipe.domains:
        work = _Work("select", name, f"select/{name}", all_answers_a_problem(case, name))
        seen = case.measured.selected.get(name)
        count = None if seen is None else seen.all_answers
        rate = functools.partial(case.assumptions.figure, "select_per_second")
        rows.append(_of_answers(case, work, count=count, rate=rate))
    return [*rows, *refine_rows(case)]


def release_rows(case: Case) -> list[Row]:
    """Return a row for each GGUF file, and one for report and cards."""
    rows = [Row("release", "report", tasks=("release/report",), hours=known(1 / HOUR),
                done=case.measured.is_done("release/report", case.recipe.limit))]  # fmt: skip
    merged = case.base.bytes(OUT_BYTES[case.recipe.merge.out_dtype])
    for kind in case.recipe.release.gguf:
        file, task = gguf_bytes(case.base, kind), f"release/gguf/{kind}"
        seconds = case.measured.seconds(task)
        hours = hours_of_bytes(case, total([merged, file]), seconds)
        note = "its parity check is not counted" if case.recipe.release.parity else ""
        done = case.measured.is_done(task, case.recipe.limit)
        rows.append(
            Row(
                "release",
                f"gguf/{kind}",
                hours=hours,
                disk=file,
                tasks=(task,),
                done=done,
                note=note,
            )
        )
    return rows


def _checked(case: Case, domain: str) -> Figure:
    """Return how many answers of a domain are assumed to be checked a second."""
    verifier = case.recipe.domains[domain].verifier
    why, default = RATES.get(verifier, PLAIN)
    return case.assumptions.figure("verify_per_second", verifier, default=default, why=why)


@dataclasses.dataclass(frozen=True)
class _Work:
    """What is done to a domain's answers."""

    stage: str
    domain: str
    task: str
    answers: Figure
    """Of a problem, on average."""


def _of_answers(case: Case, work: _Work, *, count: int | None, rate: Callable[[], Figure]) -> Row:
    """Return the row of a task; `count` answers are what it took its measured seconds for."""
    stage, task = work.stage, work.task
    problems, name = problems_of(case, work.domain), task.removeprefix(f"{stage}/")
    if problems is None:
        return Row(stage, name, hours=None, tasks=(task,), note="problems unknown until loaded")
    answers = problems * work.answers
    hours = _by_the(case, task, count, answers)
    if hours is None:
        hours = (answers / rate()).scaled(1 / HOUR)
    return Row(stage, name, hours=hours, tasks=(task,), note=f"{answers.value:,.0f} answers",
               done=case.measured.is_done(task, case.recipe.limit))  # fmt: skip


def _by_the(case: Case, task: str, count: int | None, planned: Figure) -> Figure | None:
    """Return the hours of a task that took some seconds for `count` items, for `planned` ones.

    What a small pilot took is partly start, taken as `START_SECONDS`: the least that is expected
    is the pilot's own seconds, the most is as many times more as there are more items.
    """
    seconds = case.measured.seconds(task)
    if seconds is None or not count:
        return None
    times = max(1.0, planned.value / count)
    if times == 1.0:
        return measured(seconds / HOUR)
    most = seconds * max(1.0, planned.high / count)
    start = min(seconds / 2, START_SECONDS)
    value = start + (seconds - start) * times
    return Figure(value / HOUR, seconds / HOUR, max(most, value) / HOUR, "measured")
