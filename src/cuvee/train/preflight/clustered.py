"""The preflight's batches on a Ray cluster: tokenised and checked as here, in the same order.

Lists of `Example` in, `Checked` out. The tokenizer goes to each worker process once. Not here:
opening a cluster (`cuvee.workers`), and what stays in the driver: reading, counting, writing.
"""

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from cuvee.errors import TrainError
from cuvee.records import Example
from cuvee.train.preflight.batches import Checked, Reader, check_batch
from cuvee.workers.chunks import map_chunks
from cuvee.workers.cluster import require_ray


def check_on_ray(batches: Iterable[list[Example]], reader: Reader) -> Iterator[Checked]:
    """Check batches on the cluster that this process is connected to.

    Each is one chunk. Raises as `check_here` does, and TrainError where a batch lost every
    worker it was given to: rows that nobody could check are not trained on, nor left out
    without a word.
    """
    work = functools.partial(_check, reader=require_ray().put(reader))
    chunks = ([batch] for batch in batches)
    return map_chunks(chunks, work, given_up=_refuse, tick=_uncounted)


def _check(batches: Sequence[list[Example]], *, reader: Any) -> list[Checked]:
    """In a worker: check some batches; `reader` is a reference to the reader."""
    return [check_batch(batch, _reader(reader)) for batch in batches]


@functools.lru_cache(maxsize=1)
def _reader(reference: Any) -> Reader:
    """In a worker: return the reader, fetched once a process."""
    # A worker has one CPU: the tokenizer must not take those of the others.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    reader: Reader = require_ray().get(reference)
    return reader


def _refuse(batch: list[Example], why: str) -> Checked:
    raise TrainError(
        f"preflight: the {len(batch)} examples from {batch[0].id} to {batch[-1].id} lost every "
        f"worker they were given to ({why}); look at the nodes, or check them with workers: pool"
    )


def _uncounted(_: int) -> None:
    """Tick nothing: the preflight shows no bar."""
