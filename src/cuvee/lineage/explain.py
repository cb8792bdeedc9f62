"""Follows one id through a run folder: a place in, its `Way` out.

Only the rows of one problem are read. What a stage has not written yet is named in the way's
`missing`; nothing fails for it. Not here: what an id means (`cuvee.lineage.find`) and how a way
is shown (`cuvee.lineage.tree`).
"""

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from cuvee.errors import DataError, RecipeError
from cuvee.lineage.columns import matching, rows_there
from cuvee.lineage.decisions import decisions
from cuvee.lineage.find import Place
from cuvee.lineage.grading import answers_about, gradings
from cuvee.lineage.preflight import Preflight, read_preflight
from cuvee.lineage.refining import refinings
from cuvee.lineage.requests import Books
from cuvee.lineage.shelves import Shelf
from cuvee.lineage.sources import SourceRecord, of_source, read_sources
from cuvee.lineage.way import Sibling, Step, Way
from cuvee.records import Dropped, Problem, Trace, Verdict

SHORT = ("id", "problem_id", "model", "sample", "finish_reason")
"""Columns of a trace without its texts."""


@dataclasses.dataclass(frozen=True)
class _Ends:
    """What `select` and training say of the traces of one problem, by trace."""

    tokens: Mapping[str, int]
    """Of the examples."""
    dropped: Mapping[str, Dropped]
    preflight: Preflight | None
    """What training said of the examples; None where nothing was trained."""


def explain(place: Place, books: Books, *, teacher: str | None = None) -> Way:
    """Return the way of a place: of a trace, or of a problem with all traces or one teacher's.

    Raises RecipeError for a teacher that does not answer here, DataError for a file that
    breaks its contract.
    """
    shelf = place.shelf
    if teacher is not None and teacher not in shelf.traces:
        raise RecipeError(
            f"--teacher {teacher}: none of {shelf.kind} {shelf.name}; there are {[*shelf.traces]}"
        )
    trace_id = _about(place) if place.kind in ("judge", "refiner") else place.id
    problem_id = place.id if place.kind == "problem" else _problem_of(shelf, trace_id)
    found = rows_there(shelf.problems, Problem, column="id", wanted=[problem_id])
    short = _short_traces(shelf, problem_id)
    wanted = [
        row["id"]
        for row in short
        if (place.kind == "problem" or row["id"] == trace_id) and teacher in (None, row["model"])
    ]
    verdicts = _verdicts(shelf, problem_id)
    ends = _ends(shelf, problem_id, [row["id"] for row in short])
    return Way(
        id=place.id,
        kind=place.kind,
        stands_in=shelf.kind,
        name=shelf.name,
        problem_id=problem_id,
        problem=found[0] if found else None,
        drops=tuple(rows_there(shelf.problems_dropped, Dropped, column="id", wanted=[problem_id])),
        vote=_vote(shelf.votes, problem_id),
        sources=tuple(_sources(shelf, found)),
        steps=tuple(_steps(shelf, wanted, verdicts=verdicts, ends=ends, books=books)),
        siblings=tuple(_sibling(row, verdicts, ends) for row in short if row["id"] not in wanted),
        missing=tuple(missing(shelf)),
    )


def missing(shelf: Shelf) -> list[str]:
    """Return the files a shelf has not got yet, each with the stage that writes it."""
    asked = "teach" if shelf.kind == "domain" else "evaluate"
    checked = "verify" if shelf.kind == "domain" else "evaluate"
    expected = [
        (shelf.problems, "problems"),
        *((path, asked) for path in shelf.trace_files),
        *((path, checked) for path in shelf.verdict_files),
        (shelf.grades, "verify"),
        (shelf.examples, "select"),
        (shelf.refined, "select"),
        (shelf.preflight, "train"),
    ]
    return [
        f"{path.relative_to(shelf.run)}: not there yet; `cuvee {stage}` writes it"
        for path, stage in expected
        if path is not None and not path.exists()
    ]


def _about(place: Place) -> str:
    """Return the id of the trace that a judge's or a refiner's answer is about."""
    files = (*place.shelf.judge, place.shelf.grader, place.shelf.refiner)
    found = [t for path in files for t in rows_there(path, Trace, column="id", wanted=[place.id])]
    return found[0].problem_id


def _problem_of(shelf: Shelf, trace_id: str) -> str:
    for path in shelf.trace_files:
        if found := _short_rows(path, "id", [trace_id]):
            return str(found[0]["problem_id"])
    raise DataError(f"trace {trace_id} of {shelf.name}, which an answer is about, is not there")


def _short_traces(shelf: Shelf, problem_id: str) -> list[dict[str, Any]]:
    """Return the traces of a problem without their texts, each with its `in_round`."""
    return [
        {**row, "in_round": shelf.round_of(path)}
        for path in shelf.trace_files
        for row in _short_rows(path, "problem_id", [problem_id])
    ]


def _short_rows(path: Path, column: str, wanted: Collection[str]) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return matching(path, SHORT, column=column, wanted=wanted)


def _sources(shelf: Shelf, found: Sequence[Problem]) -> list[SourceRecord]:
    """Return the records of a problem's source; of a dropped problem's shelf, all of them."""
    records = read_sources(shelf)
    return of_source(records, found[0].source) if found else records


def _vote(path: Path | None, problem_id: str) -> Mapping[str, Any] | None:
    """Return the line of a file of votes about one problem."""
    if path is None or not path.exists():
        return None
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if problem_id in line:  # most lines are about others and need not be parsed
                vote: dict[str, Any] = _json(path, line)
                if vote.get("problem_id") == problem_id:
                    return vote
    return None


def _json(path: Path, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); run the stage that wrote it again") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: a JSON object is wanted, not {type(value).__name__}")
    return value


def _verdicts(shelf: Shelf, problem_id: str) -> dict[str, Verdict]:
    found = [
        row
        for path in shelf.verdict_files
        for row in rows_there(path, Verdict, column="problem_id", wanted=[problem_id])
    ]
    return {verdict.trace_id: verdict for verdict in found}


def _ends(shelf: Shelf, problem_id: str, ids: Sequence[str]) -> _Ends:
    tokens: dict[str, int] = {}
    choice = shelf.choice
    if choice is not None and choice.exists():
        columns = ("id", "problem_id", "tokens")
        found = matching(choice, columns, column="problem_id", wanted=[problem_id])
        tokens = {row["id"]: row["tokens"] for row in found}
    dropped = {
        row.id: row for row in rows_there(shelf.traces_dropped, Dropped, column="id", wanted=ids)
    }
    path = shelf.preflight
    said = read_preflight(path) if path is not None and path.exists() else None
    return _Ends(tokens, dropped, said)


def _steps(
    shelf: Shelf,
    wanted: Collection[str],
    *,
    verdicts: Mapping[str, Verdict],
    ends: _Ends,
    books: Books,
) -> list[Step]:
    traces = [
        (trace, shelf.round_of(path))
        for path in shelf.trace_files
        for trace in rows_there(path, Trace, column="id", wanted=wanted)
    ]
    found = ends.preflight
    judging = answers_about(shelf.judge, wanted, books)
    grading = gradings(shelf, wanted, books)
    refining = refinings(shelf, [trace for trace, _ in traces], books)
    return [
        Step(
            asked=books.asked(trace),
            verdict=verdicts.get(trace.id),
            judged=judging.get(trace.id, ()),
            in_round=in_round,
            grading=grading.get(trace.id),
            refining=refining.get(trace.id),
            decisions=() if chosen is None else decisions(ends.dropped.get(trace.id)),
            chosen=chosen,
            tokens=ends.tokens.get(trace.id),
            too_long=trace.id in found.too_long if chosen and found else None,
            held_out=trace.id in found.held_out if chosen and found else None,
        )
        for trace, in_round in traces
        for chosen in [_chosen(trace.id, ends)]
    ]


def _chosen(trace_id: str, ends: _Ends) -> bool | None:
    if trace_id in ends.tokens:
        return True
    return False if trace_id in ends.dropped else None


def _sibling(row: Mapping[str, Any], verdicts: Mapping[str, Verdict], ends: _Ends) -> Sibling:
    name = row["id"]
    verdict, dropped = verdicts.get(name), ends.dropped.get(name)
    return Sibling(
        id=name,
        teacher=row["model"],
        sample=row["sample"],
        finish_reason=row["finish_reason"],
        verdict=f"{verdict.verdict}: {verdict.reason}" if verdict else None,
        end="chosen" if name in ends.tokens else dropped.reason if dropped else None,
        tokens=ends.tokens.get(name),
        in_round=row["in_round"],
    )
