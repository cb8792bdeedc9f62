"""The files a merge writes: which tensors go where, their headers, and rounding to their dtype.

A header is known before the weights, so a file gets its header and its full size first and
every block of weights is then written in its place, in any order and from any thread. Files
are laid out and named as transformers names them: one `model.safetensors`, or
`model-00001-of-0000N.safetensors` with `model.safetensors.index.json`.
"""

import dataclasses
import json
import os
import struct
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cuvee.merge.kernels import Array, Bits, count_not_finite, narrow_bf16, widen_f16
from cuvee.merge.threads import scratch

DTYPES = {"float32": ("F32", 4), "float16": ("F16", 2), "bfloat16": ("BF16", 2)}
"""Name in a recipe and config -> name in safetensors, bytes an element."""

SHARD_BYTES = 5_000_000_000
"""A shard is closed before it would grow over this; a larger tensor is a shard of its own."""


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file to be written: its name and its tensors (name, shape) in order."""

    file: str
    tensors: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def elements(self) -> int:
        """Elements of all its tensors."""
        return sum(prod(shape) for _, shape in self.tensors)


def plan_shards(
    tensors: Sequence[tuple[str, tuple[int, ...]]], *, itemsize: int, shard_bytes: int = SHARD_BYTES
) -> list[Shard]:
    """Return the files that hold `tensors` (name, shape) in order, `itemsize` bytes an element."""
    groups: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    filled = 0
    for name, shape in tensors:
        size = prod(shape) * itemsize
        if groups[-1] and filled + size > shard_bytes:
            groups.append([])
            filled = 0
        groups[-1].append((name, shape))
        filled += size
    count = len(groups)
    names = [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
    files = ["model.safetensors"] if count == 1 else names
    return [Shard(file, tuple(group)) for file, group in zip(files, groups, strict=True)]


def prepare_shard(file: int, shard: Shard, dtype: str) -> dict[str, int]:
    """Write a shard's header to a file descriptor and give the file its size.

    Returns where each tensor's bytes begin. Weights that are there already stay. `dtype`: a
    key of `DTYPES`. Raises OSError (disk full).
    """
    name_in_file, itemsize = DTYPES[dtype]
    header, places = _header(shard, name_in_file, itemsize)
    os.pwrite(file, header, 0)
    os.ftruncate(file, len(header) + shard.elements * itemsize)
    return {name: len(header) + begin for name, begin in places.items()}


def index_json(shards: Sequence[Shard], *, itemsize: int) -> str:
    """Return the text of `model.safetensors.index.json` as transformers writes it."""
    places = {name: shard.file for shard in shards for name, _ in shard.tensors}
    parameters = sum(shard.elements for shard in shards)
    metadata = {"total_parameters": parameters, "total_size": parameters * itemsize}
    return json.dumps({"metadata": metadata, "weight_map": places}, indent=2, sort_keys=True) + "\n"


def rounded(values: Array, dtype: str) -> tuple[NDArray[np.uint8], Array, int]:
    """Return float32 [rows, d] in a dtype of `DTYPES`: its bytes, and its values as float32.

    The third is how many did not fit (NaN, infinite, or beyond the dtype's range). The arrays
    stand until the same thread calls this again.
    """
    if dtype == "float32":
        flat = np.ascontiguousarray(values).reshape(-1)
        return flat.view(np.uint8), values, int(count_not_finite(flat))
    flat = np.ascontiguousarray(values).reshape(-1)
    bits = scratch_bits(flat.size)
    back = scratch("rounded", flat.shape)
    if dtype == "bfloat16":
        bad = narrow_bf16(flat, bits, back)
    else:
        with np.errstate(over="ignore"):  # counted below
            bits.view(np.float16)[:] = flat
        bad = widen_f16(bits, back)
    return bits.view(np.uint8), back.reshape(values.shape), int(bad)


def scratch_bits(size: int) -> Bits:
    """Return an uninitialised array of 16-bit elements that this thread keeps, as `scratch`."""
    return scratch("bits", (-(-size // 2),)).view(np.uint16)[:size]


def write_at(file: int, data: NDArray[np.uint8], offset: int) -> None:
    """Write all bytes at an offset of a file descriptor. Raises OSError (disk full)."""
    done, view = 0, data.data
    while done < data.size:
        done += os.pwrite(file, view[done:], offset + done)


def open_shard(path: Path) -> int:
    """Return a descriptor to read and write a file, which is made where it is not there."""
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)


def _header(shard: Shard, dtype: str, itemsize: int) -> tuple[bytes, Mapping[str, int]]:
    """Return a file's first bytes (the header's length, u64, and the header), and the places."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    places, begin = {}, 0
    for name, shape in shard.tensors:
        end = begin + prod(shape) * itemsize
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
        places[name], begin = begin, end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begin at a multiple of 8
    return struct.pack("<Q", len(text)) + text, places
