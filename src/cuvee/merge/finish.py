"""The small files of a merged checkpoint: index, record, tokenizer, template, and config last."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from cuvee.merge.config.read import config_json
from cuvee.merge.diagnostics.heatmap import page
from cuvee.merge.diagnostics.record import (
    RECORD,
    Input,
    Merged,
    TensorRow,
    merge_record,
    record_text,
    short_names,
    summarise,
)
from cuvee.merge.inputs.headers import read_json
from cuvee.merge.plan import Model, Plan, paths_of
from cuvee.merge.shards import DTYPES, index_json

PAGE = "cuvee_merge.html"
"""The record, drawn."""
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja",
)  # fmt: skip
"""Taken as they are, where they are there."""


def finish(plan: Plan, folder: Path, rows: Sequence[TensorRow], hashes: Sequence[str]) -> Merged:
    """Write all files of the merged model but its weights into `folder`; return the totals.

    `rows`: every tensor in order; `hashes`: of the content of each of the plan's inputs.
    """
    if len(plan.shards) > 1:
        index = index_json(plan.shards, itemsize=DTYPES[plan.out_dtype][1])
        _write(folder / "model.safetensors.index.json", index)
    inputs = _inputs(plan, hashes)
    record = merge_record(
        rows,
        config=config_json(plan.config),
        models=inputs[: len(plan.models)],
        base=_base(plan, inputs),
        out_dtype=plan.out_dtype,
        warnings=plan.warnings,
    )
    _write(folder / RECORD, record_text(record))
    _write(folder / PAGE, page(record))
    for name in TOKENIZER_FILES:
        if (plan.tokenizer_from / name).exists():
            shutil.copyfile(plan.tokenizer_from / name, folder / name)
    if plan.config.chat_template is not None:
        _write_template(folder, plan.config.chat_template)
    for source in (plan.files_from, plan.tokenizer_from):  # what generation stops at are tokens
        if (source / "generation_config.json").exists():
            shutil.copyfile(source / "generation_config.json", folder / "generation_config.json")
    config = read_json(plan.files_from / "config.json")
    config = {key: value for key, value in config.items() if key != "torch_dtype"}
    text = json.dumps(config | {"dtype": plan.out_dtype}, indent=2, sort_keys=True)
    _write(folder / "config.json", text + "\n")
    return summarise(rows)


def _write(path: Path, text: str) -> None:
    """Write a file plainly: the folder it is in has not its name yet."""
    path.write_text(text, encoding="utf-8")


def _inputs(plan: Plan, hashes: Sequence[str]) -> list[Input]:
    names = short_names([model.spec.name for model in plan.inputs])
    return [
        Input(name, model.spec.name, identity, _sizes(model))
        for name, model, identity in zip(names, plan.inputs, hashes, strict=True)
    ]


def _base(plan: Plan, inputs: Sequence[Input]) -> Input | None:
    """Return the model from which the rows measure changes; a reference is not hashed."""
    if plan.reference is None:
        return None
    if plan.reference is plan.base:
        return inputs[-1]
    name = plan.reference.spec.name
    return Input(short_names([name])[0], name, None, _sizes(plan.reference))


def _sizes(model: Model) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in paths_of(model)}


def _write_template(folder: Path, template: str) -> None:
    """Write a chat template where every reader finds it, and no other one."""
    _write(folder / "chat_template.jinja", template)
    path = folder / "tokenizer_config.json"
    if path.exists():
        config = read_json(path)
        config.pop("chat_template", None)
        _write(path, json.dumps(config, indent=2) + "\n")
