"""A piece of a shard checked where it is read: what a worker does.

A piece in, the file of its verdicts written, its record out. A piece that cannot be read is an
outcome that says why: other pieces go on. The functions run in this process or in a worker of
a cluster; nothing is kept between calls. Not here: which pieces there are to do
(`cuvee.shards.resume`), and who does them (`cuvee.shards.verify`).
"""

import dataclasses
import errno
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cuvee.errors import DataError
from cuvee.progress import printable
from cuvee.records import Verdict, write_rows
from cuvee.shards import store
from cuvee.shards.pieces import Piece, Shard
from cuvee.shards.record import KEY, How, Record, counted, joined, read_record
from cuvee.verify.rows import Row, check_reading
from cuvee.verify.summary import Summary
from cuvee.workers.nodes import versions

BATCH_ROWS = 256
"""Rows of a shard that are held at once, beside what is being checked."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What a full disk says."""

CheckRows = Callable[..., Iterator[Verdict]]
"""`check_reading`, or what checks the same rows on a cluster."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a piece, or of joining the pieces of a shard."""

    record: Record | None
    """None: it was not written."""
    why: str = ""
    """Why it was not, in words."""
    lost: bool = False
    """Its workers were lost: its rows were not at fault, but perhaps one of them."""


def check_pieces(pieces: list[Piece], *, how: How) -> list[Outcome]:
    """In a worker: check pieces one after another; raises nothing that a piece may cause."""
    return [check_piece(piece, how) for piece in pieces]


def check_piece(piece: Piece, how: How, *, check: CheckRows = check_reading) -> Outcome:
    """Read a piece, check its rows, write their verdicts. Raises what checking raises.

    A piece that cannot be read or written, and one whose first row lacks a column, is an
    outcome with its reason.
    """
    summary = Summary()
    shard = piece.shard

    def record() -> Record:
        return Record(
            settings=how.settings(),
            size=shard.size,
            mark=shard.mark,
            groups=piece.groups,
            versions=versions(),
            rows=summary.reasons.total(),
            reasons=counted(summary),
            checkers=dict(summary.checkers),
        )

    try:
        with store.opened(shard.source) as file, _parquet(file) as rows_of:
            before, rows = _rows(rows_of, piece)
            verdicts = check(
                rows,
                how.reading,
                limits=how.limits,
                sandbox=how.sandbox,
                tick=_uncounted,
                start=before + 1,
            )
            return Outcome(_write(piece.target, summary.counting(verdicts), record))
    except (DataError, OSError) as error:
        return Outcome(None, _reason(piece.name, error))


def _parquet(file: Any) -> Any:
    """Return a Parquet file to read. Raises OSError, and DataError for what is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file, pre_buffer=True)
    except pa.ArrowException as error:
        raise DataError(f"not a readable Parquet file: {error}") from error


def _rows(file: Any, piece: Piece) -> tuple[int, Iterator[Row]]:
    """Return how many rows of the shard stand before the piece, and the rows of it."""
    first, end = piece.groups or (0, file.num_row_groups)
    before = sum(file.metadata.row_group(number).num_rows for number in range(first))
    return before, _each(file, range(first, end))


def _each(file: Any, groups: Iterable[int]) -> Iterator[Row]:
    import pyarrow as pa

    try:
        for number in groups:  # one by one: what is read ahead is one row group
            for batch in file.iter_batches(batch_size=BATCH_ROWS, row_groups=[number]):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise DataError(f"not a readable Parquet file: {error}") from error


def _write(target: str, verdicts: Iterable[Verdict], record: Callable[[], Record]) -> Record:
    """Write verdicts with their record to a place, complete or not at all; return the record."""
    made: list[Record] = []

    def metadata() -> dict[str, str]:
        made.append(record())
        return {KEY: made[0].to_json()}

    fs, path = store.filesystem(target)
    if store.is_local(fs):
        write_rows(Path(path), verdicts, Verdict, record=metadata)
        return made[0]
    with tempfile.TemporaryDirectory(prefix="cuvee-shard-") as folder:
        file = Path(folder) / "verdicts.parquet"
        write_rows(file, verdicts, Verdict, record=metadata)
        store.put(file, target)
    return made[0]


def find_record(url: str) -> Record | None:
    """Return the record of a file of verdicts; None where it is not whole.

    Raises ValueError for a whole file that has no record: it was not written here; OSError for
    a store that does not answer.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with store.opened(url) as file:
            metadata = pq.read_metadata(file).metadata or {}
    except (pa.ArrowException, OSError) as error:
        if store.is_of_store(error):
            raise
        return None
    text = metadata.get(KEY.encode())
    if text is None:
        raise ValueError(f"{url} was not written by cuvee verify")
    return read_record(text)


def join_shards(joins: list[tuple[Shard, Sequence[Piece]]]) -> list[Outcome]:
    """In a worker: make the verdicts of each shard from those of its pieces, in order."""
    return [_join(shard, pieces) for shard, pieces in joins]


def _join(shard: Shard, pieces: Sequence[Piece]) -> Outcome:
    records: list[Record] = []

    def verdicts() -> Iterator[Verdict]:
        for piece in pieces:
            record = find_record(piece.target)
            if record is None:
                raise DataError(f"{piece.target}: not whole")
            records.append(record)
            with store.opened(piece.target) as file, _parquet(file) as rows:
                for row in _each(rows, range(rows.num_row_groups)):
                    yield Verdict(**row)

    try:
        record = _write(shard.target, verdicts(), lambda: joined(records))
        store.remove([piece.target for piece in pieces])
    except (DataError, OSError, ValueError) as error:
        return Outcome(None, _reason(shard.name, error))
    return Outcome(record)


def _reason(name: str, error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in FULL:
        raise error  # no piece after this one would fare better
    return printable(f"{name}: {' '.join(str(error).split())[:300]}")


def _uncounted(_: int) -> None:
    """Tick nothing: pieces are counted where they come back."""
