"""A checkpoint's headers: the names, shapes and dtypes of its tensors, without its weights.

Reads a Hugging Face folder: `config.json` and `model.safetensors`, or shards with
`model.safetensors.index.json`; and single tensors of it. Not here: what must agree between
checkpoints (`cuvee.merge.agreement`).
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from cuvee.errors import MergeError


@dataclasses.dataclass(frozen=True)
class TensorHeader:
    """What a safetensors file says of one tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """As safetensors names it: `F64`, `F32`, `F16`, `BF16`, ..."""
    file: Path


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A folder with its config and the headers of its tensors, by name."""

    path: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorHeader]


def read_headers(path: Path) -> Checkpoint:
    """Return the config and tensor headers of a checkpoint folder; reads no weights.

    Raises MergeError for a folder, config, index or safetensors file that is missing or
    damaged, and for an index that names a tensor its file does not hold.
    """
    config = read_json(path / "config.json")
    single, index = path / "model.safetensors", path / "model.safetensors.index.json"
    if single.exists():
        return Checkpoint(path, config, _file_headers(single))
    if not index.exists():
        raise MergeError(f"{path}: neither {single.name} nor {index.name}; merging needs one")
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise MergeError(f"{index}: no weight_map")
    tensors: dict[str, TensorHeader] = {}
    for file in sorted(set(places.values())):
        found = _file_headers(path / file)
        wanted = {name for name, place in places.items() if place == file}
        if absent := sorted(wanted - set(found)):
            raise MergeError(f"{path / file}: lacks tensors its index names: {', '.join(absent)}")
        tensors |= {name: found[name] for name in wanted}
    return Checkpoint(path, config, tensors)


def read_tensor(checkpoint: Checkpoint, name: str) -> torch.Tensor:
    """Return one tensor of a checkpoint, in its own shape and dtype.

    Raises MergeError for a file that cannot be read, and for NaN or infinite values.
    """
    file = checkpoint.tensors[name].file
    try:
        with safe_open(file, framework="pt") as opened:
            tensor: torch.Tensor = opened.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise MergeError(f"{file}: cannot read tensor {name}: {error}") from error
    bad = int(torch.count_nonzero(~torch.isfinite(tensor)))
    if bad:
        raise MergeError(
            f"{file}: tensor {name} holds {bad} NaN or infinite values of {tensor.numel()}; "
            "its training went wrong: train that specialist again"
        )
    return tensor


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON file that holds an object; raises MergeError where it does not."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MergeError(f"{path}: cannot read: {error}") from error
    if not isinstance(data, dict):
        raise MergeError(f"{path}: holds no JSON object")
    return data


def _file_headers(file: Path) -> dict[str, TensorHeader]:
    try:
        with safe_open(file, framework="pt") as opened:
            names = list(opened.keys())
            slices = {name: opened.get_slice(name) for name in names}
            return {
                name: TensorHeader(name, tuple(part.get_shape()), part.get_dtype(), file)
                for name, part in slices.items()
            }
    except (OSError, SafetensorError) as error:
        raise MergeError(f"{file}: not a readable safetensors file: {error}") from error
