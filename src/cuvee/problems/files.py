"""Rows of a data file or hub data set, as dictionaries, one by one.

In: a path to `.jsonl`, `.jsonl.gz`, `.json` (a list of objects, or an object that holds one),
`.parquet` or `.csv`, or a hub id. Out: (place, row), where `place` names the file
and row for errors. Not here: what the columns mean (`cuvee.problems.sources`).
"""

import contextlib
import csv
import gzip
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from cuvee.errors import DataError, RecipeError
from cuvee.recipe import Source

Row = dict[str, Any]
PlacedRow = tuple[str, Row]

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".parquet", ".csv")

LONGEST_LINE = 1 << 28
"""Bytes of one line of a text file; a longer one is no row of a data set."""


def is_file(source: str) -> bool:
    """Return whether a source is a data file by its name."""
    return source.lower().endswith(SUFFIXES)


def local_path(source: str) -> Path:
    """Return the path of a source that is a file; `~` is the home folder."""
    return Path(source).expanduser()


def read_file(path: Path) -> Iterator[PlacedRow]:
    """Yield the rows of a data file by its suffix.

    Raises DataError naming the file, and the line or row where there is one: a missing or
    unreadable file, text that is not UTF-8, JSON that does not parse or is not an object.
    """
    for place, row in read_each(path):
        if isinstance(row, DataError):
            raise row
        yield place, row


def read_each(path: Path) -> Iterator[tuple[str, Row | DataError]]:
    """Yield as `read_file` does, but for a broken line of JSONL its error, and go on after it.

    Raises DataError for what leaves no line to go on with.
    """
    readers = {".json": _json, ".parquet": _parquet, ".csv": _csv}
    with _explained(path):
        yield from _jsonl(path) if _is_jsonl(path) else readers[path.suffix.lower()](path)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what reading a file raises into DataError with its name."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, EOFError, zlib.error) as error:  # the last two: a cut or damaged .gz
        reason = error.strerror if isinstance(error, OSError) else None
        raise DataError(f"{path}: cannot be read: {reason or error}") from error


def count_rows(path: Path) -> int:
    """Return how many rows a data file has, without parsing JSONL or Parquet.

    Raises DataError as `read_file` does.
    """
    if path.suffix.lower() == ".parquet":
        return _parquet_rows(path)
    if not _is_jsonl(path):
        return sum(1 for _ in read_file(path))
    with _explained(path), _opened(path) as file:
        return sum(1 for line in file if not line.isspace())


def read_hub(source: Source, *, streaming: bool) -> Iterator[PlacedRow]:
    """Yield the rows of a hub data set (or of a local folder in that layout).

    `streaming` reads no further than the caller iterates; otherwise the whole split is
    downloaded and kept in the cache of `datasets`. Raises DataError with what the hub said.
    """
    import datasets  # 1.7 s to import, and needed for hub ids alone

    where = f"{source.source} (config {source.config or 'default'}, split {source.split})"
    try:
        rows = datasets.load_dataset(
            source.source,
            source.config,
            split=source.split,
            revision=source.revision,
            streaming=streaming,
        )
        for number, row in enumerate(rows, start=1):
            yield f"{where}, row {number}", row
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{where}: cannot be loaded: {error}. Check the id, config, split and network, "
            "or give a local .parquet, .jsonl, .json or .csv file"
        ) from error


def _is_jsonl(path: Path) -> bool:
    return path.name.lower().endswith((".jsonl", ".jsonl.gz"))


def _opened(path: Path) -> gzip.GzipFile | IO[bytes]:
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


def _raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    r"""Yield numbered lines; only `\n` ends a line, as JSONL has it."""
    with _opened(path) as file:
        for number, raw in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
            if len(raw) == LONGEST_LINE:
                raise DataError(f"{path}, line {number}: longer than {LONGEST_LINE} bytes")
            yield number, raw


def _decoded(path: Path, number: int, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, line {number}: not UTF-8 (byte {error.start} of the line: "
            f"{error.reason}); convert the file to UTF-8"
        ) from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    for number, raw in _raw_lines(path):
        yield number, _decoded(path, number, raw)


def _jsonl(path: Path) -> Iterator[tuple[str, Row | DataError]]:
    for number, raw in _raw_lines(path):
        if not raw.isspace():
            yield f"{path}, line {number}", _parsed(path, number, raw)


def _parsed(path: Path, number: int, raw: bytes) -> Row | DataError:
    """Return the row of a line of JSONL, or what is wrong with it."""
    place = f"{path}, line {number}"
    try:
        return _mapping(json.loads(_decoded(path, number, raw)), place)
    except DataError as error:
        return error
    except (ValueError, RecursionError) as error:  # ValueError: a number of 5,000 digits too
        return DataError(f"{place}: not JSON: {error}")


def _json(path: Path) -> Iterator[PlacedRow]:
    text = "".join(line for _, line in _lines(path))
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    if isinstance(data, dict):
        lists = [name for name, value in data.items() if isinstance(value, list)]
        if len(lists) != 1:
            raise DataError(
                f"{path}: wanted a list of objects, or an object that holds one list; "
                f"this object holds lists under {lists}"
            )
        data = data[lists[0]]
    if not isinstance(data, list):
        raise DataError(f"{path}: wanted a list of objects, got {type(data).__name__}")
    for number, row in enumerate(data, start=1):
        place = f"{path}, row {number}"
        yield place, _mapping(row, place)


def _csv(path: Path) -> Iterator[PlacedRow]:
    csv.field_size_limit(sys.maxsize)  # the default of 128 KB is less than a long solution
    reader = csv.DictReader((line for _, line in _lines(path)), strict=True)
    try:
        for row in reader:
            place = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                columns = len(reader.fieldnames or ())
                raise DataError(f"{place}: not the {columns} columns of the first line")
            yield place, dict(row)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV: {error}") from error


def _parquet(path: Path) -> Iterator[PlacedRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}") from error


def _parquet_rows(path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with _explained(path):
            return int(pq.read_metadata(path).num_rows)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}") from error


def _mapping(row: Any, place: str) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{place}: a row is a JSON object, this is {type(row).__name__}")
    return row


def require_known(source: str) -> None:
    """Refuse a source that is no file, hub id or folder. Raises RecipeError."""
    if source.startswith(("http://", "https://")) or "/" not in source:
        raise RecipeError(
            f"source {source!r}: wanted a path ending in {', '.join(SUFFIXES)}, a hub id "
            "(owner/name), generator:NAME or gym:NAME"
        )
