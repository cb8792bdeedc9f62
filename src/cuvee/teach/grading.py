"""Grading by a rubric: a recipe's `rubric:` as a task of the stage `verify`.

Reads a domain's problems, traces and verdicts; writes `03_verdicts/rubric/DOMAIN.parquet` (one
`Grade` a trace that was asked about) and `03_verdicts/rubric/traces/DOMAIN.parquet` (the
judge's own traces; their `problem_id` is the trace that was graded). Asked about are finished
traces that are `correct`, or that nothing could check (`no_verifier`, `no_gold`). The texts are
read from their files one at a time, so there may be any number. Not here: what is asked and
how grades are read (`cuvee.verify.judge_rubric`), what they are used for (`cuvee.select`).
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cuvee.recipe import Rubric
from cuvee.records import Trace, Verdict, iter_rows, iter_values, write_rows
from cuvee.runfolder import Run, Task
from cuvee.teach.client import Request, request_seed
from cuvee.teach.judging import Asking
from cuvee.teach.stage import asking_settings
from cuvee.verify.judge_rubric import PROMPT, Grade, grade_of, rubric_message, solution_of

UNCHECKABLE = ("no_verifier", "no_gold")
"""Reasons of `not_checked` that say nothing against a trace."""


def grades_file(run: Run, domain: str) -> Path:
    """Return the file of a domain's grades."""
    return run.folder("verify") / "rubric" / f"{domain}.parquet"


def grade_traces(run: Run, domain: str) -> Path:
    """Return the file of the traces of a domain's judge that graded."""
    return run.folder("verify") / "rubric" / "traces" / f"{domain}.parquet"


def rubric_tasks(run: Run, ask_teacher: Asking) -> list[Task]:
    """Return the task `rubric/DOMAIN` of each domain that has a rubric."""
    return [
        _task(run, name, domain.rubric, ask_teacher)
        for name, domain in run.recipe.domains.items()
        if domain.rubric is not None
    ]


@dataclasses.dataclass(frozen=True)
class GradeRequests:
    """The requests about a domain's traces, read anew from their files each time."""

    run: Run
    domain: str
    rubric: Rubric
    about: frozenset[str]
    """Ids of the traces that are asked about."""

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.about) * self.rubric.samples

    def __iter__(self) -> Iterator[Request]:
        """Yield `samples` requests a trace. Raises DataError where a file cannot be read."""
        rows = iter_values(self.run.problems(self.domain), ["id", "question"])
        questions = {row["id"]: row["question"] for row in rows}
        for trace in _traces(self.run, self.domain, self.about):
            message = rubric_message(
                solution_of(trace, questions[trace.problem_id]), self.rubric.points
            )
            for sample in range(self.rubric.samples):
                yield Request(
                    problem_id=trace.id,
                    domain=self.domain,
                    sample=sample,
                    prompt=message,
                    seed=request_seed(self.run.recipe.seed, message, sample),
                )


def _task(run: Run, name: str, rubric: Rubric, ask_teacher: Asking) -> Task:
    (teacher,) = (t for t in run.recipe.teachers if t.name == rubric.teacher)
    kept = grade_traces(run, name)

    def work() -> Mapping[str, Any]:
        requests = GradeRequests(run, name, rubric, _gradable(run, name))
        answers = ask_teacher(teacher, requests, f"rubric {name}")
        write_rows(kept, answers, Trace)
        usage = answers.usage()
        reasons: Counter[str] = Counter()
        write_rows(grades_file(run, name), _counted(_grades(requests, kept), reasons), Grade)
        # What failed for a reason that may pass is asked again by the next run: `failed`.
        failed = {"failed": usage.failed, "refused": usage.refused}
        return {"traces": len(requests.about), **dict(sorted(reasons.items())), **failed}

    return Task(
        stage="verify",
        name=f"rubric/{name}",
        inputs=(run.problems(name), *run.trace_files(name), *run.verdict_files(name)),
        outputs=(grades_file(run, name), kept),
        settings={
            "judge": asking_settings(run, teacher),
            "rubric": rubric.model_dump(mode="json"),
            "prompt": PROMPT,
        },
        work=work,
    )


def is_gradable(verdict: Verdict) -> bool:
    """Return whether a trace with this verdict is worth asking about, if it is finished."""
    uncheckable = verdict.verdict == "not_checked" and verdict.reason in UNCHECKABLE
    return verdict.verdict == "correct" or uncheckable


def _gradable(run: Run, name: str) -> frozenset[str]:
    verdicts = (row for file in run.verdict_files(name) for row in iter_rows(file, Verdict))
    right = {verdict.trace_id for verdict in verdicts if is_gradable(verdict)}
    return frozenset(
        row["id"]
        for file in run.trace_files(name)
        for row in iter_values(file, ["id", "finish_reason"])
        if row["id"] in right and row["finish_reason"] == "stop"
    )


def _grades(requests: GradeRequests, kept: Path) -> Iterator[Grade]:
    """Yield the grade of each trace; the judge's traces stand in the same order."""
    answers = iter_rows(kept, Trace)
    for trace in _traces(requests.run, requests.domain, requests.about):
        said = list(itertools.islice(answers, requests.rubric.samples))
        yield grade_of(trace, said, points=len(requests.rubric.points))


def _counted(grades: Iterator[Grade], reasons: Counter[str]) -> Iterator[Grade]:
    for grade in grades:
        reasons[grade.reason] += 1
        yield grade


def _traces(run: Run, name: str, about: frozenset[str]) -> Iterator[Trace]:
    rows = (trace for file in run.trace_files(name) for trace in iter_rows(file, Trace))
    return (trace for trace in rows if trace.id in about)
