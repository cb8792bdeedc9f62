"""What an id, or the beginning of one, means in a run: a problem, a trace, an answer about one.

Shelves and text in, places out. An example has its trace's id; an answer about a trace
is that of a teacher that judges, grades or refines. The same problem may stand in
several places (in two domains; in a benchmark, and dropped from a domain for that): all of them
are found. Only id columns are read.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from cuvee.errors import DataError
from cuvee.lineage.columns import values
from cuvee.lineage.shelves import Shelf
from cuvee.lineage.text import one_line

SHOWN = 8
"""Ids that an error names at most."""
NEAREST = 3
"""Characters that an unknown id must share with a known one for that to be named as near."""

Kind = Literal["problem", "trace", "judge", "refiner"]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an id stands."""

    id: str
    kind: Kind
    """`judge`, `refiner`: an answer of a teacher that judges, grades or refines; its `problem_id`
    is the trace that it is about."""
    shelf: Shelf


@dataclasses.dataclass(frozen=True)
class _Column:
    """The ids of one file."""

    kind: Kind
    shelf: Shelf
    ids: Any
    """A pyarrow array of strings."""


def find_places(shelves: Sequence[Shelf], wanted: str) -> list[Place]:
    """Return every place of the one id that is `wanted` or begins with it.

    An id that is exactly `wanted` wins over longer ones. Raises DataError where it is empty,
    begins several ids (some are named) or none (those with the longest common beginning are
    named).
    """
    if not wanted:
        raise DataError("an empty id: give one, or its beginning")
    columns = list(_columns(shelves))
    places = _exactly(columns, wanted) or _beginning(columns, wanted)
    different = sorted({place.id for place in places})
    if not different:
        raise DataError(_unknown(columns, wanted))
    if len(different) > 1:
        raise DataError(
            f"'{one_line(wanted)}' begins {len(different):,} ids: {_named(places)}; give more of it"
        )
    return places


def _columns(shelves: Sequence[Shelf]) -> Iterator[_Column]:
    for shelf in shelves:
        files: list[tuple[Kind, Path | None]] = [
            ("problem", shelf.problems),
            ("problem", shelf.problems_dropped),
            *(("trace", path) for path in shelf.trace_files),
            *(("judge", path) for path in shelf.judge),
            ("judge", shelf.grader),
            ("refiner", shelf.refiner),
        ]
        for kind, path in files:
            if path is not None and path.exists():
                yield _Column(kind, shelf, values(path, "id"))


def _exactly(columns: Sequence[_Column], wanted: str) -> list[Place]:
    import pyarrow.compute as pc

    return _places(columns, [pc.equal(column.ids, wanted) for column in columns])


def _beginning(columns: Sequence[_Column], wanted: str) -> list[Place]:
    import pyarrow.compute as pc

    return _places(columns, [pc.starts_with(column.ids, wanted) for column in columns])


def _places(columns: Sequence[_Column], hits: Sequence[Any]) -> list[Place]:
    """Return the place of every hit, each once, in the order of the columns."""
    found = [
        Place(name, column.kind, column.shelf)
        for column, hit in zip(columns, hits, strict=True)
        for name in column.ids.filter(hit).unique().to_pylist()
    ]
    return list({(p.id, p.kind, p.shelf.kind, p.shelf.name): p for p in found}.values())


def _unknown(columns: Sequence[_Column], wanted: str) -> str:
    shown, total = one_line(wanted), sum(len(column.ids) for column in columns)
    if not total:
        return f"no id '{shown}': the run has no problems yet; `cuvee problems` loads them"
    for length in range(len(wanted) - 1, NEAREST - 1, -1):
        if near := _beginning(columns, wanted[:length]):
            return (
                f"no id begins with '{shown}'; the first {length} characters are those of "
                f"{_named(near)}"
            )
    return (
        f"no id begins with '{shown}', or with its first {NEAREST} characters "
        f"({total:,} ids searched); without an ID the command lists some"
    )


def _named(places: Sequence[Place]) -> str:
    """Return the first places in words: `0a1b... (trace of math), ...`."""
    named = [f"{one_line(p.id)} ({p.kind} of {p.shelf.name})" for p in places[:SHOWN]]
    more = len(places) - len(named)
    return ", ".join(named) + (f" and {more:,} more" if more else "")
