"""What is to be left out of a task's problems, found on a Ray cluster (`workers: ray`).

A file of problems in; out, in their order: what each repeats, which benchmark question it
overlaps, what is wrong with its gold, as `shard_dedup`, `decontaminate` and `sieve.check_golds`
find it. Each pass reads and sends only the columns it needs, and only of problems that no
earlier pass found anything against. Held here are three references a problem, and what was
found. Not here: writing what stays (`cuvee.problems.stage`), what a cluster is
(`cuvee.workers`).
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import compress
from operator import itemgetter
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from cuvee.errors import CuveeError
from cuvee.problems import decontaminate, shard_dedup
from cuvee.problems.dedup import Repeat, warn_of_cut
from cuvee.problems.shard_dedup import SIZES, Text
from cuvee.problems.sieve import NOTHING_TO_CHECK, Fault, check_golds
from cuvee.progress import bar
from cuvee.recipe import Verify
from cuvee.records import Problem, iter_values
from cuvee.verify.clustered import CHUNK_CHARACTERS, CHUNK_ROWS
from cuvee.workers.chunks import in_chunks, map_chunks
from cuvee.workers.cluster import require_ray

SHARD_TEXTS = 4096
"""Of a shard of `shard_dedup`, or so many that they have `CHUNK_CHARACTERS`."""
COMPARED_ROWS = 1024
"""Of a chunk that is compared with the benchmarks, as many as `decontaminate` reads at once."""

COMPARED = ("source", "question")
CHECKED = ("id", "verifier", "gold", "tests")
"""The columns that are sent, to be compared with the benchmarks and to have the gold checked."""
EMPTY: Mapping[str, Any] = {
    field.name: None if field.name in ("gold", "tests") else ""
    for field in dataclasses.fields(Problem)
}
Row = tuple[str | None, ...]
"""The values of these columns; plain tuples are sent in a fifth of a row type's time."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def find_repeats(
    path: Path, *, count: int, folder: Path, at_once: int | None, label: str
) -> list[Repeat | None]:
    """Return what each of the `count` problems of a file repeats, as `dedup.find_repeats` does.

    `folder`: where to put aside what is not held. `at_once`: the most chunks at once (None: as
    many as the cluster has CPUs for). Raises CuveeError where a shard or a group of problems
    lost every worker it was given to, and OSError (disk full).
    """

    def shards() -> Iterator[list[Text]]:
        texts = (Text(**values) for values in iter_values(path, Text._fields))
        return in_chunks(texts, _text, rows=SHARD_TEXTS, characters=CHUNK_CHARACTERS)

    def mapped(function: Callable[[Item], Result], items: Iterable[Item], /) -> Iterator[Result]:
        return map_chunks(
            ([item] for item in items),
            functools.partial(_each, function),
            given_up=_lost_many,
            tick=_uncounted,
            at_once=at_once,
        )

    folder.mkdir()
    found = shard_dedup.find_repeats(
        shards, count=count, folder=folder, mapped=mapped, label=label, sizes=SIZES
    )
    warn_of_cut(found.cut)
    return [found.repeats.get(number) for number in range(count)]


def find_overlaps(
    path: Path,
    left: Sequence[bool],
    benchmarks: Mapping[str, Path],
    *,
    at_once: int | None,
    label: str,
) -> list[Fault | None]:
    """Return which benchmark question each problem overlaps that is `left`.

    `left`: one a problem of the file; `benchmarks`: their files by name. They are indexed here,
    once, and every worker process fetches the index once. A problem that lost every worker is
    `not_compared`: it may be in a benchmark.
    """
    if not benchmarks:
        return [None] * sum(left)
    index = decontaminate.build_index({name: _slim(held) for name, held in benchmarks.items()})
    rows = _rows(path, COMPARED, left)
    with bar(f"{label}: compared with benchmarks", total=sum(left), unit="problems") as tick:
        return list(
            map_chunks(
                in_chunks(rows, _characters, rows=COMPARED_ROWS, characters=CHUNK_CHARACTERS),
                functools.partial(_overlaps, index=require_ray().put(index)),
                given_up=_lost_text,
                tick=tick,
                at_once=at_once,
            )
        )


def find_faults(
    path: Path, left: Sequence[bool], *, limits: Verify, sandbox: str, label: str
) -> list[Fault | None]:
    """Return what is wrong with the gold of each problem that is `left`, as `check_golds` does.

    `limits.processes` is the most chunks at once. A problem that lost every worker is
    `gold_not_checkable`. Raises what `check_golds` raises in a worker.
    """
    rows = _rows(path, CHECKED, left)
    with bar(f"{label}: golds checked", total=sum(left), unit="problems") as tick:
        found = map_chunks(
            in_chunks(rows, _characters, rows=CHUNK_ROWS, characters=CHUNK_CHARACTERS),
            functools.partial(
                _faults, limits=limits.model_copy(update={"processes": 1}), sandbox=sandbox
            ),
            given_up=_lost_gold,
            tick=tick,
            at_once=limits.processes,
        )
        # One object for all that have nothing to check: a reference is all that is held.
        return [NOTHING_TO_CHECK if fault == NOTHING_TO_CHECK else fault for fault in found]


def _slim(path: Path) -> list[Problem]:
    """Return a benchmark's problems as far as they are compared."""
    rows = iter_values(path, ["id", "source", "question"])
    return [_problem(**values) for values in rows]


def _rows(path: Path, columns: Sequence[str], left: Sequence[bool]) -> Iterator[Row]:
    """Yield some columns of the problems that are left."""
    return map(itemgetter(*columns), compress(iter_values(path, columns), left))


def _problem(**values: Any) -> Problem:
    """Return a problem of some columns; what is compared or checked needs no others."""
    return Problem(**{**EMPTY, **values})


def _text(text: Text) -> int:
    return len(text.question)


def _characters(row: Row) -> int:
    return sum(len(value or "") for value in row)


def _each(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """In a worker: do what stands alone in its chunk."""
    return [function(item) for item in items]


def _overlaps(rows: Sequence[Row], *, index: Any) -> list[Fault | None]:
    """In a worker: compare a chunk of problems with the benchmarks."""
    problems = [_problem(**dict(zip(COMPARED, row, strict=True))) for row in rows]
    found = decontaminate.find_overlaps(problems, _fetched(index))
    return [Fault(o.reason, o.detail) if o is not None else None for _, o in found]


@functools.lru_cache(maxsize=1)
def _fetched(index: Any) -> decontaminate.Index:
    """In a worker: return the index from Ray's store, and keep it for the next chunk."""
    held: decontaminate.Index = require_ray().get(index)
    return held


def _faults(rows: Sequence[Row], *, limits: Verify, sandbox: str) -> list[Fault | None]:
    """In a worker: check a chunk of golds."""
    problems = [_problem(**dict(zip(CHECKED, row, strict=True))) for row in rows]
    return check_golds(problems, _uncounted, limits=limits, sandbox=sandbox)


def _uncounted(_: int) -> None:
    """Tick nothing: rows are counted where the chunk comes back."""


def _lost_many(_: object, why: str) -> NoReturn:
    # To go on would leave repeats in: nobody can say of one problem that it repeats nothing.
    raise CuveeError(f"deduplication: a part of the problems lost every worker ({why})")


def _lost_text(_: Row, why: str) -> Fault:
    return Fault("not_compared", f"not compared with the benchmarks: worker_lost: {why}")


def _lost_gold(_: Row, why: str) -> Fault:
    return Fault("gold_not_checkable", f"not_checked: worker_lost: {why}")
