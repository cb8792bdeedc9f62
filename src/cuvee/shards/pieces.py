"""Input shards and the pieces that are checked at once.

A place in, shards with the name, size and mark of each out; a shard as one piece, or, where it
is big, as ranges of its row groups. Not here: checking them (`cuvee.shards.check`).
"""

import dataclasses
from pathlib import PurePosixPath

from cuvee.errors import DataError
from cuvee.shards import store

SUFFIX = ".parquet"
PIECE_BYTES = 256 * 2**20
"""A shard up to this size is checked by one worker; a bigger one is cut between its row groups."""
PARTS = "_parts"
"""The folder in --out for pieces of shards that are not whole yet. Readers of Parquet leave
names with a `_` out."""


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of rows to check, and the file of their verdicts."""

    name: str
    """Of both, beneath the folder that they stand in."""
    source: str
    target: str
    size: int
    """Bytes of the source as it was listed."""
    mark: str
    """What tells its content from a later one."""


@dataclasses.dataclass(frozen=True)
class Piece:
    """What one worker checks, and the file it writes: a shard, or row groups of it."""

    shard: Shard
    groups: tuple[int, int] | None
    """Row groups [first, end); None: all."""
    target: str

    @property
    def name(self) -> str:
        """The shard's name, with the row groups where it is not all of it."""
        if self.groups is None:
            return self.shard.name
        return f"{self.shard.name} (row groups {self.groups[0]} to {self.groups[1] - 1})"


@dataclasses.dataclass(frozen=True)
class Found:
    """What a place holds."""

    shards: tuple[Shard, ...]
    others: int
    """Files that are no .parquet, or hidden."""
    beneath_out: int
    """Files that stand in the folder that is written to: never an input."""


def find_shards(source: str, out: str) -> Found:
    """Return the shards of a file, folder or pattern; their verdicts go beneath `out`.

    A shard's name is its path beneath the folder, or beneath the part of the pattern that has
    no `*`. Hidden files, those with a `_` before their name, and what stands in such folders are
    none: `_temporary`, or a `..` in the name of an object. Raises DataError where there is no
    shard, RecipeError as `store.filesystem` does.
    """
    folder, listed = absolute_out(out), store.list_files(source)
    inputs = {url: info for url, info in listed.items() if not url.startswith(f"{folder}/")}
    rows = {url: info for url, info in inputs.items() if is_shard(url)}
    root = _root(source, list(rows))
    shards = []
    for url, info in rows.items():
        name = url.removeprefix(root).lstrip("/")
        if _is_hidden(name):
            continue
        size = int(info.get("size") or 0)
        shards.append(Shard(name, url, f"{folder}/{name}", size, store.mark_of(info)))
    found = Found(tuple(shards), len(inputs) - len(shards), len(listed) - len(inputs))
    if not shards:
        raise DataError(
            f"{source}: no shard: {found.others} files that do not end in {SUFFIX} or are hidden, "
            f"{found.beneath_out} files in --out itself"
        )
    return found


def absolute_out(out: str) -> str:
    """Return the folder that is written to, as any process may open it."""
    return store.absolute(out)


def is_shard(url: str) -> bool:
    """Say whether a file holds rows, by its name."""
    name = PurePosixPath(url).name
    return name.lower().endswith(SUFFIX) and not name.startswith((".", "_"))


def _is_hidden(name: str) -> bool:
    """Say whether any part of a name is hidden; an empty one would be lost in a folder's path."""
    return any(part[:1] in ("", ".", "_") for part in name.split("/"))


def _root(source: str, urls: list[str]) -> str:
    """Return the folder that names of shards are beneath, with a `/` at its end."""
    whole = store.absolute(source)
    if urls == [whole]:
        return whole.rpartition("/")[0] + "/"
    return store.root_of(source) + "/"


def cut(shard: Shard) -> list[Piece]:
    """Return a shard as pieces of at most PIECE_BYTES, or of one row group.

    A shard that is not there or no readable Parquet is one piece: whoever checks it says why.
    Raises OSError for a store that does not answer: a shard of any size would be one piece.
    """
    whole = [Piece(shard, None, shard.target)]
    if shard.size <= PIECE_BYTES:
        return whole
    sizes = _group_sizes(shard)
    ranges: list[tuple[int, int]] = []
    first, held = 0, 0
    for number, size in enumerate(sizes):
        if number > first and held + size > PIECE_BYTES:
            ranges.append((first, number))
            first, held = number, 0
        held += size
    ranges.append((first, len(sizes)))
    if len(ranges) == 1:
        return whole
    folder = shard.target.removesuffix(shard.name) + f"{PARTS}/{shard.name}"
    return [Piece(shard, r, f"{folder}/{r[0]:06d}-{r[1]:06d}{SUFFIX}") for r in ranges]


def _group_sizes(shard: Shard) -> list[int]:
    """Return the bytes of each row group; none where the file is no readable Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with store.opened(shard.source) as file:
            metadata = pq.read_metadata(file)
    except (pa.ArrowException, *store.LASTING):
        return []
    except OSError as error:
        if store.is_of_store(error):
            raise
        return []
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    return [
        sum(group.column(c).total_compressed_size for c in range(group.num_columns))
        for group in groups
    ]
