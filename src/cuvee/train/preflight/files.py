"""`tokens.parquet`: the rows as they will be trained, written as they come, read by TRL.

Columns: id, input_ids, labels (int32; -100 outside the loss), held_out; the kept rows, in the
order of the examples. Not here: which rows are kept and held out.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from numpy.typing import NDArray

from cuvee.atomic import replacing
from cuvee.errors import DataError
from cuvee.train.preflight.encode import Batch

TOKENS = "tokens.parquet"
ARROW = "arrow"
"""Folder beside it, of the memory-mapped copies that `tokenised` reads."""

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("input_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("labels", pa.list_(pa.int32()), nullable=False),
        pa.field("held_out", pa.bool_(), nullable=False),
    ]
)

Writer = Callable[[Batch, NDArray[np.bool_]], None]


@contextmanager
def writing(out: Path) -> Iterator[Writer]:
    """Yield what adds a batch, and which of its rows are held out, to `out/tokens.parquet`.

    The file appears when the block ends, complete or not at all. Raises OSError.
    """
    with (
        replacing(out / TOKENS) as temporary,
        pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer,
    ):

        def add(batch: Batch, held_out: NDArray[np.bool_]) -> None:
            writer.write_batch(_record(batch, held_out))

        yield add


def tokenised(out: Path, *, held_out: bool) -> Dataset:
    """Return the rows of one side as TRL takes them: `input_ids` and `labels`, memory-mapped.

    In the order of the file. Raises DataError where the preflight has not written it.
    """
    return Dataset.from_parquet(
        str(_existing(out)),
        cache_dir=str(out / ARROW),
        columns=["input_ids", "labels"],
        filters=[("held_out", "==", held_out)],
    )


def row_ids(out: Path, *, held_out: bool) -> list[str]:
    """Return the examples' ids of the rows of `tokenised`, in the same order."""
    table: Any = pq.read_table(
        _existing(out), columns=["id"], filters=[("held_out", "==", held_out)]
    )
    ids: list[str] = table["id"].to_pylist()
    return ids


def _existing(out: Path) -> Path:
    file = out / TOKENS
    if not file.is_file():
        raise DataError(f"{file}: no such file; the preflight writes it")
    return file


def _record(batch: Batch, held_out: NDArray[np.bool_]) -> Any:
    starts = pa.array(batch.starts, type=pa.int32())
    return pa.RecordBatch.from_arrays(
        [
            pa.array([example.id for example in batch.examples], type=pa.string()),
            pa.ListArray.from_arrays(starts, batch.ids),
            pa.ListArray.from_arrays(starts, batch.labels),
            pa.array(held_out),
        ],
        schema=SCHEMA,
    )
