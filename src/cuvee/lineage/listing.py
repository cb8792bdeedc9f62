"""What came of everything in a run, counted, with the first ids of each outcome.

A run in; groups out: of problems (kept, or dropped and why), of traces (how they finished, what
the verifier said, whether they were graded), of ends (chosen, or the reason a trace was dropped
for) and of examples (refined in which way, or why not), by domain. It
helps to find an id for `cuvee explain`, and the data card is counted with it. Only short
columns are read. Stages that have written nothing yet have no groups.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from cuvee.errors import RecipeError
from cuvee.lineage.columns import table
from cuvee.lineage.explain import missing
from cuvee.lineage.shelves import Shelf
from cuvee.lineage.text import one_line

FIRST = 3
"""Ids that a group shows; `MORE` where groups were asked for by reason."""
MORE = 20

StageName = Literal["problems", "teach", "verify", "rubric", "select", "refine"]


@dataclasses.dataclass(frozen=True)
class Group:
    """Rows of one domain that came to the same."""

    domain: str
    stage: StageName
    outcome: str
    """`kept` or `dropped`, the teacher that answered, a verdict, `graded` or `not_graded`, `chosen`
    or `dropped`, the way of refining."""
    reason: str | None
    """Why: of a drop or a verdict; of an answer, its `finish_reason`."""
    count: int
    ids: tuple[str, ...]
    """The first ones, in the order of the files."""


@dataclasses.dataclass(frozen=True)
class Listing:
    """The groups of a run and what is not there yet."""

    groups: tuple[Group, ...]
    missing: tuple[str, ...]


def list_run(
    shelves: Sequence[Shelf],
    *,
    domain: str | None = None,
    reason: str | None = None,
    teacher: str | None = None,
) -> Listing:
    """Return the groups of a run's domains, or those of one domain, reason, teacher.

    `reason` is the reason of any group, or its outcome (`chosen`, `wrong`). With `teacher`
    problems are left out: they are nobody's. Raises RecipeError for a name that is none, with
    those there are, and DataError for a file that breaks its contract.
    """
    domains = [shelf for shelf in shelves if shelf.kind == "domain"]
    _check("--domain", domain, [shelf.name for shelf in domains])
    _check("--teacher", teacher, sorted({name for shelf in domains for name in shelf.traces}))
    wanted = [shelf for shelf in domains if domain in (None, shelf.name)]
    first = FIRST if reason is None else MORE
    groups = [group for shelf in wanted for group in shelf_groups(shelf, teacher, first=first)]
    _check("--reason", reason, sorted({name for group in groups for name in _names(group)}))
    found = [group for group in groups if reason is None or reason in _names(group)]
    absent = [name for shelf in wanted for name in missing(shelf)]
    return Listing(tuple(found), tuple(absent))


def shelf_groups(shelf: Shelf, teacher: str | None = None, *, first: int) -> list[Group]:
    """Return the groups of one domain with the `first` ids of each; of one teacher, or all."""
    return [
        *(() if teacher else _problem_groups(shelf, first)),
        *_trace_groups(shelf, teacher, first),
    ]


def _names(group: Group) -> list[str]:
    """Return what `--reason` may call a group; its outcome too, unless that is a teacher."""
    outcome = [] if group.stage == "teach" else [group.outcome]
    return outcome if group.reason is None else [group.reason, *outcome]


def _check(flag: str, value: str | None, known: Sequence[str]) -> None:
    if value is not None and value not in known:
        told = ", ".join(one_line(name) for name in known) or "none yet"
        raise RecipeError(f"{flag} {one_line(value)}: not in this run; there are: {told}")


@dataclasses.dataclass(frozen=True)
class _Count:
    """Rows with the same values of some columns."""

    values: tuple[Any, ...]
    count: int
    ids: tuple[str, ...]


def _problem_groups(shelf: Shelf, first: int) -> Iterator[Group]:
    for kept in _counts([shelf.problems], by=(), first=first):
        yield Group(shelf.name, "problems", "kept", None, kept.count, kept.ids)
    for left in _counts([shelf.problems_dropped], by=("reason",), first=first):
        yield Group(shelf.name, "problems", "dropped", left.values[0], left.count, left.ids)


def _trace_groups(shelf: Shelf, teacher: str | None, first: int) -> Iterator[Group]:
    own = None if teacher is None else _ids(shelf.traces.get(teacher, ()))
    for name, paths in shelf.traces.items():
        if teacher in (None, name):
            for some in _counts(paths, by=("finish_reason",), first=first):
                yield Group(shelf.name, "teach", name, some.values[0], some.count, some.ids)
    by = ("verdict", "reason")
    for some in _counts(shelf.verdict_files, by=by, id_column="trace_id", own=own, first=first):
        verdict, reason = some.values
        yield Group(shelf.name, "verify", verdict, reason, some.count, some.ids)
    for some in _counts([shelf.grades], by=("reason",), id_column="trace_id", own=own, first=first):
        graded, reason = some.values[0] == "graded", some.values[0]
        outcome = "graded" if graded else "not_graded"
        yield Group(shelf.name, "rubric", outcome, None if graded else reason, some.count, some.ids)
    for some in _counts([shelf.choice], by=(), own=own, first=first):
        yield Group(shelf.name, "select", "chosen", None, some.count, some.ids)
    for some in _counts([shelf.traces_dropped], by=("reason",), own=own, first=first):
        yield Group(shelf.name, "select", "dropped", some.values[0], some.count, some.ids)
    for some in _counts([shelf.refined], by=("way", "reason"), own=own, first=first):
        way, reason = some.values
        yield Group(shelf.name, "refine", way, reason, some.count, some.ids)


def _ids(paths: Sequence[Path]) -> Any:
    """Return the ids of files as a pyarrow array; none where there is no file."""
    import pyarrow as pa

    found = [table(path, ["id"]).column("id").combine_chunks() for path in paths if path.exists()]
    return pa.concat_arrays(found) if found else pa.array([], type=pa.string())


def _counts(
    paths: Sequence[Path | None],
    *,
    by: Sequence[str],
    first: int,
    id_column: str = "id",
    own: Any = None,
) -> list[_Count]:
    """Return the rows of files counted by columns, the largest count first.

    Only those whose id is in `own`, where that is given; none where there is no file.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    there = [path for path in paths if path is not None and path.exists()]
    if not there:
        return []
    found = pa.concat_tables(table(path, [id_column, *by]) for path in there)
    if own is not None:
        found = found.filter(pc.is_in(found.column(id_column), value_set=own))
    if not by:
        return [_count((), found, id_column, first)] if len(found) else []
    counts = []
    for key in found.group_by(list(by)).aggregate([]).to_pylist():
        same = found
        for name in by:
            same = same.filter(pc.equal(same.column(name), key[name]))
        counts.append(_count(tuple(key[name] for name in by), same, id_column, first))
    return sorted(counts, key=lambda one: (-one.count, one.values))


def _count(values: tuple[Any, ...], same: Any, id_column: str, first: int) -> _Count:
    ids = same.column(id_column).slice(0, first).to_pylist()
    return _Count(values, len(same), tuple(ids))
