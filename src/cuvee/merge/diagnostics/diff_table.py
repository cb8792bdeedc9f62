"""A difference of two checkpoints for the terminal: sentences and two tables.

A `Difference` in, what rich prints out. Reads and compares nothing (that is `diff`).
"""

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cuvee.merge.diagnostics.diff import Amounts, Difference, added
from cuvee.merge.diagnostics.heatmap import module_order
from cuvee.merge.diagnostics.panels import shown
from cuvee.merge.diagnostics.record import place

MOST_CHANGED = 10
"""Tensors that are listed."""
LISTED = 8
"""Names of what could not be compared."""


def show(difference: Difference) -> RenderableType:
    """Return a difference for the terminal: totals, modules, the most changed tensors."""
    lines = [Text(sentence) for sentence in _sentences(difference)]
    if not difference.total.differing:
        return Group(*lines)
    modules: dict[str, list[Amounts]] = {}
    for tensor in difference.tensors:
        modules.setdefault(place(tensor.name)["module"], []).append(tensor.amounts)
    by_module = _table("module")
    for module in sorted(modules, key=module_order):
        count = len(modules[module])
        _add(by_module, f"{module} ×{count}" if count > 1 else module, added(modules[module]))
    changed = [tensor for tensor in difference.tensors if tensor.amounts.differing]
    changed.sort(key=lambda tensor: tensor.amounts.relative or 0.0, reverse=True)
    by_tensor = _table("most changed tensors")
    for tensor in changed[:MOST_CHANGED]:
        _add(by_tensor, tensor.name, tensor.amounts)
    return Group(*lines, by_module, by_tensor)


def _sentences(difference: Difference) -> list[str]:
    """Return what there is to say before the tables."""
    total, tensors = difference.total, difference.tensors
    compared = f"{total.elements:,} weights in {len(tensors):,} tensors"
    found = [f"A: {difference.a}", f"B: {difference.b}"]
    if difference.identical:
        found.append(f"Identical: all {compared} are equal.")
    elif not total.differing:
        found.append(f"What could be compared is equal: {compared}.")
    else:
        found.append(
            f"{total.differing:,} of {compared} differ ({shown(total.share_differing, 'share')}); "
            f"relative difference {shown(total.relative, 'number')}, cosine {_cosine(total)}, "
            f"largest difference {total.largest:.3g}."
        )
    if other := sum(tensor.dtypes[0] != tensor.dtypes[1] for tensor in tensors):
        found.append(
            f"Another dtype in B: {other:,} of {len(tensors):,} tensors; values were compared."
        )
    if broken := sum(tensor.not_finite for tensor in tensors):
        found.append(f"NaN or infinite values: {broken:,}, compared as 0.")
    refused = [f"{name} ({reason})" for name, reason in difference.not_compared]
    for what, names in (
        ("Only in A", difference.only_in_a),
        ("Only in B", difference.only_in_b),
        ("Not compared", refused),
    ):
        if names:
            more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
            found.append(f"{what}: {', '.join(names[:LISTED])}{more}")
    return found


def _table(first: str) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column(first, overflow="fold")
    for name in ("weights", "differ", "relative", "largest", "cosine"):
        table.add_column(name, justify="right")
    return table


def _add(table: Table, name: str, amounts: Amounts) -> None:
    table.add_row(
        Text(name),
        f"{amounts.elements:,}",
        shown(amounts.share_differing, "share"),
        shown(amounts.relative, "number"),
        f"{amounts.largest:.3g}",
        _cosine(amounts),
    )


def _cosine(amounts: Amounts) -> str:
    return "none" if amounts.cosine is None else f"{amounts.cosine:.6f}"
