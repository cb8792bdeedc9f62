"""Rows put aside on disk while others are written, and read again afterwards.

A task of this room makes three files at once, of problems, of dropped rows and of published
traces; `write_rows` writes one at a time, from an iterator. What comes beside it waits here,
in a gzipped JSON line each. The files are scratch: no other room reads them.
"""

import contextlib
import dataclasses
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from cuvee.records import Dropped, Trace

Spooled = TypeVar("Spooled", Dropped, Trace)


@contextlib.contextmanager
def putting(path: Path, row_type: type[Spooled]) -> Iterator[Callable[[Spooled], None]]:
    """Yield what puts a row of `row_type` aside in a new file. Raises OSError (disk full)."""
    names = [field.name for field in dataclasses.fields(row_type)]
    with gzip.open(path, "wt", compresslevel=1, encoding="ascii") as file:

        def put(row: Spooled) -> None:
            file.write(json.dumps([getattr(row, name) for name in names]) + "\n")

        yield put


def taken(path: Path, row_type: type[Spooled]) -> Iterator[Spooled]:
    """Yield the rows of a file that `putting` wrote, in order."""
    with gzip.open(path, "rt", encoding="ascii") as file:
        for line in file:
            yield row_type(*json.loads(line))
