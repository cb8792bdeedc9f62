"""SQL over a run's Parquet files, by DuckDB: nothing is loaded whole, nothing outside is read.

Shelves in, rows as dictionaries out. The SQL is ours and constant; what a user typed, file names
among it, is bound as parameters. The connection may open files of the run's folder alone, loads
no extension and cannot be told otherwise afterwards. Not here: which rows a page wants
(`cuvee.view.listing`).
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from cuvee.errors import DataError
from cuvee.lineage.shelves import Shelf
from cuvee.records import Dropped, Example, Problem, Row, Trace, Verdict, schema

SQL_TYPES = {"string": "VARCHAR", "int64": "BIGINT", "double": "DOUBLE"}
THREADS = 2
MEMORY = "2GB"
"""What a query may hold; ids and numbers of a million rows are a tenth of it."""

_PARAMETER = re.compile(r"\$(\w+)")


@dataclasses.dataclass(frozen=True)
class Database:
    """A connection that reads the Parquet files of one folder."""

    connection: duckdb.DuckDBPyConnection

    def rows(self, sql: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the rows of a query; of `values` those are bound that it names (`$name`).

        May be called from several threads at once. Raises DataError where a file cannot be
        read or lacks a column.
        """
        wanted = {name: values[name] for name in _PARAMETER.findall(sql)}
        try:
            with self.connection.cursor() as cursor:
                found = cursor.execute(sql, wanted)
                names = [column[0] for column in found.description]
                return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        except duckdb.Error as error:
            said = str(error).splitlines()[0]
            raise DataError(f"a file of the run cannot be read: {said}") from error


@contextmanager
def open_database(folder: Path) -> Iterator[Database]:
    """Open a database in memory that may read the files of `folder` and of no other place."""
    off = ("autoinstall_known_extensions", "autoload_known_extensions")
    with duckdb.connect(":memory:", config=dict.fromkeys(off, "false")) as connection:
        connection.execute("SET allowed_directories = $folders", {"folders": [str(folder)]})
        connection.execute(f"SET threads = {THREADS}; SET memory_limit = '{MEMORY}'")
        connection.execute("SET enable_external_access = false; SET lock_configuration = true")
        yield Database(connection)


@dataclasses.dataclass(frozen=True)
class Tables:
    """What stands after FROM for the files of a shelf, and the values to bind."""

    problems: str
    traces: str
    verdicts: str
    examples: str
    dropped: str
    """Traces that `select` left out."""
    lost: str
    """Problems that were left out."""
    values: Mapping[str, list[str]]


def tables(shelf: Shelf) -> Tables:
    """Return the tables of a shelf; a file that is not there yet is a table without rows."""
    files: dict[str, tuple[type[Any], Sequence[Path | None]]] = {
        "problems": (Problem, [shelf.problems]),
        "traces": (Trace, shelf.trace_files),
        "verdicts": (Verdict, shelf.verdict_files),
        "examples": (Example, [shelf.choice]),
        "dropped": (Dropped, [shelf.traces_dropped]),
        "lost": (Dropped, [shelf.problems_dropped]),
    }
    there = {
        name: [str(path) for path in paths if path is not None and path.exists()]
        for name, (_, paths) in files.items()
    }
    sources = {
        name: f"read_parquet($files_{name}, union_by_name = true, file_row_number = true)"
        if there[name]
        else _nothing(row_type)
        for name, (row_type, _) in files.items()
    }
    return Tables(**sources, values={f"files_{name}": found for name, found in there.items()})


def parquet_rows(database: Database, file: Path, *, limit: int) -> list[dict[str, Any]]:
    """Return the first rows of one file with all its columns; none where it is not there."""
    if not file.exists():
        return []
    sql = "SELECT * FROM read_parquet($files) LIMIT $limit"
    return database.rows(sql, {"files": [str(file)], "limit": limit})


def _nothing(row_type: type[Row]) -> str:
    """Return a table with the columns of a row type and no rows."""
    typed = [f"NULL::{SQL_TYPES[str(f.type)]} AS {f.name}" for f in schema(row_type)]
    return f"(SELECT {', '.join(typed)}, NULL::BIGINT AS file_row_number WHERE false)"
