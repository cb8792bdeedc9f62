"""A checkpoint's headers: names, shapes, dtypes and places of its tensors, without its weights.

Reads a Hugging Face folder: `config.json` and `model.safetensors`, or shards with
`model.safetensors.index.json`. A safetensors file begins with the length of its header (u64,
little endian) and the header as JSON; the offsets in it count from the header's end. Not here:
reading weights (`cuvee.merge.inputs.reader`), what must agree between checkpoints
(`cuvee.merge.inputs.agreement`).
"""

import dataclasses
import json
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from cuvee.errors import MergeError

ITEMSIZE = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
    "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "U32": 4, "U64": 8,
}  # fmt: skip
"""Bytes an element of the dtypes whose size is checked."""
LONGEST_HEADER = 100_000_000
"""What the format's own library takes at most."""


@dataclasses.dataclass(frozen=True)
class TensorHeader:
    """What a safetensors file says of one tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """As safetensors names it: `F64`, `F32`, `F16`, `BF16`, ..."""
    file: Path
    begin: int
    """First byte in the file."""
    end: int
    """Byte after the last."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A folder with its config and the headers of its tensors, by name."""

    path: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorHeader]


def read_headers(path: Path) -> Checkpoint:
    """Return the config and tensor headers of a checkpoint folder; reads no weights.

    Raises MergeError for a folder, config, index or safetensors file that is missing or
    damaged, for an index that names a tensor its file does not hold, and for no tensor at all.
    """
    config = read_json(path / "config.json")
    single, index = path / "model.safetensors", path / "model.safetensors.index.json"
    if single.exists():
        return Checkpoint(path, config, _some(file_headers(single), path))
    if not index.exists():
        raise MergeError(f"{path}: neither {single.name} nor {index.name}; merging needs one")
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise MergeError(f"{index}: no weight_map")
    tensors: dict[str, TensorHeader] = {}
    for file in sorted(set(places.values())):
        if Path(file).name != file:
            raise MergeError(f"{index}: {file!r} is no name of a file in this folder")
        found = file_headers(path / file)
        wanted = {name for name, place in places.items() if place == file}
        if absent := sorted(wanted - set(found)):
            raise MergeError(f"{path / file}: lacks tensors its index names: {', '.join(absent)}")
        tensors |= {name: found[name] for name in wanted}
    return Checkpoint(path, config, _some(tensors, path))


def _some(tensors: dict[str, TensorHeader], path: Path) -> dict[str, TensorHeader]:
    if not tensors:
        raise MergeError(f"{path}: its files hold no tensor; there is nothing to merge")
    return tensors


def file_headers(file: Path) -> dict[str, TensorHeader]:
    """Return the headers of one safetensors file, by name; raises MergeError for a damaged one."""
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            if length > min(size - 8, LONGEST_HEADER):
                raise MergeError(f"{file}: not a readable safetensors file: cut short or no header")
            entries = json.loads(opened.read(length))
        return {
            name: _header(name, entry, file, 8 + length, size)
            for name, entry in entries.items()
            if name != "__metadata__"
        }
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MergeError(f"{file}: not a readable safetensors file: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON file that holds an object; raises MergeError where it does not."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MergeError(f"{path}: cannot read: {error}") from error
    if not isinstance(data, dict):
        raise MergeError(f"{path}: holds no JSON object")
    return data


def _header(name: str, entry: Mapping[str, Any], file: Path, data: int, size: int) -> TensorHeader:
    """Return one tensor's header; MergeError where its bytes are not as many or not there."""
    shape, dtype = tuple(int(n) for n in entry["shape"]), str(entry["dtype"])
    begin, end = (data + int(offset) for offset in entry["data_offsets"])
    itemsize = ITEMSIZE.get(dtype)
    if itemsize is not None and end - begin != prod(shape) * itemsize:
        raise MergeError(f"{file}: tensor {name}: {end - begin} bytes for {shape} of {dtype}")
    if not data <= begin <= end <= size:
        raise MergeError(f"{file}: tensor {name} lies outside the file; it was cut short")
    return TensorHeader(name, shape, dtype, file, begin, end)
