"""What is done already: output shards that are whole and of the same settings and input.

Shards in; their records where they are done, and the pieces that are to do, out. An output of
other settings, or one that we did not write, is refused: nothing is written over that may have
cost much. Not here: doing it (`cuvee.shards.verify`).
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cuvee.errors import DataError, RecipeError
from cuvee.shards import store
from cuvee.shards.check import find_record
from cuvee.shards.pieces import PARTS, Piece, Shard, cut, is_shard
from cuvee.shards.record import How, Record, differences

Item = TypeVar("Item")
Result = TypeVar("Result")

ASKED_AT_ONCE = 16
"""Files whose ends are read at once: a store takes its time for each."""


@dataclasses.dataclass
class Plan:
    """What is done, and what is to do."""

    done: dict[str, Record] = dataclasses.field(default_factory=dict)
    """Of shards that need nothing, by name."""
    cut: list[tuple[Shard, list[Piece]]] = dataclasses.field(default_factory=list)
    """The other shards, each with all of its pieces."""
    kept: dict[str, Record] = dataclasses.field(default_factory=dict)
    """Of pieces in `cut` that need nothing, by their target."""
    changed: int = 0
    """Outputs whose input is another one now: checked again."""
    broken: int = 0
    """Outputs that are not whole: checked again."""
    left_over: list[str] = dataclasses.field(default_factory=list)
    """Pieces of shards that are done: joining them was ended before they were removed."""
    strangers: int = 0
    """Shards in --out that belong to no shard of the input."""

    @property
    def todo(self) -> list[Piece]:
        """The pieces that are to be checked."""
        return [p for _, pieces in self.cut for p in pieces if p.target not in self.kept]


def make_plan(shards: Sequence[Shard], out: str, how: How) -> Plan:
    """Return what is to do. Raises RecipeError where --out holds what must not be written over.

    Raises DataError where a store does not answer.
    """
    plan = Plan()
    there = set(store.list_beneath(out))
    whole = [Piece(shard, None, shard.target) for shard in shards]
    records = _records(whole, there, how, plan)
    plan.done = {p.name: records[p.target] for p in whole if p.target in records}
    rest = [shard for shard in shards if shard.name not in plan.done]
    plan.left_over = sorted(url for url in there if _shard_of_piece(url, out) in plan.done)
    plan.cut = list(zip(rest, _at_once(_cut, rest), strict=True))
    pieces = [p for _, several in plan.cut for p in several if p.groups is not None]
    plan.kept = _records(pieces, there, how, plan)
    ours = {shard.target for shard in shards}
    plan.strangers = sum(
        is_shard(url) and f"/{PARTS}/" not in url and url not in ours for url in there
    )
    return plan


def _records(pieces: Sequence[Piece], there: set[str], how: How, plan: Plan) -> dict[str, Record]:
    """Return the records of pieces that need nothing; count in `plan` those that do."""
    written = [piece for piece in pieces if piece.target in there]
    found = _at_once(_record, [piece.target for piece in written])
    settings = how.settings()
    records: dict[str, Record] = {}
    for piece, record in zip(written, found, strict=True):
        if record is None:
            plan.broken += 1
        elif unlike := differences(record.settings, settings):
            raise RecipeError(
                f"--out holds {piece.target}, checked with other settings: {'; '.join(unlike)}; "
                "use those, name another --out, or remove what is there"
            )
        elif (record.size, record.mark, record.groups) != _input(piece):
            plan.changed += 1
        else:
            records[piece.target] = record
    return records


def _input(piece: Piece) -> tuple[int, str, tuple[int, int] | None]:
    return piece.shard.size, piece.shard.mark, piece.groups


def _shard_of_piece(url: str, out: str) -> str:
    """Return the name of the shard that a file in --out is a piece of; nothing for others."""
    parts = f"{out}/{PARTS}/"
    return url.removeprefix(parts).rpartition("/")[0] if url.startswith(parts) else ""


def _cut(shard: Shard) -> list[Piece]:
    try:
        return cut(shard)
    except OSError as error:
        raise DataError(f"{shard.source}: cannot be read: {error}") from error


def _record(url: str) -> Record | None:
    try:
        return find_record(url)
    except ValueError as error:
        raise RecipeError(f"{error}: name another --out, or move it away") from error
    except OSError as error:
        raise DataError(f"{url}: cannot be read: {error}") from error


def _at_once(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    with ThreadPoolExecutor(ASKED_AT_ONCE) as threads:
        return list(threads.map(work, items))
