"""The measures of a record as panels: one number a tensor, named and explained.

`cuvee_merge.json`, or what `cuvee diff` found, in; panels out. Drawing them is
`cuvee.merge.diagnostics.heatmap`'s.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

Value = float | None
Row = Mapping[str, Any]
"""One of a record's `tensors`."""
Unit = Literal["share", "signed", "number"]
"""In [0, 1]; in [-1, 1]; >= 0."""


@dataclasses.dataclass(frozen=True)
class Group:
    """A kind of measure; its panels stand side by side."""

    title: str
    note: str
    """What the number says."""
    unit: Unit


@dataclasses.dataclass(frozen=True)
class Panel:
    """One measure of all tensors."""

    group: Group
    of: str
    """Of which models; empty where there is nothing to tell apart."""
    values: Sequence[Value]
    """In the order of the record's tensors; None where a tensor has no such value."""


ADOPTED = Group("Share adopted", "Weights taken from the model that is not the anchor.", "share")
KEPT = Group("Weights kept", "Weights of the result that are this model’s, bit for bit.", "share")
COSINE = Group(
    "Cosine of the changes",
    "Do two models’ changes from the base point the same way? 1: the same, 0: unrelated, "
    "−1: opposite.",
    "signed",
)
CONFLICTS = Group(
    "Sign conflicts", "Weights that two models moved in opposite directions.", "share"
)
MOVED = Group("Weights that moved", "Weights that are not the base’s.", "share")
CHANGE = Group(
    "Size of the change",
    "Norm of the change, relative to the norm of the base’s weights.",
    "number",
)
NORM = Group("Norm of the weights", "Euclidean, over all weights of a tensor.", "number")
APART = Group(
    "Relative difference", "Norm of the difference, relative to the larger norm.", "number"
)
DIFFERING = Group("Weights that differ", "Weights that are not equal in the two models.", "share")
TURNED = Group(
    "1 − cosine", "How far the weights turned: 0 is the same direction, 1 unrelated.", "number"
)
LARGEST = Group("Largest difference", "Of any single weight, as an absolute value.", "number")


def panels(record: Mapping[str, Any]) -> list[Panel]:
    """Return the measures that a record of a merge or a difference holds, the telling first.

    A measure that no tensor has is left out. Raises ValueError for a record of another kind.
    """
    kind = record.get("kind")
    if kind not in ("merge", "difference"):
        raise ValueError(f"kind {kind!r}: only records of a merge or a difference can be drawn")
    found = _of_merge(record) if kind == "merge" else _of_difference(record)
    return [panel for panel in found if any(value is not None for value in panel.values)]


def heading(record: Mapping[str, Any]) -> str:
    """Return what a record is of: `arcee_fusion of math and code`, `A against B`."""
    if record["kind"] == "difference":
        return f"{record['a']} against {record['b']}"
    names = [model["name"] for model in record["order"]]
    *others, last = names
    return f"{record['method']} of {', '.join(others)} and {last}" if others else f"Copy of {last}"


def lines(record: Mapping[str, Any]) -> list[str]:
    """Return what there is to say of a record as a whole, in sentences."""
    total = record["totals"]
    if record["kind"] == "difference":
        compared = f"{total['elements']:,} weights in {total['tensors']:,} tensors"
        differ = shown(total["share_differing"], "share")
        relative = shown(total["relative_difference"], "number")
        unlike = [len(record[key]) for key in ("only_in_a", "only_in_b", "not_compared")]
        found = [
            f"Identical: all {compared} are equal."
            if record["identical"]
            else f"{compared} compared: {differ} differ; relative difference {relative}."
        ]
        if any(unlike):
            found.append(
                f"Tensors only in A: {unlike[0]}, only in B: {unlike[1]}, "
                f"in both but not comparable: {unlike[2]}."
            )
        return found
    size = f"{total['tensors']:,} tensors, {total['measures']['elements']:,} weights"
    found = [f"{size}, written as {record['out_dtype']}."]
    found += [
        f"{fusion['other']} into {fusion['anchor']}: {shown(fusion['share_adopted'], 'share')} "
        f"of the weights adopted; most scores tie in {fusion['degenerate_tensors']:,} tensors."
        for fusion in record["fusions"]
    ]
    base = record["base"]
    found.append(
        f"Changes are measured from {base['name']}."
        if base
        else "No base is known, so the models are compared with each other."
    )
    return found


def shown(value: Value, unit: Unit) -> str:
    """Return a value for people: a share in percent, a signed one with its sign."""
    if value is None:
        return "no value"
    if unit == "share":
        return f"{100 * value:.3g}\u00a0%"
    if unit == "signed" and value:
        return f"{value:+.3f}".replace("-", "−")
    return f"{value:.3g}"


def _of_merge(record: Mapping[str, Any]) -> list[Panel]:
    names = [model["name"] for model in record["order"]]
    found = [
        Panel(
            ADOPTED,
            f"{fusion['other']} into {fusion['anchor']}",
            [row["fusions"][step]["share_adopted"] for row in record["tensors"]],
        )
        for step, fusion in enumerate(record["fusions"])
    ]
    rows = [row["measures"] for row in record["tensors"]]
    found += _of_changes(rows, names) if record["base"] is not None else _of_weights(rows, names)
    kept = [
        Panel(KEPT, name, [row["models"][i]["share_equal"] for row in rows])
        for i, name in enumerate(names)
    ]
    return found + kept


def _of_changes(rows: Sequence[Row], names: Sequence[str]) -> list[Panel]:
    """Return the measures of the models' changes from a base."""
    found = _of_pairs(COSINE, rows, names, lambda pair: pair["cosine_deltas"])
    if len(names) > 1:
        found.append(Panel(CONFLICTS, "", [row["share_conflicting"] for row in rows]))
    changes = {name: [row["models"][i] for row in rows] for i, name in enumerate(names)}
    changes["merged"] = [row["result"] for row in rows]
    norms = [row["base"]["norm"] for row in rows]
    for name, own in changes.items():
        found.append(Panel(MOVED, name, [change["share_moved"] for change in own]))
    for name, own in changes.items():
        sizes = [change["delta_norm"] for change in own]
        found.append(Panel(CHANGE, name, list(map(_ratio, sizes, norms))))
    return [*found, Panel(NORM, "base", norms)]


def _of_weights(rows: Sequence[Row], names: Sequence[str]) -> list[Panel]:
    """Return the measures of models that have no base to measure changes from."""
    found = _of_pairs(APART, rows, names, lambda pair: pair["relative_difference"])
    found += _of_pairs(DIFFERING, rows, names, lambda pair: pair["share_differing"])
    found += _of_pairs(TURNED, rows, names, lambda pair: _turned(pair["cosine_weights"]))
    for i, name in enumerate(names):
        found.append(Panel(NORM, name, [row["models"][i]["norm"] for row in rows]))
    return found


def _of_difference(record: Mapping[str, Any]) -> list[Panel]:
    rows = record["tensors"]
    return [
        Panel(APART, "", [row["relative_difference"] for row in rows]),
        Panel(DIFFERING, "", [row["share_differing"] for row in rows]),
        Panel(LARGEST, "", [row["largest_difference"] for row in rows]),
        Panel(TURNED, "", [_turned(row["cosine"]) for row in rows]),
        Panel(NORM, "A", [row["norm"] for row in rows]),
    ]


def _of_pairs(
    group: Group, rows: Sequence[Row], names: Sequence[str], value: Callable[[Row], Value]
) -> list[Panel]:
    """Return a panel for each pair of models, in the order in which rows hold them."""
    pairs = [(names[i], names[j]) for i in range(len(names)) for j in range(i + 1, len(names))]
    return [
        Panel(group, f"{one} · {other}", [value(row["pairs"][p]) for row in rows])
        for p, (one, other) in enumerate(pairs)
    ]


def _turned(cosine: Value) -> Value:
    return None if cosine is None else 1 - cosine


def _ratio(part: Value, whole: Value) -> Value:
    return part / whole if part is not None and whole else None
