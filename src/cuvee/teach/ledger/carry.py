"""Answers from ledger to ledger: a Parquet file (zstd) that any program can open.

A row is an answer with all that replaying it needs; importing it makes `get` find it. The
columns are `COLUMNS`; the file's metadata holds `cuvee.ledger` (the schema's number) and
`cuvee.note` (what its maker says of it: models, licence). What is in doubt is not carried.
Not here: the ledger itself.
"""

import contextlib
import dataclasses
import functools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cuvee.atomic import replacing
from cuvee.errors import DataError
from cuvee.progress import Tick
from cuvee.recipe.address import Place
from cuvee.teach.ledger import accounts
from cuvee.teach.ledger.check import SHOWN, fault_of
from cuvee.teach.ledger.entries import Answer, Cost, Payer
from cuvee.teach.ledger.file import SCHEMA_VERSION
from cuvee.teach.ledger.store import find, insert
from cuvee.teach.ledger.stores import (
    Connection,
    by_held,
    commit,
    connect,
    explained,
    opened,
)
from cuvee.teach.ledger.survey import Chosen

COLUMNS = {
    "key": "string", "request": "string", "response": "string", "status": "int64",
    "seconds": "float64", "created": "string", "account": "string", "teacher": "string",
    "prompt_tokens": "int64", "completion_tokens": "int64", "usd": "float64",
}  # fmt: skip
"""Column -> Arrow type. The last three are null where nobody counted."""
UNCOUNTED = ("prompt_tokens", "completion_tokens", "usd")
GROUP_ROWS = 1000
GROUP_CHARACTERS = 32 * 2**20
"""A row group ends at either: it is what is held in memory."""
BATCH_ROWS = 100
ZSTD_LEVEL = 9
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@dataclasses.dataclass(frozen=True)
class Imported:
    """What became of the rows of a file."""

    added: int
    held: int
    """The ledger had an answer to that request already, and kept it."""
    refused: Counter[str]
    """Rows that are no sound answers, by kind: `key`, `response`, `identity`, `value`."""
    details: list[str]
    """The first few of those, for people."""
    note: str
    """What the file's maker says of it."""


def export(place: Place, out: Path, *, chosen: Chosen, note: str, tick: Tick) -> int:
    """Write the chosen answers to a Parquet file, in the order of their keys; return how many.

    The file appears complete or not at all. Raises DataError, OSError.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    about = {"cuvee.ledger": str(SCHEMA_VERSION), "cuvee.note": note}
    schema = _schema().with_metadata(about)
    written = 0
    with (
        opened(place, writing=False) as connection,
        replacing(out) as temporary,
        temporary.open("wb") as file,
        pq.ParquetWriter(file, schema, compression="zstd", compression_level=ZSTD_LEVEL) as writer,
    ):
        for group in _grouped(_chosen_rows(connection, chosen)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            written += len(group)
            tick(len(group))
    return written


def import_answers(place: Place, file: Path, *, tick: Tick) -> Imported:
    """Add the answers of a Parquet file to a ledger, which is made if there is none.

    An answer that is there is never overwritten. Rows that are not sound are refused and
    counted. What an answer cost is counted as spent by the account that bought it. Raises
    DataError where the file has other columns or cannot be read, OSError.
    """
    note, batches = _read(file)
    added, held, refused, details = 0, 0, Counter[str](), list[str]()
    with explained(place), contextlib.closing(connect(place)) as connection:
        for first, batch in batches:
            faults = [_fault(row) for row in batch]
            sound = [row for row, fault in zip(batch, faults, strict=True) if fault is None]
            new = commit(connection, functools.partial(_add, rows=sound))
            added, held = added + new, held + len(sound) - new
            for number, fault in enumerate(faults, start=first):
                if fault is not None:
                    refused[fault[0]] += 1
                    details += [f"row {number}: {fault[1]}"] * (len(details) < SHOWN)
            tick(len(batch))
    return Imported(added, held, refused, details, note)


def count_rows(file: Path) -> int:
    """Return how many rows an export has. Raises DataError where it cannot be read."""
    import pyarrow.parquet as pq

    with _as_data_errors(file), pq.ParquetFile(file) as opened_file:
        return int(opened_file.metadata.num_rows)


def _schema(*, nullable: bool = False) -> Any:
    import pyarrow as pa

    return pa.schema(
        pa.field(name, pa.type_for_alias(kind), nullable=nullable or name in UNCOUNTED)
        for name, kind in COLUMNS.items()
    )


def _chosen_rows(connection: Connection, chosen: Chosen) -> Iterator[dict[str, Any]]:
    """Yield the rows one by one: the keys come from the index, no reading stays open."""
    condition, values = chosen.where()
    query = f"SELECT key FROM answers {by_held(connection)} WHERE {condition} ORDER BY key"
    for (key,) in connection.execute(query, values).fetchall():
        # One that was pruned meanwhile is not chosen any more.
        if (answer := find(connection, key)) is not None:
            yield {"key": key} | dataclasses.asdict(answer)


def _grouped(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    characters = 0
    for row in rows:
        group.append(row)
        characters += len(row["request"]) + len(row["response"])
        if len(group) == GROUP_ROWS or characters >= GROUP_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group


def _read(file: Path) -> tuple[str, Iterator[tuple[int, list[dict[str, Any]]]]]:
    """Return an export's note, and its rows in batches, each with the number of its first."""
    import pyarrow.parquet as pq

    with _as_data_errors(file), pq.ParquetFile(file) as opened_file:
        columns = opened_file.schema_arrow
    if missing := [name for name in COLUMNS if name not in columns.names]:
        raise DataError(
            f"{file}: no export of a ledger: it has no column {missing}; "
            "`cuvee ledger export` writes one"
        )
    note = (columns.metadata or {}).get(b"cuvee.note", b"").decode("utf-8", "replace")
    return note, _batches(file)


def _batches(file: Path) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    first, schema = 0, _schema(nullable=True)
    with _as_data_errors(file), pq.ParquetFile(file) as opened_file:
        for batch in opened_file.iter_batches(batch_size=BATCH_ROWS, columns=list(COLUMNS)):
            table = pa.Table.from_batches([batch]).select(list(COLUMNS)).cast(schema)
            yield first, table.to_pylist()
            first += batch.num_rows


@contextlib.contextmanager
def _as_data_errors(file: Path) -> Iterator[None]:
    """Turn pyarrow's errors of a file into DataError; a row's text may be no UTF-8."""
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file") from error
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not a readable export of a ledger: {error}") from error


def _fault(row: dict[str, Any]) -> tuple[str, str] | None:
    """Return what is wrong with a row (the kind, and a sentence), or None."""
    empty = [name for name in COLUMNS if row[name] is None and name not in UNCOUNTED]
    if empty:
        return "value", f"nothing in column {', '.join(empty)}"
    if not TIME.fullmatch(row["created"]):
        return "value", f"created {row['created']!r} is no time like 2026-01-31T12:00:00Z"
    if not 0 <= row["seconds"] < math.inf:
        return "value", f"seconds {row['seconds']} out of range"
    try:
        _cost(row)
    except ValueError as error:
        return "value", str(error)
    return fault_of(row["key"], row["request"], row["response"])


def _cost(row: dict[str, Any]) -> Cost | None:
    """Return what an answer cost. Raises ValueError out of range, or where a part is missing."""
    given = [row[name] for name in UNCOUNTED if row[name] is not None]
    if not given:
        return None
    if len(given) < len(UNCOUNTED):
        raise ValueError(f"of {', '.join(UNCOUNTED)} all are given, or none")
    return accounts.check_cost(Cost(*given))


def _add(connection: Connection, rows: list[dict[str, Any]]) -> int:
    """Store the rows whose keys have no answer yet; return how many."""
    added, totals = 0, accounts.Totals(connection)
    for row in rows:
        values = {name: row[name] for name in COLUMNS if name != "key"}
        if insert(connection, row["key"], Answer(**values)):
            accounts.charge(totals, Payer(row["account"], row["teacher"]), _cost(row))
            added += 1
    totals.save()
    return added
