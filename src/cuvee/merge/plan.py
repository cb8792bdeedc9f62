"""Everything about a merge that is settled before the first weight is read.

A config in, a `Plan` out: folders, headers and adapters of all models, what they disagree in
(all of it at once), the tensors in order and their method's parameters, the files to write,
memory and disk. Reads headers and small files alone. Not here: the weights
(`cuvee.merge.stream`).
"""

import dataclasses
import re
import shutil
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from cuvee.errors import MergeError, RecipeError
from cuvee.merge.blocks import BLOCK_ELEMENTS, shape_2d, stack_of
from cuvee.merge.config.entries import ARCEE_FUSION, ModelSpec
from cuvee.merge.config.parameters import method_parameters, missing_values, unused_filters
from cuvee.merge.config.read import Dtype, MergeConfig, source_of_files
from cuvee.merge.diagnostics.record import place
from cuvee.merge.inputs.agreement import check_agreement
from cuvee.merge.inputs.headers import ITEMSIZE, Checkpoint, TensorHeader, read_headers
from cuvee.merge.inputs.lora import CONFIG, WEIGHTS, Adapter, read_adapter
from cuvee.merge.inputs.reader import WINDOW_BYTES
from cuvee.merge.inputs.wording import listed_names
from cuvee.merge.methods.fusion import KEPT
from cuvee.merge.methods.spec import Method
from cuvee.merge.methods.table import METHODS
from cuvee.merge.shards import DTYPES, Shard, plan_shards

NAMES: dict[str, Dtype] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Name in safetensors -> name in a config, of what can be written."""
PROCESS_BYTES = 250_000_000
"""Python with numpy and the compiled kernels, before any weight."""
SELECTION_BYTES = 2 * 4
"""What arcee_fusion holds for each score of a tensor that it keeps, in two copies for a moment."""
WORK_ARRAYS = 10
"""Float32 arrays of a block's size, beside the models', that a thread may hold at once."""
MERGEKIT_BYTES = 48
"""Bytes an element of the largest tensor that `mode: mergekit` holds, with torch's own."""


@dataclasses.dataclass(frozen=True)
class Model:
    """A model of the merge: as the config names it, and its files."""

    spec: ModelSpec
    checkpoint: Checkpoint
    adapter: Adapter | None
    adapter_folder: Path | None


@dataclasses.dataclass(frozen=True)
class Plan:
    """A merge that can begin."""

    config: MergeConfig
    method: Method
    models: tuple[Model, ...]
    base: Model | None
    reference: Model | None
    """From which the record measures changes: the config's `reference`, else the base."""
    tensors: tuple[str, ...]
    """In the order they stand in the files."""
    layers: int
    """How many layers the model has, by its tensors' names."""
    shards: tuple[Shard, ...]
    out_dtype: Dtype
    files_from: Path
    """Config and generation config are copied from here."""
    tokenizer_from: Path
    threads: int
    warnings: tuple[str, ...]

    @property
    def inputs(self) -> tuple[Model, ...]:
        """The models and then the base, where there is one: whose weights are read."""
        return (*self.models, *((self.base,) if self.base else ()))

    @property
    def bytes_out(self) -> int:
        """Bytes of the weights that will be written."""
        elements = sum(prod(t.shape) for t in self.models[0].checkpoint.tensors.values())
        return elements * DTYPES[self.out_dtype][1]

    @property
    def read(self) -> tuple[Model, ...]:
        """The inputs, and the reference where it is a model of its own."""
        apart = self.reference is not None and self.reference is not self.base
        return (*self.inputs, *((self.reference,) if apart and self.reference else ()))

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self.models[0].checkpoint.tensors[tensor].shape

    def parameters(self, tensor: str) -> dict[str, Any]:
        """Return the keyword arguments of the method's rule for a tensor."""
        layer = place(tensor)["layer"]
        return method_parameters(
            self.config, self.method, tensor=tensor, layer=layer, layers=self.layers
        )


def make_plan(config: MergeConfig, out: Path, *, threads: int, max_ram: int | None) -> Plan:
    """Return the plan of a merge into the folder `out`.

    `max_ram`: bytes the process may hold (None: no limit); fewer threads are planned where
    more would not fit. Raises MergeError for checkpoints that do not fit together (all
    reasons at once), too little memory or disk; RecipeError where the config does not suit
    them, or names a model that is not there.
    """
    _require_free(out)
    opened: dict[tuple[str, str | None], Model] = {}

    def load(spec: ModelSpec) -> Model:
        key = (spec.spec, spec.adapter)
        found = opened.get(key) or _open(spec)
        opened[key] = found
        return dataclasses.replace(found, spec=spec)

    models = tuple(load(spec) for spec in config.models)
    base = load(config.base) if config.base else None
    reference = load(config.reference) if config.reference else None
    method = METHODS[config.method]
    decided = config.tokenizer is not None or config.chat_template is not None
    together = [*models, *([base] if base else [])]
    warnings = check_agreement(
        _distinct([model.checkpoint for model in together]), tokenizer_decided=decided
    )
    if reference:
        _require_same_tensors(models[0].checkpoint, reference.checkpoint)
    tensors = models[0].checkpoint.tensors
    _require_settings(config, method, list(tensors))
    out_dtype = config.out_dtype or _own_dtype(models)
    order = sorted(tensors, key=_natural)
    shards = plan_shards([(n, tensors[n].shape) for n in order], itemsize=DTYPES[out_dtype][1])
    files_from = load(source_of_files(config))
    plan = Plan(
        config=config,
        method=method,
        models=models,
        base=base,
        reference=reference or base,
        tensors=tuple(order),
        layers=_layers(order),
        shards=tuple(shards),
        out_dtype=out_dtype,
        files_from=files_from.checkpoint.path,
        tokenizer_from=locate(config.tokenizer) if config.tokenizer else files_from.checkpoint.path,
        threads=threads,
        warnings=tuple(warnings),
    )
    _require_rules(plan)
    _require_space(plan, out)
    return dataclasses.replace(plan, threads=_threads_within(plan, max_ram))


def work_folder(out: Path) -> Path:
    """Return where the merge into `out` is written until it is whole."""
    return out.with_name(f".{out.name}.partial")


def memory_needed(plan: Plan, threads: int) -> int:
    """Return about how many bytes the process will hold at its peak with that many threads."""
    sizes = [shape_2d(plan.shape(name)) for name in plan.tensors]
    block = max(max(1, BLOCK_ELEMENTS // max(1, d)) * d for _, d in sizes)
    largest = max(rows * d for rows, d in sizes)
    rows = max(rows for rows, _ in sizes)
    arrays = len(plan.inputs) + (plan.reference is not None) + WORK_ARRAYS
    mapped = sum(min(WINDOW_BYTES, largest * ITEMSIZE[h.dtype]) for h in _firsts(plan))
    needed = PROCESS_BYTES + mapped + threads * 4 * arrays * block + 4 * rows * len(plan.models)
    if plan.config.method == ARCEE_FUSION:
        needed += SELECTION_BYTES * min(KEPT, largest // 2)
    if plan.config.mode == "mergekit":
        needed += MERGEKIT_BYTES * largest
    adapters = [model.adapter for model in plan.inputs if model.adapter]
    return needed + sum(
        low.a.nbytes + low.b.nbytes for a in adapters for low in a.low_rank.values()
    )


def _firsts(plan: Plan) -> list[TensorHeader]:
    """Return a header of each model that is read: the dtype its tensors probably have."""
    return [next(iter(model.checkpoint.tensors.values())) for model in plan.read]


def locate(spec: str) -> Path:
    """Return the local folder of a model: a folder as it is, a hub id downloaded.

    Raises RecipeError where it names nothing that is there.
    """
    folder = Path(spec).expanduser()
    if folder.is_dir():
        return folder
    from cuvee.models.checkpoint import resolve  # loads transformers: only where it is needed

    return resolve(spec)


def _open(spec: ModelSpec) -> Model:
    checkpoint = read_headers(locate(spec.spec))
    if spec.adapter is None:
        return Model(spec, checkpoint, None, None)
    folder = _locate_adapter(spec.adapter)
    return Model(spec, checkpoint, read_adapter(folder, checkpoint), folder)


def _locate_adapter(spec: str) -> Path:
    folder = Path(spec).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(spec, allow_patterns=["adapter_*"]))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise RecipeError(f"adapter {spec}: neither a folder nor a hub id: {error}") from error


def _distinct(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Return the checkpoints without repetition (a model may be listed twice), in order."""
    return list({checkpoint.path: checkpoint for checkpoint in checkpoints}.values())


def _require_same_tensors(checkpoint: Checkpoint, reference: Checkpoint) -> None:
    """Raise MergeError where a reference is not of the models' shapes; no more is asked of it."""
    shapes = {name: header.shape for name, header in checkpoint.tensors.items()}
    others = {name: header.shape for name, header in reference.tensors.items()}
    if wrong := sorted(set(shapes.items()) ^ set(others.items())):
        names = listed_names(sorted({name for name, _ in wrong}))
        raise MergeError(f"reference {reference.path}: tensors missing or of other shapes: {names}")


def _require_settings(config: MergeConfig, method: Method, tensors: Sequence[str]) -> None:
    problems = [*unused_filters(config, tensors), *missing_values(config, method, tensors)]
    if problems:
        raise RecipeError("the config does not suit these models:\n  " + "\n  ".join(problems))


def _require_rules(plan: Plan) -> None:
    """Try every tensor's parameters on an empty tensor: a method refuses them before any weight.

    Raises what the method raises for parameters that do not go together.
    """
    if plan.method.name == ARCEE_FUSION:
        return
    nothing = np.zeros((0, 1), np.float32)
    tried: list[dict[str, Any]] = []
    for name in plan.tensors:
        parameters = plan.parameters(name)
        if parameters not in tried:
            tried.append(parameters)
            base = nothing if plan.base else None
            empty = stack_of([nothing] * len(plan.models), base=base, name=name)
            plan.method.rule(empty, **parameters)


def _own_dtype(models: Sequence[Model]) -> Dtype:
    """Return the one dtype all weights are stored in; RecipeError where there are more."""
    found = {t.dtype for model in models for t in model.checkpoint.tensors.values()}
    if len(found) == 1 and (dtype := NAMES.get(next(iter(found)))):
        return dtype
    raise RecipeError(
        f"out_dtype: the models' weights are {', '.join(sorted(found))}; say which dtype the "
        f"result is to have, of {', '.join(sorted(DTYPES))}"
    )


def _layers(names: Sequence[str]) -> int:
    return 1 + max(
        (layer for name in names if (layer := place(name)["layer"]) is not None), default=0
    )


def _threads_within(plan: Plan, max_ram: int | None) -> int:
    if max_ram is None:
        return plan.threads
    for threads in range(plan.threads, 0, -1):
        if memory_needed(plan, threads) <= max_ram:
            return threads
    needed, asked = memory_needed(plan, 1) / 1e9, max_ram / 1e9
    why = "; mode: mergekit holds whole tensors" if plan.config.mode == "mergekit" else ""
    raise MergeError(
        f"--max-ram {asked:g} GB: this merge needs {needed:.2f} GB with one thread{why}"
    )


def _require_free(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise MergeError(f"{out}: exists and is not an empty folder; remove it or choose another")


def _require_space(plan: Plan, out: Path) -> None:
    """Raise MergeError where the result does not fit on the disk.

    What a killed merge wrote counts as free: it stays, or is removed first.
    """
    folder = out.parent
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    written = [file.stat().st_blocks * 512 for file in work_folder(out).glob("*.safetensors")]
    free = shutil.disk_usage(there).free + sum(written)
    if plan.bytes_out > free:
        raise MergeError(
            f"{folder}: {plan.bytes_out / 1e9:.1f} GB needed for the merged model, "
            f"{free / 1e9:.1f} GB free"
        )


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key by which layer 2 comes before layer 10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def paths_of(model: Model) -> list[Path]:
    """Return every file that a model's weights depend on, in order of their names."""
    headers = [*model.checkpoint.tensors.values()]
    files = {header.file for header in headers}
    if model.adapter_folder:
        files |= {model.adapter_folder / WEIGHTS, model.adapter_folder / CONFIG}
    return sorted(files)
