"""LoRA adapters (PEFT folders) as inputs of a merge: base + delta, added block by block.

An adapter folder holds `adapter_config.json` and `adapter_model.safetensors`. A matrix W of
the base becomes W + scale * B @ A (Hu et al. 2021, arXiv 2106.09685), the scale being
lora_alpha / r, or lora_alpha / sqrt(r) with `use_rslora` (Kalajdzievski 2023, arXiv
2312.03732). Every option of the config is honoured, has no effect on merged weights, or is
refused by name. Not here: reading the base, and writing a merged adapter as a model of its own.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from cuvee.errors import MergeError
from cuvee.merge.inputs.agreement import EMBEDDINGS, FLOATS, HEADS, is_tied
from cuvee.merge.inputs.headers import Checkpoint, TensorHeader, file_headers, read_json
from cuvee.merge.inputs.lora_options import number_problems, option_problems, rank_and_scale
from cuvee.merge.inputs.wording import listed_names
from cuvee.merge.kernels import KINDS, Array, count_not_finite, kernel, widen_all

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."

FACTOR = re.compile(
    r"(?P<module>.+)\.lora_(?P<kind>embedding_)?(?P<side>[AB])(?P<weight>\.weight)?"
)


@dataclasses.dataclass(frozen=True)
class LowRank:
    """What an adapter adds to a matrix [rows, d]: scale * b @ a."""

    b: Array
    """[rows, r], C-contiguous."""
    a: Array
    """[r, d], C-contiguous."""
    scale: float


@dataclasses.dataclass(frozen=True)
class Adapter:
    """An adapter's changes by names of the base's tensors; its factors are in memory.

    A tensor in both maps is the replacement plus the delta: PEFT saves the embedding beside
    the factors of one that is trained.
    """

    low_rank: Mapping[str, LowRank]
    replaced: Mapping[str, TensorHeader]
    """Whole tensors: `modules_to_save`, and biases that were trained."""


@dataclasses.dataclass(frozen=True)
class _Factors:
    """Where the factors of one delta are: B @ A, transposed if the base's matrix is."""

    a: TensorHeader
    b: TensorHeader
    transposed: bool
    scale: float


def read_adapter(path: Path, base: Checkpoint) -> Adapter:
    """Return a PEFT LoRA adapter as changes of a base, its factors read as float32.

    Raises one MergeError that lists everything that is wrong: options that are not supported
    (DoRA, layer replication, trained token rows, ...), tensors of unknown names or without a
    tensor of the base, ranks and shapes that do not fit, NaN or infinite factors, and changes
    to only one of two embeddings that the base ties.
    """
    config = read_json(path / CONFIG)
    factors, full, unknown = _sorted(_headers(path))
    tensors = _targets(base)
    wrong_numbers = number_problems(config)
    low, misfits = ({}, []) if wrong_numbers else _fitting(factors, tensors, config)
    problems = [
        *option_problems(config),
        *wrong_numbers,
        *unknown,
        *misfits,
        *_full_problems(full, tensors),
        *_missing(full, factors, base, config),
    ]
    if problems:
        raise _error(path, problems)
    adapter = Adapter({name: _read_low_rank(found) for name, found in low.items()}, full)
    if problems := [*_value_problems(adapter), *_tied_problems(adapter, base)]:
        raise _error(path, problems)
    # What a tied base does not store, its output embedding, is a copy: see _tied_problems.
    return Adapter(
        {name: value for name, value in adapter.low_rank.items() if name in base.tensors},
        {name: value for name, value in adapter.replaced.items() if name in base.tensors},
    )


def add_low_rank(out: Array, low: LowRank, begin: int, end: int) -> None:
    """Add rows `begin` to `end` of an adapter's delta to `out` [end - begin, d], in place.

    The products are summed in the order of the rank, then scaled, then added: an element's
    result depends on nothing but its row and column.
    """
    _add_product(out, low.b[begin:end], low.a, np.float32(low.scale))


@kernel
def _add_product(out: Array, b: Array, a: Array, scale: np.float32) -> None:
    """Add scale * b [rows, r] @ a [r, d] to out [rows, d], four of the rank at a time."""
    rank, d = a.shape
    fours = rank - rank % 4
    delta = np.empty(d, np.float32)
    for i in range(out.shape[0]):
        delta[:] = np.float32(0)
        for k in range(0, fours, 4):
            b0, b1, b2, b3 = b[i, k], b[i, k + 1], b[i, k + 2], b[i, k + 3]
            for j in range(d):
                delta[j] = (
                    delta[j] + b0 * a[k, j] + b1 * a[k + 1, j] + b2 * a[k + 2, j] + b3 * a[k + 3, j]
                )
        for k in range(fours, rank):
            b0 = b[i, k]
            for j in range(d):
                delta[j] += b0 * a[k, j]
        for j in range(d):
            out[i, j] += scale * delta[j]


def _headers(path: Path) -> dict[str, TensorHeader]:
    file = path / WEIGHTS
    if file.exists():
        return file_headers(file)
    if (path / PICKLE).exists():
        raise MergeError(
            f"{path / PICKLE}: a pickle can run any code and is not read; load the adapter with "
            "PEFT and save it again, which writes safetensors"
        )
    raise MergeError(f"{path}: no {WEIGHTS}")


def _sorted(
    headers: Mapping[str, TensorHeader],
) -> tuple[dict[str, dict[str, TensorHeader]], dict[str, TensorHeader], list[str]]:
    """Return factors by module and side, whole tensors by name, and what is neither.

    Sides: `A` and `B`, `embedding_A` and `embedding_B`.
    """
    factors: dict[str, dict[str, TensorHeader]] = {}
    full: dict[str, TensorHeader] = {}
    unknown = []
    for stored, header in headers.items():
        name = stored.removeprefix(PREFIX)
        match = FACTOR.fullmatch(name)
        if name == stored or header.dtype not in FLOATS:
            unknown.append(f"{stored} ({header.dtype})")
        elif match and bool(match["kind"]) != bool(match["weight"]):
            side = (match["kind"] or "") + match["side"]
            factors.setdefault(match["module"], {})[side] = header
        elif ".lora_" in name:
            unknown.append(stored)
        else:
            full[name.replace(".base_layer.", ".")] = header
    if not headers:
        return factors, full, [f"{WEIGHTS} holds no tensors"]
    listed = listed_names(sorted(unknown))
    return factors, full, [f"tensors of an unknown kind: {listed}"] if unknown else []


def _targets(base: Checkpoint) -> dict[str, TensorHeader]:
    """Return what an adapter can change: the base's tensors, and a tied output embedding."""
    embeddings = [header for name, header in base.tensors.items() if name.endswith(EMBEDDINGS)]
    copies = dict.fromkeys(HEADS, embeddings[0]) if embeddings and is_tied(base) else {}
    return copies | dict(base.tensors)


def _fitting(
    factors: Mapping[str, Mapping[str, TensorHeader]],
    tensors: Mapping[str, TensorHeader],
    config: Mapping[str, Any],
) -> tuple[dict[str, _Factors], list[str]]:
    """Return the factors by the names of the base's tensors they fit, and what does not fit."""
    absent = sorted(module for module in factors if f"{module}.weight" not in tensors)
    problems = [f"the base has no weights of {listed_names(absent)}"] if absent else []
    misfits, fitting = [], {}
    for module in sorted(factors.keys() - set(absent)):
        sides, target = factors[module], tensors[f"{module}.weight"]
        if sides.keys() not in ({"A", "B"}, {"embedding_A", "embedding_B"}):
            misfits.append(f"{module} has {' and '.join(sorted(sides))} alone")
            continue
        (_, a), (_, b) = sorted(sides.items())
        rank, scale = rank_and_scale(module, config)
        stated = "embedding_A" in sides or bool(config.get("fan_in_fan_out"))
        transposed = _is_transposed(a, b, target.shape, stated=stated)
        if transposed is None or a.shape[0] != rank:
            misfits.append(f"{module}: A {a.shape}, B {b.shape}, r {rank}, base {target.shape}")
            continue
        fitting[f"{module}.weight"] = _Factors(a, b, transposed, scale)
    if misfits:
        problems.append(f"factors that do not fit: {listed_names(misfits)}")
    return fitting, problems


def _is_transposed(
    a: TensorHeader, b: TensorHeader, target: tuple[int, ...], *, stated: bool
) -> bool | None:
    """Say whether the base stores the transpose of B @ A; None where neither fits.

    Conv1D layers and embeddings do. The shapes decide; a square matrix is as `stated`.
    """
    if len(a.shape) != 2 or len(b.shape) != 2 or b.shape[1] != a.shape[0]:
        return None
    product = (b.shape[0], a.shape[1])
    fits, fits_transposed = target == product, target == product[::-1]
    if fits and fits_transposed:
        return stated
    return fits_transposed if fits or fits_transposed else None


def _full_problems(
    full: Mapping[str, TensorHeader], tensors: Mapping[str, TensorHeader]
) -> list[str]:
    absent = sorted(name for name in full if name not in tensors)
    shapes = [
        f"{name} {header.shape} against {tensors[name].shape}"
        for name, header in sorted(full.items())
        if name in tensors and header.shape != tensors[name].shape
    ]
    return [
        *([f"whole tensors the base lacks: {listed_names(absent)}"] if absent else []),
        *([f"whole tensors of another shape: {listed_names(shapes)}"] if shapes else []),
    ]


def _missing(
    full: Mapping[str, TensorHeader],
    modules: Iterable[str],
    base: Checkpoint,
    config: Mapping[str, Any],
) -> list[str]:
    """Name what the config says was trained as a whole and the file does not hold."""
    wanted: set[str] = set()
    saved = tuple(config.get("modules_to_save") or ())
    for name in base.tensors:
        parts = name.split(".")
        inside = [".".join(parts[:length]) for length in range(1, len(parts))]
        if any(module.endswith(saved) for module in inside):
            wanted.add(name)
    if config.get("bias") == "all":
        wanted |= {name for name in base.tensors if name.endswith(".bias")}
    elif config.get("bias") == "lora_only":
        wanted |= {f"{module}.bias" for module in modules} & base.tensors.keys()
    elif config.get("bias", "none") != "none":
        return [f"bias {config['bias']!r}: none, all and lora_only are supported"]
    lacking = sorted(wanted - full.keys())
    return [f"modules_to_save or bias, but not in the file: {listed_names(lacking)}"] * bool(
        lacking
    )


def _read_low_rank(found: _Factors) -> LowRank:
    a, b = _read(found.a), _read(found.b)
    if found.transposed:
        a, b = np.ascontiguousarray(b.T), np.ascontiguousarray(a.T)
    return LowRank(b, a, found.scale)


def _read(header: TensorHeader) -> Array:
    """Return a whole tensor as float32."""
    raw = np.fromfile(header.file, np.uint8, header.end - header.begin, offset=header.begin)
    out = np.empty(prod(header.shape), np.float32)
    widen_all((raw,), np.array([KINDS[header.dtype]]), out[None])
    return out.reshape(header.shape)


def _value_problems(adapter: Adapter) -> list[str]:
    bad = sorted(
        name
        for name, low in adapter.low_rank.items()
        if count_not_finite(low.a.reshape(-1)) or count_not_finite(low.b.reshape(-1))
    )
    return [f"factors hold NaN or infinite values: {listed_names(bad)}"] if bad else []


def _tied_problems(adapter: Adapter, base: Checkpoint) -> list[str]:
    """Refuse changes to tied embeddings unless both change alike (`ensure_weight_tying`).

    PEFT trains them apart otherwise: the merged model could not have one matrix for both.
    """
    if not is_tied(base):
        return []
    whole, low = adapter.replaced, adapter.low_rank
    names = sorted(name for name in whole.keys() | low.keys() if name.endswith(EMBEDDINGS + HEADS))
    changes = [(whole.get(name), low.get(name)) for name in names]
    if not names or (len(names) == 2 and _same_change(*changes)):
        return []
    return [
        f"the base ties its embeddings and the adapter changes {' and '.join(names)}"
        f"{' differently' if len(names) > 1 else ' alone'}: train it with ensure_weight_tying, or "
        "on a base whose embeddings are untied"
    ]


Change = tuple[TensorHeader | None, LowRank | None]


def _same_change(one: Change, two: Change) -> bool:
    (header, low), (other_header, other) = one, two
    if (header is None) != (other_header is None) or (low is None) != (other is None):
        return False
    if header and other_header and not np.array_equal(_read(header), _read(other_header)):
        return False
    return not (low and other) or (
        low.scale == other.scale
        and np.array_equal(low.a, other.a)
        and np.array_equal(low.b, other.b)
    )


def _error(path: Path, problems: Iterable[str]) -> MergeError:
    listed = "\n  ".join(problems)
    return MergeError(f"{path}: this adapter cannot be merged:\n  {listed}")
