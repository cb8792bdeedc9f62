"""Rows of a data file or hub data set, as dictionaries, one by one.

In: a path to `.jsonl`, `.json` (a list of objects, or an object that holds one), `.parquet`
or `.csv`, or a hub id. Out: (place, row), where `place` names the file and row for errors.
Not here: what the columns mean (`cuvee.problems.sources`).
"""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cuvee.errors import DataError, RecipeError
from cuvee.recipe import Source

Row = dict[str, Any]
PlacedRow = tuple[str, Row]

SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")


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
    readers = {".jsonl": _jsonl, ".json": _json, ".parquet": _parquet, ".csv": _csv}
    try:
        yield from readers[path.suffix.lower()](path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


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


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""Yield numbered lines of a UTF-8 file; only `\n` ends a line, as JSONL has it."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}, line {number}: not UTF-8 (byte {error.start} of the line: "
                    f"{error.reason}); convert the file to UTF-8"
                ) from error
            yield number, text


def _jsonl(path: Path) -> Iterator[PlacedRow]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{place}: not JSON: {error}") from error
        yield place, _mapping(row, place)


def _json(path: Path) -> Iterator[PlacedRow]:
    text = "".join(line for _, line in _lines(path))
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from error
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
