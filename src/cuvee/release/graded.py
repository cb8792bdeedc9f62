"""How teachers graded traces by a rubric, by domain and by who wrote them: counts.

Rows of `03_verdicts/rubric` and what became of each trace in; counts out. Not here: what is
asked and how a grade is read (`cuvee.verify.judge_rubric`), and how it is shown (the report).
"""

import dataclasses
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping

from cuvee.lineage.shelves import domain_shelf
from cuvee.records import iter_values
from cuvee.runfolder import Run
from cuvee.verify.judge_rubric import HIGHEST, LOWEST

BELOW, WITHOUT = "grade_low", "not_graded"
"""Reasons for which `select` drops a trace by its grade."""


@dataclasses.dataclass(frozen=True)
class Traced:
    """Who wrote a trace, and why it was dropped (None: it was not)."""

    teacher: str
    dropped: str | None


@dataclasses.dataclass(frozen=True)
class GradeCount:
    """The grades of one teacher's traces in one domain."""

    teacher: str
    asked: int
    """Traces that were asked about."""
    grades: Mapping[int, int]
    """Whole grade, 1 to 5 -> traces whose lowest point has it, or lies between it and the next."""
    mean: float | None
    """Of the lowest points; None where nothing was graded."""
    not_graded: Mapping[str, int]
    """Why -> traces that were asked about."""
    below: int
    """Traces that `select` dropped for a grade under `rubric_min`."""
    without: int
    """Traces that it dropped because they have no grade, asked about or not."""


@dataclasses.dataclass(frozen=True)
class GradedDomain:
    """The grades of one domain."""

    domain: str
    judge: str
    """The teacher that graded."""
    least: float | None
    """`select.rubric_min`."""
    ranked: bool
    """Whether the choice goes by grades too (`select.policy: best`)."""
    teachers: tuple[GradeCount, ...]


def count_graded(run: Run, traced: Mapping[str, Mapping[str, Traced]]) -> Iterator[GradedDomain]:
    """Yield the counts of each domain that has a rubric; `traced`: domain -> trace -> its fate.

    Raises DataError naming the file where one is missing or breaks its contract.
    """
    for name, domain in run.recipe.domains.items():
        path = domain_shelf(run, name).grades
        if path is None or domain.rubric is None:
            continue
        rows: dict[str, list[tuple[float | None, str]]] = {}
        for row in iter_values(path, ["trace_id", "grade", "reason"]):
            teacher = traced[name][row["trace_id"]].teacher
            rows.setdefault(teacher, []).append((row["grade"], row["reason"]))
        yield GradedDomain(
            domain=name,
            judge=domain.rubric.teacher,
            least=domain.select.rubric_min,
            ranked=domain.select.policy == "best",
            teachers=tuple(
                _count(teacher.name, rows.get(teacher.name, []), traced[name])
                for teacher in run.recipe.teachers_of(name)
            ),
        )


def _count(
    teacher: str, rows: list[tuple[float | None, str]], traced: Mapping[str, Traced]
) -> GradeCount:
    found = [grade for grade, _ in rows if grade is not None]
    whole = Counter(int(grade) for grade in found)
    dropped = Counter(one.dropped for one in traced.values() if one.teacher == teacher)
    reasons = Counter(reason for grade, reason in rows if grade is None)
    return GradeCount(
        teacher=teacher,
        asked=len(rows),
        grades={grade: whole[grade] for grade in range(LOWEST, HIGHEST + 1)},
        mean=statistics.fmean(found) if found else None,
        not_graded=dict(reasons.most_common()),
        below=dropped[BELOW],
        without=dropped[WITHOUT],
    )
