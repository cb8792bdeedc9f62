"""What a merge says of itself: its totals, and `cuvee_merge.json` with every tensor in it.

Statistics of the fusions in, plain JSON values out. Not here: computing them (`fusion`).
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from cuvee import __version__
from cuvee.merge.fusion import FusionStatistics
from cuvee.merge.headers import TensorHeader

RECORD = "cuvee_merge.json"

Statistics = dict[str, list[FusionStatistics]]
"""Tensor name -> what each fusion of the chain did to it."""


@dataclasses.dataclass(frozen=True)
class Merged:
    """What a merge did, over all its tensors and fusions."""

    tensors: int
    elements: int
    adopted: int
    """Elements taken from a model that was not the anchor, summed over the fusions."""
    degenerate: tuple[str, ...]
    """Tensors in which the rule could not tell weights apart (`FusionStatistics.degenerate`)."""
    share_adopted: float | None
    """Adopted over all elements of all fusions, in [0, 1]; None for one specialist."""


def summarise(statistics: Statistics) -> Merged:
    """Return the totals over all tensors and fusions."""
    fusions = [found for chain in statistics.values() for found in chain]
    elements = sum(found.elements for found in fusions)
    adopted = sum(found.adopted for found in fusions)
    return Merged(
        tensors=len(statistics),
        elements=elements,
        adopted=adopted,
        degenerate=tuple(n for n, chain in statistics.items() if any(f.degenerate for f in chain)),
        share_adopted=adopted / elements if elements else None,
    )


def merge_record(
    statistics: Statistics,
    headers: Mapping[str, TensorHeader],
    *,
    order: Sequence[Mapping[str, str]],
    anchor: str,
    out_dtype: str,
) -> dict[str, Any]:
    """Return what `cuvee_merge.json` holds; no path and no time, so that it can be compared.

    `order`: name and identity of each model, as they are fused.
    """
    names = [source["name"] for source in order]
    steps = list(zip(*statistics.values(), strict=True)) if len(order) > 1 else []
    packages = ("torch", "safetensors")
    return {
        "method": "arcee_fusion",
        "mode": "exact",
        "order": list(order),
        "anchor": anchor,
        "out_dtype": out_dtype,
        "versions": {"cuvee": __version__, **{p: version(p) for p in packages}},
        "fusions": [
            _pair(names, step, anchor) | _totals(found) for step, found in enumerate(steps)
        ],
        "tensors": [
            {
                "name": name,
                **_place(name),
                "shape": list(headers[name].shape),
                "fusions": [_statistics_row(found) for found in chain],
            }
            for name, chain in statistics.items()
        ],
    }


def _pair(names: Sequence[str], step: int, anchor: str) -> dict[str, str]:
    """Return which models a step of the chain fuses; `a+b` is the result of earlier steps."""
    before, following = "+".join(names[: step + 1]), names[step + 1]
    if anchor == "later":
        return {"anchor": following, "other": before}
    return {"anchor": before, "other": following}


def _totals(found: Sequence[FusionStatistics]) -> dict[str, Any]:
    elements = sum(f.elements for f in found)
    adopted = sum(f.adopted for f in found)
    return {
        "elements": elements,
        "differing": sum(f.differing for f in found),
        "adopted": adopted,
        "share_adopted": adopted / elements if elements else None,
        "degenerate_tensors": sum(f.degenerate for f in found),
    }


def _statistics_row(found: FusionStatistics) -> dict[str, Any]:
    share = found.adopted / found.elements if found.elements else None
    return {**dataclasses.asdict(found), "share_adopted": share}


def _place(name: str) -> dict[str, Any]:
    """Return layer (None outside the layers) and module of a tensor, for a heat map."""
    inner = re.search(r"\.layers\.(\d+)\.(.+)$", name)
    layer, module = (int(inner[1]), inner[2]) if inner else (None, name.removeprefix("model."))
    return {"layer": layer, "module": module.removesuffix(".weight")}
