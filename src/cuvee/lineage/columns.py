"""Parquet files by column: single rows, values and counts, without reading the rest.

In: files written by `cuvee.records.write_rows`, of any size. Out: values of a column, the rows
that have a value, counts by columns. A run may hold a million traces of many thousand
characters each: what is looked for is found by its id column alone, and texts are decoded only
of the row groups that hold it, up to the row itself. A column that a file lacks because an older
version wrote it is read as its default. Not here: which files a run has (`cuvee.lineage.shelves`).
"""

import dataclasses
import itertools
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cuvee.errors import DataError
from cuvee.records import Row

BATCH = 128
"""Rows decoded at once: few, because a single one is wanted of a row group."""


def values(path: Path, column: str) -> Any:
    """Return a column as a pyarrow `ChunkedArray`. Raises DataError naming file and column."""
    return table(path, [column]).column(column)


def table(path: Path, columns: Sequence[str]) -> Any:
    """Return some columns as a pyarrow `Table`. Raises DataError naming file and columns."""
    with _opened(path) as file:
        _require(path, file, columns)
        return file.read(columns=list(columns))


def count_rows(path: Path) -> int:
    """Return how many rows a file has, by its footer. Raises DataError naming the file."""
    with _opened(path) as file:
        return int(file.metadata.num_rows)


def matching(
    path: Path, columns: Sequence[str], *, column: str, wanted: Collection[str]
) -> list[dict[str, Any]]:
    """Return some columns (`column` among them) of the rows whose `column` is in `wanted`.

    Raises DataError naming file and columns.
    """
    found = table(path, columns)
    kept: list[dict[str, Any]] = found.filter(_among(found.column(column), wanted)).to_pylist()
    return kept


def find(path: Path, column: str, wanted: Collection[str]) -> list[int]:
    """Return the numbers of the rows whose `column` is one of `wanted`, ascending.

    Raises DataError naming file and column.
    """
    import numpy as np

    hits = _among(values(path, column), wanted)
    return [int(number) for number in np.flatnonzero(hits.to_numpy())]


def _among(column: Any, wanted: Collection[str]) -> Any:
    """Return for each value of a column of strings whether it is one of `wanted`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.is_in(column, value_set=pa.array(sorted(wanted), type=pa.string()))


def rows(path: Path, row_type: type[Row], *, column: str, wanted: Collection[str]) -> list[Row]:
    """Return the rows whose `column` is one of `wanted`, in the file's order.

    Raises DataError naming the file, and the columns it lacks that have no default.
    """
    fields = dataclasses.fields(row_type)
    without_default = [f.name for f in fields if f.default is dataclasses.MISSING]
    numbers = find(path, column, wanted)
    with _opened(path) as file:
        _require(path, file, without_default)
        present = [f.name for f in fields if f.name in file.schema_arrow.names]
        return [row_type(**found) for found in _at(file, numbers, present)]


def rows_there(
    path: Path | None, row_type: type[Row], *, column: str, wanted: Collection[str]
) -> list[Row]:
    """Return what `rows` does of a file that may not be there yet: then none."""
    if path is None or not wanted or not path.exists():
        return []
    return rows(path, row_type, column=column, wanted=wanted)


def _at(file: Any, numbers: Sequence[int], columns: list[str]) -> Iterator[dict[str, Any]]:
    """Yield rows by their ascending numbers; of a row group only up to the last one wanted."""
    sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    starts = list(itertools.accumulate(sizes, initial=0))
    for group, members in itertools.groupby(numbers, key=lambda n: bisect_right(starts, n) - 1):
        left = [number - starts[group] for number in members]
        begin = 0
        for batch in file.iter_batches(batch_size=BATCH, row_groups=[group], columns=columns):
            end = begin + len(batch)
            here = [number - begin for number in left if begin <= number < end]
            if here:
                yield from batch.take(here).to_pylist()
            begin = end
            if left[-1] < end:
                break


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a Parquet file, turning its errors into ours."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            yield file
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}") from error


def _require(path: Path, file: Any, columns: Sequence[str]) -> None:
    names = file.schema_arrow.names
    if missing := sorted(set(columns) - set(names)):
        raise DataError(f"{path}: no column {missing}; it has {names}")
