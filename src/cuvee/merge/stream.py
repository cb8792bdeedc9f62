"""Merges checkpoint folders into one, tensor by tensor.

Folders in (the specialists, in order), one folder out: weights, config, tokenizer, template,
and `cuvee_merge.json` with what was merged and what the rule did to every tensor. Headers
are read and everything is checked before the first weight is. At any time one tensor of each
specialist is in memory. A killed merge begins again: its shards are not reused yet.
"""

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Literal

import torch

from cuvee.errors import MergeError
from cuvee.merge.agreement import require_agreement
from cuvee.merge.fusion import fuse_chain
from cuvee.merge.headers import Checkpoint, read_headers, read_tensor
from cuvee.merge.record import RECORD, Merged, Statistics, merge_record, summarise
from cuvee.merge.shards import DTYPES, index_json, plan_shards, write_shard
from cuvee.models.checkpoint import identity
from cuvee.progress import Tick, bar, warn
from cuvee.runfolder import remove, write_text

COPIED = (
    "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja",
)  # fmt: skip
"""Files taken as they are from the last anchor, where it has them."""


def merge_checkpoints(
    specialists: Sequence[Path],
    *,
    anchor: Literal["later", "earlier"],
    out: Path,
    out_dtype: Literal["bfloat16", "float16", "float32"],
) -> Merged:
    """Merge checkpoint folders in order by Arcee Fusion into the folder `out`.

    `anchor`: whose weights stay where the rule adopts nothing, at each fusion. More than two
    are fused in a chain, tensor by tensor, without rounding in between; one is copied.
    Weights are rounded once, to `out_dtype`. Config, tokenizer and template are those of the
    last fusion's anchor. `out` must not exist or be empty; it appears complete or not at all
    (written as `.NAME.partial` beside it, with its config last).

    Raises MergeError for checkpoints that do not fit together (all reasons at once), for NaN
    or infinite values (tensor named), for too little free space; OSError where writing fails.
    """
    partial = _partial(out)
    checkpoints = [read_headers(path) for path in specialists]
    if not checkpoints:
        raise MergeError("no specialists: a merge needs at least one checkpoint")
    require_agreement(checkpoints)
    _require_space(checkpoints[0], out.parent, out_dtype)
    sources = [{"name": p.name, "identity": identity(p)} for p in specialists]
    remove(partial)
    try:
        partial.mkdir(parents=True)
        statistics = _write_weights(checkpoints, partial, anchor=anchor, out_dtype=out_dtype)
        record = merge_record(
            statistics, checkpoints[0].tensors, order=sources, anchor=anchor, out_dtype=out_dtype
        )
        write_text(partial / RECORD, json.dumps(record, indent=1) + "\n")
        last_anchor = checkpoints[-1] if anchor == "later" else checkpoints[0]
        _write_config(last_anchor, partial, out_dtype)
        partial.rename(out)
    finally:
        remove(partial)
    merged = summarise(statistics)
    if merged.degenerate:
        _warn_degenerate(merged)
    return merged


def _write_config(source: Checkpoint, folder: Path, out_dtype: str) -> None:
    """Copy tokenizer and template, and write the config, last, with the weights' dtype."""
    for name in COPIED:
        if (source.path / name).exists():
            shutil.copyfile(source.path / name, folder / name)
    config = {key: value for key, value in source.config.items() if key != "torch_dtype"}
    text = json.dumps(config | {"dtype": out_dtype}, indent=2, sort_keys=True)
    write_text(folder / "config.json", text + "\n")


def _partial(out: Path) -> Path:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise MergeError(f"{out}: exists and is not an empty folder; remove it or choose another")
    return out.with_name(f".{out.name}.partial")


def _require_space(checkpoint: Checkpoint, folder: Path, out_dtype: str) -> None:
    """Raise MergeError where the result does not fit on the disk of `folder`."""
    elements = sum(prod(t.shape) for t in checkpoint.tensors.values())
    needed = elements * DTYPES[out_dtype][1].itemsize
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise MergeError(
            f"{folder}: {needed / 1e9:.1f} GB needed for the merged model, {free / 1e9:.1f} GB free"
        )


def _write_weights(
    checkpoints: Sequence[Checkpoint],
    folder: Path,
    *,
    anchor: Literal["later", "earlier"],
    out_dtype: str,
) -> Statistics:
    """Write the shards and their index into `folder`; return the statistics by tensor."""
    statistics: Statistics = {}
    dtype = DTYPES[out_dtype][1]
    tensors = checkpoints[0].tensors
    order = sorted(tensors, key=_natural)
    shards = plan_shards([(n, tensors[n].shape) for n in order], itemsize=dtype.itemsize)

    def fused(names: Sequence[str], tick: Tick) -> Iterator[torch.Tensor]:
        for name in names:
            parts = [read_tensor(checkpoint, name) for checkpoint in checkpoints]
            result, statistics[name] = fuse_chain(parts, anchor=anchor)
            yield _rounded(name, result, dtype)
            tick(1)

    with bar("merge", total=len(order), unit="tensors") as tick:
        for shard in shards:
            write_shard(folder, shard, fused([n for n, _ in shard.tensors], tick), out_dtype)
    if len(shards) > 1:
        index = index_json(shards, itemsize=dtype.itemsize)
        write_text(folder / "model.safetensors.index.json", index)
    return statistics


def _rounded(name: str, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the tensor in `dtype`; MergeError where a value is out of its range."""
    result = tensor.to(dtype)
    if not torch.isfinite(result).all():
        largest = float(tensor.abs().max())
        raise MergeError(
            f"tensor {name}: its largest value, {largest:.3g}, does not fit in {dtype}; "
            "set merge.out_dtype to bfloat16 or float32"
        )
    return result


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key by which layer 2 comes before layer 10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _warn_degenerate(merged: Merged) -> None:
    shown = ", ".join(merged.degenerate[:3])
    warn(
        f"merge: most scores tie in {len(merged.degenerate)} of {merged.tensors} tensors ({shown}"
        ", ...), which were adopted whole or nearly so: hardly any weight differs in them"
    )
