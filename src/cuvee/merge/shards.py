"""Writes tensors to safetensors files one after another, without holding a shard in memory.

The header is known before the weights, so a file is a header and then each tensor's bytes as
it comes. Files are laid out and named as transformers names them: one `model.safetensors`,
or `model-00001-of-0000N.safetensors` with `model.safetensors.index.json`.
"""

import dataclasses
import json
import os
import struct
from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path

import torch

DTYPES = {
    "float32": ("F32", torch.float32),
    "float16": ("F16", torch.float16),
    "bfloat16": ("BF16", torch.bfloat16),
}
"""Name in a recipe and config -> name in safetensors, torch's dtype."""

SHARD_BYTES = 5_000_000_000
"""A shard is closed before it would grow over this; a larger tensor is a shard of its own."""


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file to be written: its name and its tensors (name, shape) in order."""

    file: str
    tensors: tuple[tuple[str, tuple[int, ...]], ...]


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


def write_shard(folder: Path, shard: Shard, tensors: Iterable[torch.Tensor], dtype: str) -> None:
    """Write a shard's file; `tensors` come in the shard's order, in torch's `dtype`.

    `dtype`: a key of `DTYPES`. The file is synced. Raises OSError (disk full) with its path,
    ValueError where a tensor is not as planned.
    """
    name_in_file, torch_dtype = DTYPES[dtype]
    path = folder / shard.file
    try:
        with path.open("wb") as file:
            file.write(_header(shard, name_in_file, torch_dtype.itemsize))
            for (name, shape), tensor in zip(shard.tensors, tensors, strict=True):
                if tuple(tensor.shape) != shape or tensor.dtype != torch_dtype:
                    planned = f"{shape} {torch_dtype}"
                    raise ValueError(f"{name}: {planned} planned, {tensor.shape} {tensor.dtype}")
                file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def index_json(shards: Sequence[Shard], *, itemsize: int) -> str:
    """Return the text of `model.safetensors.index.json` as transformers writes it."""
    places = {name: shard.file for shard in shards for name, _ in shard.tensors}
    parameters = sum(prod(shape) for shard in shards for _, shape in shard.tensors)
    metadata = {"total_parameters": parameters, "total_size": parameters * itemsize}
    return json.dumps({"metadata": metadata, "weight_map": places}, indent=2, sort_keys=True) + "\n"


def _header(shard: Shard, dtype: str, itemsize: int) -> bytes:
    """Return a file's first bytes: the header's length (u64, little endian) and the header."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, shape in shard.tensors:
        end = begin + prod(shape) * itemsize
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begin at a multiple of 8
    return struct.pack("<Q", len(text)) + text
