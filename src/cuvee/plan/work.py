"""Rows of the work of this machine: problems, verify, select, merge, release.

Hours are what the run folder's tasks took, by the problem or answer, or assumed rates; disk is
by the size of the model. Not here: what is asked over HTTP, and training.
"""

import functools
from collections.abc import Callable

from cuvee.plan.asking import HOUR, judge_rows
from cuvee.plan.case import Case, answers_a_problem, problems_of, problems_of_benchmark
from cuvee.plan.figures import Figure, known, measured, total
from cuvee.plan.rows import Row
from cuvee.plan.sizes import gguf_bytes

BYTES_A_PROBLEM = 2000
START_SECONDS = 1.0
"""Of a task, before its first row: what a pilot's seconds do not grow by."""
MEGA = 1e6
OUT_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
RATES = {
    "math": ("symbolic comparison", (300.0, 50.0, 1500.0)),
    "code": ("tests in a sandbox", (20.0, 2.0, 150.0)),
}
PLAIN = ("text comparison", (3000.0, 500.0, 10000.0))
"""Answers checked a second on two cores: why; value, low, high."""
MERGED_IN = 4
"""Bytes of a weight as it is merged."""


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
    """Return a row for each domain; a judge's have requests."""
    judged = {row.name: row for row in judge_rows(case)}
    rows = []
    for name in case.recipe.domains:
        if name in judged:
            rows.append(judged[name])
            continue
        rows.append(_of_answers(case, "verify", name, rate=functools.partial(_checked, case, name)))
    return rows


def select_rows(case: Case) -> list[Row]:
    """Return a row for each domain."""
    return [
        _of_answers(case, "select", name, rate=lambda: case.assumptions.figure("select_per_second"))
        for name in case.recipe.domains
    ]


def merge_rows(case: Case) -> list[Row]:
    """Return the row of the merge: it streams, so memory is a few of the largest tensors."""
    base, count = case.base, len(case.recipe.domains)
    out = base.bytes(OUT_BYTES[case.recipe.merge.out_dtype])
    read = base.bytes(4 * count)
    memory = None
    if base.shape is not None:
        memory = known(MERGED_IN * base.shape.head * (count + 2))
    seconds = case.measured.seconds("merge/merged")
    return [
        Row(
            "merge",
            "merged",
            hours=_hours_of_bytes(case, total([out, read]), seconds),
            disk=out,
            memory=memory,
            tasks=("merge/merged",),
            note="" if base.shape else base.why,
            done=case.measured.is_done("merge/merged", case.recipe.limit),
        )
    ]


def release_rows(case: Case) -> list[Row]:
    """Return a row for each GGUF file, and one for report and cards."""
    rows = [Row("release", "report", tasks=("release/report",), hours=known(1 / HOUR),
                done=case.measured.is_done("release/report", case.recipe.limit))]  # fmt: skip
    merged = case.base.bytes(OUT_BYTES[case.recipe.merge.out_dtype])
    for kind in case.recipe.release.gguf:
        file, task = gguf_bytes(case.base, kind), f"release/gguf/{kind}"
        seconds = case.measured.seconds(task)
        hours = _hours_of_bytes(case, total([merged, file]), seconds)
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


def _of_answers(case: Case, stage: str, name: str, *, rate: Callable[[], Figure]) -> Row:
    problems, task = problems_of(case, name), f"{stage}/{name}"
    if problems is None:
        return Row(stage, name, hours=None, tasks=(task,), note="problems unknown until loaded")
    answers = problems.scaled(answers_a_problem(case, name))
    seen = case.measured.selected.get(name)
    hours = _by_the(case, task, None if seen is None else seen.answers, answers)
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


def _hours_of_bytes(case: Case, size: Figure | None, seconds: float | None) -> Figure | None:
    """Return the hours of reading and writing files: as measured, which a pilot's size is."""
    if seconds is not None:
        return measured(seconds / HOUR)
    if size is None:
        return None
    rate = case.assumptions.figure("disk_mb_per_second").scaled(MEGA)
    return (size / rate).scaled(1 / HOUR)
