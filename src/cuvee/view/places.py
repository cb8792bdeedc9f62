"""What a viewer looks at: the run's shelves, and one problem with all that is known of it.

A run in; shelves and ways out. A benchmark's shelf has whatever models were scored on it, the
recipe's or not. The ledger stays closed: opening one may write to it. Not here: HTML.
"""

import dataclasses
from pathlib import Path

from cuvee.errors import DataError
from cuvee.lineage.columns import find
from cuvee.lineage.explain import explain
from cuvee.lineage.find import Place
from cuvee.lineage.requests import Books
from cuvee.lineage.shelves import Shelf, shelves
from cuvee.lineage.text import one_line
from cuvee.lineage.way import Step, Way
from cuvee.runfolder import Run

CLOSED = Books(Path(), None, "the viewer leaves the ledger closed; `cuvee explain` asks it", None)


def viewed_shelves(run: Run) -> list[Shelf]:
    """Return a run's shelves: domains, then benchmarks with every model that was scored."""
    return [s if s.kind == "domain" else _with_all_models(run, s) for s in shelves(run)]


def _with_all_models(run: Run, shelf: Shelf) -> Shelf:
    folders = sorted((run.folder("evaluate") / "traces").glob("*/"))
    found = [
        folder.name for folder in folders if run.score_traces(folder.name, shelf.name).exists()
    ]
    models = dict.fromkeys([*shelf.traces, *found])
    return dataclasses.replace(
        shelf,
        traces={model: (run.score_traces(model, shelf.name),) for model in models},
        verdicts={model: (run.score_verdicts(model, shelf.name),) for model in models},
    )


def problem_way(shelf: Shelf, problem_id: str) -> Way:
    """Return what is known of a problem and all its traces.

    Raises DataError where the shelf has no such problem, kept or left out.
    """
    for path in (shelf.problems, shelf.problems_dropped):
        if path.exists() and find(path, "id", [problem_id]):
            return explain(Place(problem_id, "problem", shelf), CLOSED)
    raise DataError(f"{one_line(problem_id)[:80]}: no problem of {shelf.kind} {shelf.name}")


def trace_way(shelf: Shelf, trace_id: str) -> Way:
    """Return what is known of one trace. Raises DataError where the shelf has no such trace."""
    for path in shelf.trace_files:
        if path.exists() and find(path, "id", [trace_id]):
            return explain(Place(trace_id, "trace", shelf), CLOSED)
    raise DataError(f"{one_line(trace_id)[:80]}: no trace of {shelf.kind} {shelf.name}")


def side_by_side(way: Way, *, models: tuple[str, ...], sample: int | None) -> list[Step]:
    """Return one trace of each model: of a sample's number, or else its first.

    Only those of `models`, in that order, where some are named.
    """
    by_model: dict[str, list[Step]] = {}
    for step in sorted(way.steps, key=lambda step: step.asked.trace.sample):
        by_model.setdefault(step.asked.trace.model, []).append(step)
    order = models or tuple(dict.fromkeys(step.asked.trace.model for step in way.steps))
    chosen = []
    for model in order:
        own = by_model.get(model, [])
        numbered = [step for step in own if sample in (None, step.asked.trace.sample)]
        chosen += numbered[:1]
    return chosen


def samples_of(way: Way) -> list[int]:
    """Return the numbers of all samples, ascending."""
    return sorted({step.asked.trace.sample for step in way.steps})
