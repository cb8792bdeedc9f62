"""What grades by a rubric decide: the filter `rubric`, and what `policy: best` ranks by.

The `Grade` of a trace, or None where nobody was asked about it, in. Not here: how it came about
(`cuvee.teach.grading`).
"""

from collections.abc import Mapping
from types import MappingProxyType

from cuvee.recipe import Domain
from cuvee.records import iter_rows
from cuvee.runfolder import Run
from cuvee.select.objection import Objection
from cuvee.teach.grading import grades_file
from cuvee.verify.judge_rubric import Grade

NO_GRADES: Mapping[str, Grade] = MappingProxyType({})


def goes_by_grades(domain: Domain) -> bool:
    """Return whether the choice in a domain depends on grades."""
    return domain.select.rubric_min is not None or domain.select.policy == "best"


def read_grades(run: Run, name: str) -> Mapping[str, Grade]:
    """Return a domain's grades by trace where its choice goes by them, else none.

    Raises DataError where the file cannot be read.
    """
    if not goes_by_grades(run.recipe.domains[name]):
        return NO_GRADES
    return {grade.trace_id: grade for grade in iter_rows(grades_file(run, name), Grade)}


def below(grade: Grade | None, *, least: float | None) -> Objection | None:
    """Object to a grade under `least`, or to there being none: `grade_low`, `not_graded`."""
    if least is None:
        return None
    if grade is None:
        return Objection("not_graded", "nobody was asked about a trace of this verdict")
    if grade.grade is None:
        return Objection("not_graded", f"{grade.reason}: {grade.detail}")
    if grade.grade < least:
        return Objection("grade_low", f"points {grade.points}; each must have {least:g}")
    return None


def merit(grade: Grade | None) -> tuple[float, float]:
    """Return the lowest point and the mean of all; zeros where there is no grade."""
    return (0, 0) if grade is None else (grade.grade or 0, grade.mean or 0)
