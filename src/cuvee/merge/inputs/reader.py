"""Reads rows of tensors from checkpoints as float32: what stands between files and blocks.

Files are mapped, so that weights go from the page cache straight into the kernel that widens
them. Mapped pages count as the process's memory: what was read is given back at once in large
tensors and after each tensor in small ones. What a later pass needs is read again, from the
page cache as a rule. A file that is cut short while it is read ends the process with a bus
error; the merge then goes on where it was.
"""

import dataclasses
import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from cuvee.errors import MergeError
from cuvee.merge.inputs.headers import ITEMSIZE, Checkpoint, TensorHeader
from cuvee.merge.inputs.lora import Adapter, LowRank, add_low_rank
from cuvee.merge.kernels import KINDS, Array, widen_all

Bytes = NDArray[np.uint8]

WINDOW_BYTES = 64_000_000
"""A tensor that is larger is given back to the system block by block."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A model's tensors with its files mapped."""

    checkpoint: Checkpoint
    adapter: Adapter | None
    files: Mapping[Path, mmap.mmap]

    def header(self, name: str) -> TensorHeader:
        """Return where a tensor is: in the checkpoint, or in an adapter that replaces it."""
        replaced = self.adapter.replaced if self.adapter else {}
        return replaced.get(name) or self.checkpoint.tensors[name]


@dataclasses.dataclass(frozen=True)
class Tensors:
    """One tensor as several sources hold it, [n] times [rows, d]."""

    headers: tuple[TensorHeader, ...]
    files: tuple[mmap.mmap, ...]
    raw: tuple[Bytes, ...]
    """All bytes of the tensor, mapped."""
    kinds: NDArray[np.int64]
    low_rank: tuple[LowRank | None, ...]
    row_bytes: tuple[int, ...]
    allow_nonfinite: bool
    """True: NaN and infinite values are read as 0; False: they raise."""


def open_sources(models: Sequence[tuple[Checkpoint, Adapter | None]]) -> list[Source]:
    """Map the files of every model for reading, until nothing refers to them any more."""
    opened = []
    for checkpoint, adapter in models:
        headers = [*checkpoint.tensors.values(), *(adapter.replaced if adapter else {}).values()]
        files = {file: _map(file) for file in {header.file for header in headers}}
        opened.append(Source(checkpoint, adapter, files))
    return opened


def open_tensors(
    sources: Sequence[Source], name: str, *, d: int, allow_nonfinite: bool = False
) -> Tensors:
    """Return a tensor of the given sources, with rows of `d` elements, ready to be read."""
    headers = tuple(source.header(name) for source in sources)
    files = tuple(source.files[h.file] for source, h in zip(sources, headers, strict=True))
    return Tensors(
        headers=headers,
        files=files,
        raw=tuple(
            np.frombuffer(file, np.uint8, h.end - h.begin, h.begin)
            for file, h in zip(files, headers, strict=True)
        ),
        kinds=np.array([KINDS[header.dtype] for header in headers], np.int64),
        low_rank=tuple(s.adapter.low_rank.get(name) if s.adapter else None for s in sources),
        row_bytes=tuple(d * ITEMSIZE[header.dtype] for header in headers),
        allow_nonfinite=allow_nonfinite,
    )


def read_rows(tensors: Tensors, begin: int, end: int, out: Array) -> list[int]:
    """Fill `out` [n, rows, d] with rows `begin` to `end` (not included) of every source.

    Returns how many values of each source were not finite (read as 0). Raises MergeError for
    such values unless they are allowed.
    """
    parts = raw_rows(tensors, begin, end)
    bad = widen_all(parts, tensors.kinds, out.reshape(len(parts), -1))
    counts = _counts_of_bad(tensors, out) if bad else [0] * len(parts)
    for low, values in zip(tensors.low_rank, out, strict=True):
        if low is not None:
            add_low_rank(values, low, begin, end)
    release_rows(tensors, begin, end)
    return counts


def raw_rows(tensors: Tensors, begin: int, end: int) -> tuple[Bytes, ...]:
    """Return the bytes of rows `begin` to `end` (not included) of every source, mapped."""
    return tuple(
        raw[begin * size : end * size]
        for raw, size in zip(tensors.raw, tensors.row_bytes, strict=True)
    )


def hashes(tensors: Tensors, begin: int, end: int) -> list[int]:
    """Return the 64-bit xxh3 of those rows' bytes in every source."""
    return [xxhash.xxh3_64_intdigest(part.data) for part in raw_rows(tensors, begin, end)]


def release_rows(tensors: Tensors, begin: int, end: int) -> None:
    """Give the pages of those rows back to the system, where the tensor is a large one."""
    for file, header, size in zip(tensors.files, tensors.headers, tensors.row_bytes, strict=True):
        if header.end - header.begin > WINDOW_BYTES:
            release(file, header.begin + begin * size, header.begin + end * size)


def release_all(tensors: Tensors) -> None:
    """Give the tensor's pages back to the system; they are read again where they are needed."""
    for file, header in zip(tensors.files, tensors.headers, strict=True):
        release(file, header.begin, header.end)


def release(file: mmap.mmap, begin: int, end: int) -> None:
    """Give pages that lie within bytes `begin` to `end` of a mapped file back to the system."""
    first = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
    length = end - first
    if length > 0 and hasattr(mmap, "MADV_DONTNEED"):
        file.madvise(mmap.MADV_DONTNEED, first, length)


def _map(file: Path) -> mmap.mmap:
    with file.open("rb") as opened:
        return mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ)


def _counts_of_bad(tensors: Tensors, out: Array) -> list[int]:
    """Raise for values that are not finite, or set them to 0 and count them by source."""
    found = [int(np.count_nonzero(~np.isfinite(values))) for values in out]
    if not tensors.allow_nonfinite:
        where = [f"{h.file} ({n})" for h, n in zip(tensors.headers, found, strict=True) if n]
        raise MergeError(
            f"tensor {tensors.headers[0].name} holds NaN or infinite values in {', '.join(where)} "
            "in one block; that training went wrong: train it again, or read them as 0 with "
            "--allow-nonfinite (`allow_nonfinite: true`)"
        )
    np.nan_to_num(out, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    return found
