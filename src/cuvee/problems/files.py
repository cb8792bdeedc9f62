"""Rows of data files, as dictionaries, one by one.

In: a path to `.jsonl`, `.jsonl.gz`, `.json` (a list of objects, or an object that holds one),
`.parquet` or `.csv`, or a pattern of such paths (shards). Out: (place, row), where `place`
names the file and row for errors. A file is read as a stream, of any size. Not here: hub data
sets and folders (`cuvee.problems.hub`), what the columns mean (`cuvee.problems.forms`).
"""

import contextlib
import csv
import glob
import gzip
import hashlib
import json
import os
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from cuvee.errors import DataError
from cuvee.problems.json_stream import stream

Row = dict[str, Any]
PlacedRow = tuple[str, Row]

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".parquet", ".csv")

BATCH_ROWS = 256
"""Rows of a Parquet file that are held at once; one may hold a megabyte of traces."""

LONGEST_LINE = 1 << 28
"""Bytes of one line of a text file; a longer one is no row of a data set."""


def is_file(source: str) -> bool:
    """Return whether a source is a data file by its name."""
    return source.lower().endswith(SUFFIXES)


def local_paths(source: str) -> tuple[Path, ...]:
    """Return the files of a source that is a path or a pattern (`data/train-*.parquet`).

    Sorted by name; `~` is the home folder and `**` any folders. What matches nothing is
    returned as it is, and is missing for whoever opens it.
    """
    path = Path(source).expanduser()
    fixed = next((p for p in (path, *path.parents) if not glob.has_magic(str(p))), path)
    if path.exists() or fixed == path:
        return (path,)
    found = sorted(fixed.glob(str(path.relative_to(fixed))))
    return tuple(file for file in found if file.is_file()) or (path,)


def folder_of(paths: Sequence[Path]) -> str:
    """Return the innermost folder that holds all of the files, with a `/` at its end."""
    folder = os.path.commonpath([path.parent for path in paths])
    return f"{folder}/" if folder else ""


def read_files(paths: Sequence[Path]) -> Iterator[PlacedRow]:
    """Yield the rows of files one after another; raises as `read_file` does."""
    for path in paths:
        yield from read_file(path)


def fingerprint(paths: Sequence[Path]) -> str:
    """Return `sha256:` and the hash of a file; of several, that of what `sha256sum *` prints.

    Raises DataError for a file that cannot be read.
    """
    hashes = []
    for path in paths:
        with _explained(path), path.open("rb") as file:
            hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
    if len(paths) == 1:
        return f"sha256:{hashes[0]}"
    lines = "".join(f"{h}  {p.name}\n" for h, p in zip(hashes, paths, strict=True))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


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
    with path.open("rb") as file:
        for number, value in enumerate(stream(path, file), start=1):
            place = f"{path}, row {number}"
            yield place, _mapping(value, place)


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
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
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
