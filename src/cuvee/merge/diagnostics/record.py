"""What a merge says of itself: its totals, and `cuvee_merge.json` with every tensor in it.

One `TensorRow` for each tensor in, plain JSON values out, the same at every run of the same
merge: no time, and no path but what the user wrote. Not here: computing what stands in the
rows (`measures`, the methods) and drawing it (`heatmap`).
"""

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from math import prod
from typing import Any

import numpy as np

from cuvee import __version__
from cuvee.merge.diagnostics.measures import describe, sums_length

RECORD = "cuvee_merge.json"

LAYER = re.compile(r"^(?:(?P<before>.*)\.)?(?:layers|layer|blocks|block|h)\.(?P<layer>\d+)\.")
"""Start of the name of a tensor in a layer, as the common architectures write it."""


@dataclasses.dataclass(frozen=True)
class Input:
    """One of the checkpoints that were merged."""

    name: str
    """Short and its own in this merge, for people (`short_names`)."""
    spec: str
    """As the user wrote it."""
    identity: str | None
    """Hash of its content; None of a reference, which is no part of the result."""
    files: Mapping[str, int]
    """Name of each file of weights -> bytes."""


@dataclasses.dataclass(frozen=True)
class TensorRow:
    """What became of one tensor."""

    name: str
    shape: tuple[int, ...]
    facts: Mapping[str, Any]
    """What the method says of it (`cuvee.merge.blocks.Rule`). For arcee_fusion `fusions`: of
    each fusion of the chain `elements`, `differing`, `adopted`, `degenerate` and more."""
    sums: tuple[float, ...]
    """`cuvee.merge.diagnostics.measures.measure`, added up over the tensor's blocks in order."""


@dataclasses.dataclass(frozen=True)
class Merged:
    """What a merge did, over all its tensors and fusions."""

    tensors: int
    weights: int
    """Elements of all tensors."""
    elements: int
    """Elements that fusions chose from: every fusion counts its own; 0 without a fusion."""
    adopted: int
    """Elements taken from a model that was not the anchor, summed over the fusions."""
    degenerate: tuple[str, ...]
    """Tensors in which the rule could not tell weights apart."""
    share_adopted: float | None
    """Adopted over all elements of all fusions, in [0, 1]; None without a fusion."""


def summarise(rows: Sequence[TensorRow]) -> Merged:
    """Return the totals over all tensors and fusions."""
    fusions = [found for row in rows for found in _fusions(row)]
    elements = sum(found["elements"] for found in fusions)
    adopted = sum(found["adopted"] for found in fusions)
    return Merged(
        tensors=len(rows),
        weights=sum(prod(row.shape) for row in rows),
        elements=elements,
        adopted=adopted,
        degenerate=tuple(
            row.name for row in rows if any(found["degenerate"] for found in _fusions(row))
        ),
        share_adopted=_share(adopted, elements),
    )


def merge_record(
    rows: Sequence[TensorRow],
    *,
    config: Mapping[str, Any],
    models: Sequence[Input],
    base: Input | None,
    out_dtype: str,
    warnings: Sequence[str],
) -> dict[str, Any]:
    """Return what `cuvee_merge.json` holds, as JSON values.

    `config`: the resolved config (`config_json`), which names its `merge_method`; `models`:
    as they are merged, one at least; `base`: from which the rows' sums measure changes, None
    where they have none; `out_dtype`: of the written weights. Raises ValueError for sums that
    are not those of that many models, and for tensors that went through different numbers of
    fusions.
    """
    names = [source.name for source in models]
    chains = [_fusions(row) for row in rows]
    total = np.zeros(sums_length(len(models)), np.float64)
    for row in rows:
        total += np.array(row.sums)
    return {
        "kind": "merge",
        "method": config["merge_method"],
        "mode": config.get("mode"),
        "order": [dataclasses.asdict(source) for source in models],
        "anchor": config.get("anchor"),
        "base": dataclasses.asdict(base) if base else None,
        "out_dtype": out_dtype,
        "seed": config.get("seed"),
        "config": dict(config),
        "versions": _versions(config),
        "warnings": list(warnings),
        "fusions": [
            _pair(names, step, config.get("anchor")) | _totals(found)
            for step, found in enumerate(zip(*chains, strict=True))
        ],
        "totals": {
            "tensors": len(rows),
            "measures": describe(total, models=len(models), has_base=base is not None),
        },
        "tensors": [_row(row, models=len(models), has_base=base is not None) for row in rows],
    }


def record_text(record: Mapping[str, Any]) -> str:
    """Return a record as JSON text. Raises ValueError for a NaN or an infinite number in it."""
    return json.dumps(record, indent=1, allow_nan=False) + "\n"


def row_json(row: TensorRow) -> dict[str, Any]:
    """Return a row as JSON values, for keeping it until the merge ends."""
    return dataclasses.asdict(row)


def row_from_json(data: Mapping[str, Any]) -> TensorRow:
    """Return the row that `row_json` made: exactly the same, floats have all their digits."""
    shape, sums = tuple(data["shape"]), tuple(data["sums"])
    return TensorRow(data["name"], shape, data["facts"], sums)


def short_names(specs: Sequence[str]) -> list[str]:
    """Return a name for each model: the last part of its path, or all of it where that repeats.

    A model that is listed more than once gets a number.
    """
    last = [spec.rstrip("/").rpartition("/")[2] or spec for spec in specs]
    often = Counter(last)
    names = [part if often[part] == 1 else spec for part, spec in zip(last, specs, strict=True)]
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found


def place(name: str) -> dict[str, Any]:
    """Return {layer, module} of a tensor for a heat map; layer is None outside the layers.

    `model.layers.3.mlp.up_proj.weight` is layer 3, `mlp.up_proj`. What stands before the
    layers stays in the module unless it is `model`, so that an encoder's and a decoder's
    layers are not taken for each other.
    """
    inner = LAYER.match(name)
    if inner is None:
        return {"layer": None, "module": name.removeprefix("model.").removesuffix(".weight")}
    before = re.sub(r"^model(\.|$)", "", inner["before"] or "")
    module = name[inner.end() :].removesuffix(".weight")
    return {"layer": int(inner["layer"]), "module": f"{before}.{module}" if before else module}


def _row(row: TensorRow, *, models: int, has_base: bool) -> dict[str, Any]:
    others = {key: value for key, value in row.facts.items() if key != "fusions"}
    return {
        "name": row.name,
        **place(row.name),
        "shape": list(row.shape),
        "fusions": [
            {**found, "share_adopted": _share(found["adopted"], found["elements"])}
            for found in _fusions(row)
        ],
        "facts": others,
        "measures": describe(np.array(row.sums), models=models, has_base=has_base),
    }


def _fusions(row: TensorRow) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = row.facts.get("fusions", ())
    return found


def _pair(names: Sequence[str], step: int, anchor: str | None) -> dict[str, str]:
    """Return which models a step of the chain fuses; `a+b` is the result of earlier steps."""
    before, following = "+".join(names[: step + 1]), names[step + 1]
    if anchor == "earlier":
        return {"anchor": before, "other": following}
    return {"anchor": following, "other": before}


def _totals(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    elements = sum(f["elements"] for f in found)
    adopted = sum(f["adopted"] for f in found)
    return {
        "elements": elements,
        "differing": sum(f["differing"] for f in found),
        "adopted": adopted,
        "share_adopted": _share(adopted, elements),
        "degenerate_tensors": sum(f["degenerate"] for f in found),
    }


def _share(adopted: int, elements: int) -> float | None:
    return adopted / elements if elements else None


def _versions(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the versions of what did the arithmetic: torch only in the mode that uses it."""
    packages = ["numpy", "numba", *(["torch"] if config.get("mode") == "mergekit" else [])]
    return {"cuvee": __version__, **{package: version(package) for package in packages}}
