"""What teachers said about traces: a judge's answers, and grades by a rubric.

Files of a shelf and ids of traces in; records by trace out. Files that are not there yet say
nothing. Not here: how grades come about (`cuvee.verify.judge_rubric`).
"""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from cuvee.errors import DataError
from cuvee.lineage.columns import rows_there
from cuvee.lineage.requests import Asked, Books
from cuvee.lineage.shelves import Shelf
from cuvee.lineage.way import Grading
from cuvee.records import Trace
from cuvee.verify.judge_rubric import Grade


def answers_about(
    paths: Sequence[Path | None], wanted: Collection[str], books: Books
) -> Mapping[str, tuple[Asked, ...]]:
    """Return the answers in files of a judge's traces, by the trace they are about.

    Raises DataError for a file that breaks its contract.
    """
    found: dict[str, tuple[Asked, ...]] = {}
    for path in paths:
        for answer in rows_there(path, Trace, column="problem_id", wanted=wanted):
            found[answer.problem_id] = (*found.get(answer.problem_id, ()), books.asked(answer))
    return found


def gradings(shelf: Shelf, wanted: Collection[str], books: Books) -> Mapping[str, Grading]:
    """Return the grading of each wanted trace that a teacher was asked about.

    Raises DataError for a file that breaks its contract.
    """
    answers = answers_about([shelf.grader], wanted, books)
    return {
        grade.trace_id: Grading(
            grade=grade,
            points=_points(shelf, grade),
            answers=answers.get(grade.trace_id, ()),
        )
        for grade in rows_there(shelf.grades, Grade, column="trace_id", wanted=wanted)
    }


def _points(shelf: Shelf, grade: Grade) -> tuple[tuple[str, float], ...]:
    """Return each point of the rubric with its grade; its number where the rubric is another."""
    try:
        found: Sequence[float] = [float(value) for value in json.loads(grade.points)]
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{shelf.grades}: points {grade.points[:80]!r} of trace {grade.trace_id} are no list "
            "of numbers; `cuvee verify` writes the file anew"
        ) from error
    numbered = [f"Point {number}" for number in range(1, len(found) + 1)]
    names = shelf.points if len(shelf.points) == len(found) else numbered
    return tuple(zip(names, found, strict=True))
