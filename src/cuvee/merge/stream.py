"""Merges checkpoints into one, tensor by tensor and block by block.

A config in, one folder out: weights, config, tokenizer, template, and `cuvee_merge.json` with
what was merged and what the method did to every tensor. All is checked before the first
weight is read (`cuvee.merge.plan`). Every thread reads a block of the models, merges, rounds
and writes it: reading, arithmetic and writing overlap, and what is in memory is a few blocks a
thread, whatever the model's size. A killed merge goes on where it was; the folder appears
under its name when it is whole.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import xxhash

from cuvee import __version__
from cuvee.atomic import hold, remove, sync_folder
from cuvee.errors import MergeError
from cuvee.merge.blocks import Rule, Stack, shape_2d
from cuvee.merge.config.read import Dtype, MergeConfig, config_json
from cuvee.merge.diagnostics.record import Merged, TensorRow, row_from_json, row_json
from cuvee.merge.finish import finish
from cuvee.merge.inputs.lora import CONFIG, WEIGHTS
from cuvee.merge.inputs.reader import (
    Source,
    open_sources,
    open_tensors,
)
from cuvee.merge.journal import JOURNAL, merge_key, note, open_journal, read_journal
from cuvee.merge.methods.fusion import arcee_fusion
from cuvee.merge.plan import (
    NAMES,
    Model,
    Plan,
    make_plan,
    memory_needed,
    paths_of,
    work_folder,
)
from cuvee.merge.shards import DTYPES, open_shard, prepare_shard
from cuvee.merge.tensor import Tensor, merge_tensor
from cuvee.merge.threads import Threads, open_threads
from cuvee.progress import bar, say, warn


@dataclasses.dataclass(frozen=True)
class Work:
    """What is open while weights are merged."""

    plan: Plan
    sources: list[Source]
    """Of the models, then of the base and of the reference, where there are such."""
    threads: Threads
    places: Mapping[str, tuple[int, int]]
    """Tensor -> descriptor of its file, first byte in it."""
    rule: Callable[[Stack], Rule]


def merge(
    config: MergeConfig,
    out: Path,
    *,
    threads: int,
    max_ram: int | None = None,
    sync: bool = False,
) -> Merged:
    """Merge the checkpoints of a config into the folder `out`; return what was done.

    `threads` >= 1; `max_ram`: bytes the process may hold, None for no limit. The result's
    bytes depend on neither. `sync`: wait until the disk holds all of it; else that is left to
    the system, as `cp` leaves it. `out` must not exist or be empty; it appears complete or not at
    all (written as `.NAME.partial` beside it, with its config last). A merge that was killed
    is gone on with where its config and inputs are the same.

    Raises MergeError for checkpoints that do not fit together (all reasons at once), for NaN
    or infinite values (tensor named), for too little memory or disk; RecipeError where the
    config does not suit them; OSError where writing fails.
    """
    plan = make_plan(config, out, threads=threads, max_ram=max_ram)
    for text in plan.warnings:
        warn(f"merge: {text}")
    partial = work_folder(out)
    with hold(partial), _naming(partial):
        try:
            rows, hashes = _merge_weights(plan, partial)
        except MergeError:
            remove(partial)
            raise
        merged = finish(plan, partial, rows, hashes)
        if sync:
            sync_folder(partial)
        partial.rename(out)
        for name in (JOURNAL, ".lock"):
            (out / name).unlink(missing_ok=True)
    if merged.degenerate:
        _warn_degenerate(merged)
    return merged


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Let every OSError name a file, or else the folder: writing and syncing do not."""
    try:
        yield
    except OSError as error:
        path = error.filename or str(folder)
        raise OSError(error.errno, error.strerror or str(error), path) from error


def describe(
    config: MergeConfig, out: Path, *, threads: int, max_ram: int | None = None
) -> list[str]:
    """Return what a merge would do, as lines of text; reads no weights and writes nothing.

    Raises what `merge` raises before its first weight.
    """
    plan = make_plan(config, out, threads=threads, max_ram=max_ram)
    elements = plan.bytes_out // DTYPES[plan.out_dtype][1]
    needed = memory_needed(plan, plan.threads)
    files = f"{len(plan.shards)} file{'s' if len(plan.shards) > 1 else ''}"
    return [
        f"{plan.method.name} of {', '.join(model.spec.name for model in plan.models)}",
        *([f"base: {plan.base.spec.name}"] if plan.base else []),
        f"{len(plan.tensors)} tensors, {elements:,} weights; {plan.bytes_out / 1e9:.2f} GB in "
        f"{plan.out_dtype}, {files}, into {out}",
        f"config from {plan.files_from}, tokenizer from {plan.tokenizer_from}",
        f"{plan.threads} threads, at most {needed / 1e9:.2f} GB of memory",
        *(f"warning: {text}" for text in plan.warnings),
    ]


def _merge_weights(plan: Plan, folder: Path) -> tuple[list[TensorRow], list[str]]:
    """Write every shard into `folder`; return each tensor's row and each input's hash."""
    files = [file for model in plan.read for file in paths_of(model)]
    key = merge_key(config_json(plan.config), files, out_dtype=plan.out_dtype, version=__version__)
    # One stream of random numbers runs through all tensors: such a merge starts again.
    resumable = plan.config.mode != "mergekit"
    going_on = resumable and _shards_stand(plan, folder)
    lines = {line["name"]: line for line in (read_journal(folder, key) if going_on else [])}
    if lines:
        say(f"merge: going on; {len(lines)} of {len(plan.tensors)} tensors are merged already")
    _clear(plan, folder, going_on=bool(lines))
    models = [(model.checkpoint, model.adapter) for model in plan.read]
    with ExitStack() as stack:
        sources = open_sources(models)
        threads = stack.enter_context(open_threads(plan.threads))
        journal = stack.enter_context(open_journal(folder, key, lines.values()))
        places = _open_shards(plan, folder, stack)
        work = Work(plan, sources, threads, places, _rule(plan))
        todo = [name for name in plan.tensors if name not in lines]
        tick = stack.enter_context(bar("merge", total=len(plan.tensors), unit="tensors"))
        tick(len(lines))
        for name in todo if resumable else sorted(todo):
            row, hashes = _merge_tensor(work, name)
            lines[row.name] = row_json(row) | {"hashes": hashes}
            note(journal, lines[row.name])
            tick(1)
    found = [lines[name] for name in plan.tensors]
    contents = [
        _content([line["hashes"][i] for line in found], model)
        for i, model in enumerate(plan.inputs)
    ]
    return [row_from_json(line) for line in found], contents


def _clear(plan: Plan, folder: Path, *, going_on: bool) -> None:
    """Remove what another merge left in the folder under work: it would stay in the result."""
    kept = {".lock"}
    if going_on:
        kept |= {JOURNAL, *(shard.file for shard in plan.shards)}
    for path in folder.iterdir():
        if path.name not in kept:
            remove(path)


def _shards_stand(plan: Plan, folder: Path) -> bool:
    """Say whether every shard is there in its full size, as it is from a merge's start on."""
    itemsize = DTYPES[plan.out_dtype][1]
    return all(
        (folder / shard.file).exists()
        and (folder / shard.file).stat().st_size >= shard.elements * itemsize
        for shard in plan.shards
    )


def _open_shards(plan: Plan, folder: Path, stack: ExitStack) -> dict[str, tuple[int, int]]:
    places: dict[str, tuple[int, int]] = {}
    for shard in plan.shards:
        file = open_shard(folder / shard.file)
        stack.callback(os.close, file)
        begins = prepare_shard(file, shard, plan.out_dtype)
        places |= {name: (file, begin) for name, begin in begins.items()}
    return places


def _rule(plan: Plan) -> Callable[[Stack], Rule]:
    """Return the method with the parameters of the config, for any tensor."""
    config = plan.config
    if config.mode == "mergekit":
        # Loads torch, which nothing else here needs.
        from cuvee.merge.methods.fusion_mergekit import arcee_fusion_mergekit, generators

        draws = generators(config.seed, len(plan.models) - 1)
        version = config.version or "0.1.5"
        return lambda stack: arcee_fusion_mergekit(
            stack,
            anchor=config.anchor,
            version=version,
            dtype=config.dtype or _promoted(plan, stack.name),
            file_dtype=plan.out_dtype,
            draws=draws,
        )
    if config.method == "arcee_fusion":
        return lambda stack: arcee_fusion(stack, anchor=config.anchor)
    return lambda stack: plan.method.rule(stack, **plan.parameters(stack.name))


def _promoted(plan: Plan, name: str) -> Dtype:
    """Return the dtype in which all models' values of a tensor fit: mergekit's without `dtype`."""
    found = {model.checkpoint.tensors[name].dtype for model in plan.models}
    return NAMES[found.pop()] if len(found) == 1 and found <= set(NAMES) else "float32"


def _merge_tensor(work: Work, name: str) -> tuple[TensorRow, list[int]]:
    """Merge one tensor into its file; return its row and the hash of each input's bytes."""
    plan = work.plan
    count, d = len(plan.inputs), shape_2d(plan.shape(name))[1]
    tensor = Tensor(
        name=name,
        shape=plan.shape(name),
        has_base=plan.base is not None,
        inputs=open_tensors(
            work.sources[:count], name, d=d, allow_nonfinite=plan.config.allow_nonfinite
        ),
        reference=open_tensors(
            work.sources[count:], name, d=d, allow_nonfinite=plan.config.allow_nonfinite
        ),
        dtype=plan.out_dtype,
        place=work.places[name],
    )
    return merge_tensor(tensor, work.rule, work.threads)


def _content(hashes: list[int], model: Model) -> str:
    """Return the hash of a model's content: its tensors' in order, and its adapter's files."""
    content = xxhash.xxh3_128(np.array(hashes, np.uint64).tobytes())
    if model.adapter_folder:
        content.update((model.adapter_folder / CONFIG).read_bytes())
        content.update((model.adapter_folder / WEIGHTS).read_bytes())
    return f"xxh3:{content.hexdigest()}"


def _warn_degenerate(merged: Merged) -> None:
    shown = ", ".join(merged.degenerate[:3])
    warn(
        f"merge: most scores tie in {len(merged.degenerate)} of {merged.tensors} tensors ({shown}"
        ", ...), which were adopted whole or nearly so: hardly any weight differs in them"
    )
