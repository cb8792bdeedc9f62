"""The pages of the viewer: an address' parts and query in, HTML out.

Every page is a function of the viewer, the query's keys and values, and the names in its path;
`PAGES` holds them all. Queries are refused by name where they mean nothing. Texts of models and
files are escaped by the templates. Not here: HTTP (`cuvee.view.server`) and SQL.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jinja2 import Environment

from cuvee.errors import DataError, RecipeError
from cuvee.lineage.changes import segments
from cuvee.lineage.find import find_places
from cuvee.lineage.shelves import Shelf
from cuvee.lineage.text import one_line
from cuvee.runfolder import STAGES, Run, read_manifest
from cuvee.templates import environment
from cuvee.view.addresses import Addresses
from cuvee.view.counts import count
from cuvee.view.database import Database, parquet_rows
from cuvee.view.listing import (
    LOST_SORTS,
    PAGE_ROWS,
    PROBLEM_SORTS,
    TRACE_SORTS,
    Listed,
    list_lost,
    list_problems,
    list_traces,
)
from cuvee.view.mask import training_mask
from cuvee.view.places import problem_way, samples_of, side_by_side, trace_way, viewed_shelves
from cuvee.view.selection import VERDICTS, Selection, allow, parse_selection, whole_number
from cuvee.view.text import shown, snippet
from cuvee.view.versus import VERSUS_SORTS, count_outcomes, list_versus

MOST_SCORES = 10_000
Query = Sequence[tuple[str, str]]
ListOf = Callable[..., Listed]

LISTS: dict[str, tuple[ListOf, Mapping[str, str]]] = {
    "problems": (list_problems, PROBLEM_SORTS),
    "traces": (list_traces, TRACE_SORTS),
    "lost": (list_lost, LOST_SORTS),
    "versus": (list_versus, VERSUS_SORTS),
}
"""Name of a list, as in its address -> what lists it, and what it can be sorted by."""


@dataclasses.dataclass(frozen=True)
class Viewer:
    """A run that is looked at."""

    run: Run
    database: Database
    templates: Environment
    addresses: Addresses

    def shelf(self, kind: str, name: str) -> Shelf:
        """Return a shelf. Raises DataError where the run has none of that name."""
        for shelf in viewed_shelves(self.run):
            if (shelf.kind, shelf.name) == (kind, name):
                return shelf
        raise DataError(f"{one_line(kind)[:80]} {one_line(name)[:80]}: not in this run")

    def render(self, template: str, **values: Any) -> str:
        """Return the HTML of a template with what all pages need."""
        common = {"name": self.run.recipe.name, "shelf": None, "tab": "", "title": ""}
        return self.templates.get_template(template).render(**common | values)


@dataclasses.dataclass(frozen=True)
class Moved:
    """Another page is the answer."""

    address: str


@dataclasses.dataclass(frozen=True)
class Walk:
    """Where a page stands in the list that it was opened from."""

    at: int
    """Its row in the list, from 1; 0: it was not opened from a list."""
    total: int
    back: str
    """Addresses: of the list, and of the rows before and after; empty where there is none."""
    before: str = ""
    after: str = ""


def open_viewer(run: Run, database: Database, *, root: str) -> Viewer:
    """Return the viewer of a run; all its addresses begin with `root`."""
    addresses = Addresses(root)
    templates = environment("cuvee.view", html=True)
    templates.filters.update(
        shown=shown, snippet=snippet, one_line=one_line, count="{:,}".format,
        percent=lambda share: f"{100 * share:.1f}",
    )  # fmt: skip
    templates.globals.update(to=addresses.to, verdicts=VERDICTS, segments=segments)
    return Viewer(run, database, templates, addresses)


def overview(viewer: Viewer, query: Query) -> str:
    """Return the first page: what the run has, stage by stage and domain by domain."""
    _refuse_keys(query)
    entries = read_manifest(viewer.run.path)
    stages = [
        (stage, len(own), sum(entry["seconds"] for entry in own))
        for stage in STAGES
        if (own := [e for key, e in entries.items() if key.split("/")[0] == stage])
    ]
    shelves = viewed_shelves(viewer.run)
    return viewer.render(
        "overview.html.j2",
        tab="overview",
        recipe=viewer.run.recipe,
        path=str(viewer.run.path),
        stages=stages,
        counted=[(shelf, count(viewer.database, shelf)) for shelf in shelves],
    )


def evaluation(viewer: Viewer, query: Query) -> str:
    """Return the page of scores and paired differences, benchmark by benchmark."""
    _refuse_keys(query)
    run = viewer.run
    scores = parquet_rows(viewer.database, run.scores(), limit=MOST_SCORES)
    pairs = parquet_rows(viewer.database, run.comparisons(), limit=MOST_SCORES)
    names = dict.fromkeys(row["benchmark"] for row in scores)
    return viewer.render(
        "evaluation.html.j2",
        tab="evaluation",
        title="evaluation",
        benchmarks=[
            (
                name,
                [row for row in scores if row["benchmark"] == name],
                [row for row in pairs if row["benchmark"] == name],
            )
            for name in names
        ],
    )


def found(viewer: Viewer, query: Query) -> str | Moved:
    """Return the page of the one id that a text is or begins, or where it stands several times."""
    values = _once(query)
    for key in values:
        allow(key, "a key of the address", ["id"])
    wanted = values.get("id", "").strip()
    kinds = ("problem", "trace")
    places = [p for p in find_places(viewed_shelves(viewer.run), wanted) if p.kind in kinds]
    if not places:
        raise DataError(
            f"{one_line(wanted)}: what a judge or refiner answered about a trace; it stands on the "
            "trace's page"
        )
    addresses = [viewer.addresses.to(p.shelf.kind, p.shelf.name, p.kind, p.id) for p in places]
    if len(places) == 1:
        return Moved(addresses[0])
    pairs = list(zip(places, addresses, strict=True))
    return viewer.render("found.html.j2", title="found", wanted=wanted, places=pairs)


def rows(viewer: Viewer, query: Query, *, kind: str, name: str, list_: str) -> str:
    """Return a page of a list of a shelf: `problems`, `traces`, `lost` or `versus`."""
    shelf = viewer.shelf(kind, name)
    if list_ not in LISTS:
        raise DataError(f"{one_line(list_)[:80]}: no such list; there are {', '.join(LISTS)}")
    listing, sorts = LISTS[list_]
    wanted = _known_models(parse_selection(_once(query), sorts=sorts), shelf)
    _refuse_foreign(wanted, list_)
    if list_ == "versus":
        wanted = _paired(wanted, shelf)
    offset = PAGE_ROWS * (wanted.page - 1)
    listed = listing(viewer.database, shelf, wanted, offset=offset, limit=PAGE_ROWS)
    outcomes = count_outcomes(viewer.database, shelf, wanted) if list_ == "versus" else {}
    return viewer.render(
        f"{list_}.html.j2",
        shelf=shelf,
        tab=list_,
        title=f"{list_} of {name}",
        wanted=wanted,
        listed=listed,
        first=offset + 1,
        pages=-(-listed.total // PAGE_ROWS),
        counts=count(viewer.database, shelf),
        outcomes=outcomes,
    )


def problem(viewer: Viewer, query: Query, *, kind: str, name: str, id_: str) -> str:
    """Return the page of a problem: its traces side by side, and a table of all of them."""
    shelf = viewer.shelf(kind, name)
    values = _once(query)
    sample = values.pop("sample", "")
    number = whole_number(sample, "sample", least=0) if sample else None
    list_ = "versus" if "a" in values else "problems"
    wanted, walk = _walk(viewer, values, shelf, list_)
    way = problem_way(shelf, id_)
    models = (wanted.first, wanted.second) if wanted.first else ()
    return viewer.render(
        "problem.html.j2",
        shelf=shelf,
        tab=list_,
        title=f"problem {id_}",
        way=way,
        steps=side_by_side(way, models=models, sample=number),
        samples=samples_of(way),
        sample=number,
        wanted=wanted,
        walk=walk,
    )


def trace(viewer: Viewer, query: Query, *, kind: str, name: str, id_: str) -> str:
    """Return the page of one trace: its texts whole."""
    shelf = viewer.shelf(kind, name)
    _, walk = _walk(viewer, _once(query), shelf, "traces")
    way = trace_way(shelf, id_)
    return viewer.render(
        "trace.html.j2", shelf=shelf, tab="traces", title=f"trace {id_}", way=way, walk=walk
    )


def mask(viewer: Viewer, query: Query, *, kind: str, name: str, id_: str) -> str:
    """Return the page of an example's training mask, or why there is none."""
    _refuse_keys(query)
    shelf = viewer.shelf(kind, name)
    way = trace_way(shelf, id_)
    sample = training_mask(shelf, id_, base=viewer.run.recipe.base)
    return viewer.render(
        "mask.html.j2",
        shelf=shelf,
        tab="traces",
        title=f"training mask of {id_}",
        way=way,
        step=way.steps[0],
        refusal=sample if isinstance(sample, str) else None,
        sample=None if isinstance(sample, str) else sample,
    )


def error_page(viewer: Viewer, message: str) -> str:
    """Return the page that says what went wrong."""
    return viewer.render("error.html.j2", title="error", message=message)


PAGES: dict[str, Callable[..., str | Moved]] = {
    "": overview,
    "evaluation": evaluation,
    "find": found,
    "{kind}/{name}/problem/{id_}": problem,
    "{kind}/{name}/trace/{id_}": trace,
    "{kind}/{name}/mask/{id_}": mask,
    "{kind}/{name}/{list_}": rows,
}
"""Path after the token -> page; what stands in braces is a name that the page is given."""


def _once(query: Query) -> dict[str, str]:
    """Return a query's values by key. Raises RecipeError where a key is given twice."""
    values = dict(query)
    if len(values) < len(query):
        raise RecipeError("the address gives a key twice; each may stand once")
    return values


def _refuse_keys(query: Query) -> None:
    if query:
        raise RecipeError(f"{one_line(query[0][0])[:80]!r}: this page takes no keys")


def _refuse_foreign(wanted: Selection, list_: str) -> None:
    """Refuse keys that another list has: a filter that is passed over would mislead."""
    of_traces = {"in", "model", "verdict", "reason"}
    foreign = {
        "problems": {"a", "b", "outcome"},
        "traces": {"a", "b", "outcome"},
        "lost": {"a", "b", "outcome", *of_traces},
        "versus": {"end", *of_traces},
    }
    for key in wanted.query():
        if key in foreign[list_]:
            raise RecipeError(f"{key}: not a key of the list {list_}")


def _known_models(wanted: Selection, shelf: Shelf) -> Selection:
    """Return the selection. Raises RecipeError for a model that the shelf has not."""
    for key, model in (("model", wanted.model), ("a", wanted.first), ("b", wanted.second)):
        if model:
            allow(model, key, shelf.traces)
    return wanted


def _paired(wanted: Selection, shelf: Shelf) -> Selection:
    """Return the selection with two models: those it names, or else the last and the first."""
    there = [m for m, paths in shelf.traces.items() if any(path.exists() for path in paths)]
    names = there or [*shelf.traces]
    first = wanted.first or next((m for m in reversed(names) if m != wanted.second), names[-1])
    second = wanted.second or next((m for m in names if m != first), names[0])
    return dataclasses.replace(wanted, first=first, second=second)


def _walk(
    viewer: Viewer, values: dict[str, str], shelf: Shelf, list_: str
) -> tuple[Selection, Walk]:
    """Return the selection of the list that a page was opened from, and its neighbours there."""
    at = whole_number(values.pop("at"), "at", least=1) if "at" in values else 0
    listing, sorts = LISTS[list_]
    wanted = _known_models(parse_selection(values, sorts=sorts), shelf)
    _refuse_foreign(wanted, list_)
    place = (shelf.kind, shelf.name)
    page = (at - 1) // PAGE_ROWS + 1 if at else 1
    back = viewer.addresses.to(*place, list_, **wanted.query(page=page))
    if not at:
        return wanted, Walk(0, 0, back)
    start = max(at - 1, 1)
    listed = listing(viewer.database, shelf, wanted, offset=start - 1, limit=at - start + 2)
    kind = "trace" if list_ == "traces" else "problem"
    addresses = {
        row: viewer.addresses.to(*place, kind, values["id"], **wanted.query(), at=row)
        for row, values in enumerate(listed.rows, start)
    }
    return wanted, Walk(
        at, listed.total, back, addresses.get(at - 1, ""), addresses.get(at + 1, "")
    )
