"""Reads rows of tensors from checkpoints as float32: what stands between files and blocks.

Weights are read with `pread` into buffers that each thread keeps, not mapped: a page that is
mapped counts as the process's memory, and a file cut short would kill it. What a pass needs
again it reads again, from the page cache as a rule.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from cuvee.errors import MergeError
from cuvee.merge.headers import ITEMSIZE, Checkpoint, TensorHeader
from cuvee.merge.kernels import Array, count_not_finite, widen_bf16, widen_f16
from cuvee.merge.lora import Adapter, add_low_rank
from cuvee.merge.threads import scratch


@dataclasses.dataclass(frozen=True)
class Source:
    """A model's tensors with its files open."""

    checkpoint: Checkpoint
    adapter: Adapter | None
    files: Mapping[Path, int]
    """File -> descriptor."""
    allow_nonfinite: bool
    """True: NaN and infinite values are read as 0 and counted; False: they raise."""

    def header(self, name: str) -> TensorHeader:
        """Return where a tensor is: in the checkpoint, or in an adapter that replaces it."""
        replaced = self.adapter.replaced if self.adapter else {}
        return replaced.get(name) or self.checkpoint.tensors[name]


@contextmanager
def open_sources(
    models: Sequence[tuple[Checkpoint, Adapter | None]], *, allow_nonfinite: bool
) -> Iterator[list[Source]]:
    """Open the files of every model for reading; they are closed on leaving."""
    with ExitStack() as closing:
        opened = []
        for checkpoint, adapter in models:
            headers = [
                *checkpoint.tensors.values(),
                *(adapter.replaced if adapter else {}).values(),
            ]
            files: dict[Path, int] = {}
            for file in {header.file for header in headers}:
                files[file] = os.open(file, os.O_RDONLY)
                closing.callback(os.close, files[file])
            opened.append(Source(checkpoint, adapter, files, allow_nonfinite))
        yield opened


def read_rows(source: Source, name: str, *, begin: int, out: Array) -> tuple[int, int]:
    """Fill `out` [rows, d] with a tensor's rows from `begin` on.

    Returns how many values were not finite (read as 0), and the 64-bit xxh3 of the bytes read.
    Raises MergeError for such values unless they are allowed, for a file cut short, and
    OSError where reading fails.
    """
    header = source.header(name)
    itemsize, flat = ITEMSIZE[header.dtype], out.reshape(-1)
    offset = header.begin + begin * out.shape[1] * itemsize
    words = -(-flat.size * itemsize // 4)
    raw = scratch("raw", (words,)).view(np.uint8)[: flat.size * itemsize]
    _pread(source.files[header.file], raw, offset, header)
    bad = _widen(raw, header.dtype, flat)
    if bad:
        _refuse_or_clear(source, header, flat, bad)
    low = source.adapter.low_rank.get(name) if source.adapter else None
    if low is not None:
        add_low_rank(out, low, begin, begin + out.shape[0])
    return bad, xxhash.xxh3_64_intdigest(raw)


def _pread(file: int, raw: NDArray[np.uint8], offset: int, header: TensorHeader) -> None:
    done, view = 0, memoryview(raw)
    while done < raw.size:
        got = os.preadv(file, [view[done:]], offset + done)
        if not got:
            raise MergeError(f"{header.file}: ends within tensor {header.name}; it was cut short")
        done += got


def _widen(raw: NDArray[np.uint8], dtype: str, out: Array) -> int:
    """Write raw bytes as float32; return how many values are not finite."""
    if dtype == "BF16":
        return int(widen_bf16(raw.view(np.uint16), out))
    if dtype == "F16":
        return int(widen_f16(raw.view(np.uint16), out))
    out[:] = raw.view(np.float64 if dtype == "F64" else np.float32)
    return int(count_not_finite(out))


def _refuse_or_clear(source: Source, header: TensorHeader, values: Array, bad: int) -> None:
    if not source.allow_nonfinite:
        raise MergeError(
            f"{header.file}: tensor {header.name} holds NaN or infinite values ({bad} in one "
            "block); its training went wrong: train it again, or read them as 0 with "
            "--allow-nonfinite"
        )
    values[~np.isfinite(values)] = 0
