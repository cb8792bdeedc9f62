"""The finished specialist on disk: weights in float32, everything else as it was trained.

Tokenizer, chat template and generation settings are the base's, mended where they break
(`cuvee.models.adapted`), so that what was trained is what is served. The weights stay in
float32, for what a small update changed is mostly lost in bfloat16, and a merge asks exactly
for what changed; the merge rounds once, at its end. Not here: training.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedModel

from cuvee.atomic import write_text
from cuvee.errors import TrainError
from cuvee.models.adapted import copy_adapted
from cuvee.models.checkpoint import weight_files


def save_specialist(model: PreTrainedModel, *, base: Path, out: Path) -> dict[str, float]:
    """Write a model as a checkpoint folder; return the shares of its weights that moved.

    Its `config.json` says the dtype that the model has: float32 but for `train.weights: bf16`.

    `moved`: of all weights, in [0, 1], those that differ from the base's. `moved_bfloat16`:
    those that still differ once both are rounded to bfloat16. Raises OSError (disk full).
    """
    model.save_pretrained(out)
    copy_adapted(base, out)  # in place of the library's rewriting of them
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    dtype = str(model.dtype).removeprefix("torch.")
    config.pop("torch_dtype", None)  # the old name of `dtype`
    write_text(out / "config.json", json.dumps(config | {"dtype": dtype}, indent=2) + "\n")
    return moved_shares(base, out)


def moved_shares(base: Path, specialist: Path) -> dict[str, float]:
    """Return the shares `moved` and `moved_bfloat16` of two folders, tensor by tensor.

    Memory: one tensor of each. Raises TrainError where they share no tensor.
    """
    before = _places(base)
    total = moved = moved_bfloat16 = 0
    for name, tensor in _tensors(specialist):
        if name not in before:
            continue
        with safe_open(before[name], framework="pt") as file:
            old = file.get_tensor(name)
        total += tensor.numel()
        moved += int((tensor != old.to(tensor.dtype)).sum())
        moved_bfloat16 += int((tensor.bfloat16() != old.bfloat16()).sum())
    if total == 0:
        raise TrainError(f"{specialist} has no tensor of its base {base}: it cannot be merged")
    return {"moved": moved / total, "moved_bfloat16": moved_bfloat16 / total}


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """Write a mapping as indented JSON, atomically."""
    write_text(file, json.dumps(value, indent=1) + "\n")


def _places(folder: Path) -> dict[str, Path]:
    """Return the file of each tensor of a checkpoint."""
    places: dict[str, Path] = {}
    for file in weight_files(folder):
        with safe_open(file, framework="pt") as tensors:
            places |= dict.fromkeys(tensors.keys(), file)
    return places


def _tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    for file in weight_files(folder):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dict
                yield name, tensors.get_tensor(name)
