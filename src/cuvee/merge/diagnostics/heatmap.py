"""Heat maps of a merge or a difference: a row a layer, a column a module.

`heat_map` draws numbers as inline SVG whose colours come from the page around it; `write_html`
makes a page of all measures of a record (`panels`): one file without a script, which loads
nothing. All names are escaped. Computes no measures.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from cuvee.atomic import write_text
from cuvee.merge.diagnostics.panels import Panel, heading, lines, panels, shown
from cuvee.templates import environment

LEFT, RIGHT, TOP = 28, 34, 56
"""Margins of a map, in the SVG's own units: layers, and the slanted names of modules."""
PAGE_WIDTH, PAGE_CELL = 1000, 15
"""Of a map on the page."""
WIDEST = 90
"""Of a cell: a few modules are not stretched over the whole width."""
MOST_LABELS = 16
"""Rows that are labelled; columns take twice as many."""
LEAST_TOP = 1e-9
"""Where all values are 0 the scale still has a length."""
MODULE_RANK = {
    name: rank
    for rank, name in enumerate(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    )
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One tensor of a map."""

    layer: int
    module: str
    value: float | None
    text: str
    """The value for people."""


@dataclasses.dataclass(frozen=True)
class _View:
    """A panel as the page shows it."""

    panel: Panel
    map: Markup | None
    """None where no tensor belongs to a layer."""
    modules: tuple[str, ...]
    numbers: tuple[tuple[int, tuple[str, ...]], ...]
    """Layer -> values of its modules, as text."""
    outside: tuple[tuple[str, str, float], ...]
    """Module, value as text and strength in [-1, 1] of each tensor outside the layers."""
    legend: tuple[str, ...]
    """Numbers at evenly spaced places of the scale."""


def heat_map(
    cells: Sequence[Cell], *, top: float, title: str, width: int = 380, height: int = 11
) -> Markup:
    """Return cells as SVG, the stronger the nearer |value| is to `top` > 0.

    Modules stand in the order of their first cell. Negative values have the class `negative`,
    those that are None `none`. `width` and `height` of a cell's row in the SVG's own units.
    """
    layers = sorted({cell.layer for cell in cells})
    modules = list(dict.fromkeys(cell.module for cell in cells))
    step = min(WIDEST, (width - LEFT - RIGHT) / max(1, len(modules)))
    across = {module: LEFT + i * step for i, module in enumerate(modules)}
    down = {layer: TOP + i * height for i, layer in enumerate(layers)}
    parts = _labels(across, down, step=step, height=height)
    gap = min(1, step / 5)
    parts += [
        Markup(
            '<rect class="{}" x="{}" y="{}" width="{}" height="{}" fill-opacity="{:.3f}">'
            "<title>{}</title></rect>"
        ).format(
            _kind(cell.value),
            _n(across[cell.module]),
            down[cell.layer],
            _n(step - gap),
            height - 1,
            abs(strength(cell.value, top)),
            f"layer {cell.layer}, {cell.module}: {cell.text}",
        )
        for cell in cells
    ]
    return Markup(
        '<svg class="plot" viewBox="0 0 {} {}" role="img"><title>{}</title>{}</svg>'
    ).format(width, TOP + height * len(layers) + 4, title, Markup("").join(parts))


def strength(value: float | None, top: float) -> float:
    """Return how strongly a value is coloured, in [-1, 1]; 0 for None."""
    return 0.0 if value is None else max(-1.0, min(1.0, value / top))


def module_label(module: str) -> str:
    """Return a module's short name: `self_attn.q_proj` is `q`, `q_proj.bias` is `q bias`."""
    last = module.removesuffix(".bias").rpartition(".")[2].removesuffix("_proj")
    short = last.replace("_layernorm", " norm").replace("post_attention", "post")
    return f"{short} bias" if module.endswith(".bias") else short


def module_order(module: str) -> tuple[int, str]:
    """Return a sort key: weights in the order a layer uses them, then the rest by name."""
    ranks = [rank for name, rank in MODULE_RANK.items() if module.endswith(name)]
    return (ranks[0] if ranks else len(MODULE_RANK), module)


def write_html(record: Mapping[str, Any], path: Path) -> None:
    """Write the `page` of a record; the file appears complete or not at all."""
    write_text(path, page(record))


def page(record: Mapping[str, Any]) -> str:
    """Return the page of a record: of `cuvee_merge.json` or of what `cuvee diff` found.

    Raises ValueError for a record of another kind.
    """
    templates = environment("cuvee.merge.diagnostics", html=True)
    groups: dict[str, list[tuple[int, Panel]]] = {}
    found = panels(record)
    for number, panel in enumerate(found):
        groups.setdefault(panel.group.title, []).append((number, panel))
    return templates.get_template("heatmap.html.j2").render(
        record=record,
        groups=groups,
        views=[_view(record["tensors"], panel) for panel in found],
        module_label=module_label,
        heading=heading(record),
        lines=lines(record),
        warnings=record["warnings"] if record["kind"] == "merge" else [],
        versions=record.get("versions", {}),
    )


def _view(rows: Sequence[Mapping[str, Any]], panel: Panel) -> _View:
    """Return a panel laid out; layers and the rest share one scale."""
    unit = panel.group.unit
    top = max(LEAST_TOP, *(abs(value) for value in panel.values if value is not None))
    placed = list(zip(rows, panel.values, strict=True))
    cells = [
        Cell(row["layer"], row["module"], value, shown(value, unit))
        for row, value in placed
        if row["layer"] is not None
    ]
    cells.sort(key=lambda cell: module_order(cell.module))
    modules = tuple(dict.fromkeys(cell.module for cell in cells))
    texts = {(cell.layer, cell.module): cell.text for cell in cells}
    title = f"{panel.group.title} {panel.of}: {len(texts)} tensors, {len(modules)} modules"
    return _View(
        panel=panel,
        map=heat_map(cells, top=top, title=title, width=PAGE_WIDTH, height=PAGE_CELL)
        if cells
        else None,
        modules=modules,
        numbers=tuple(
            (layer, tuple(texts.get((layer, module), "") for module in modules))
            for layer in sorted({cell.layer for cell in cells})
        ),
        outside=tuple(
            (row["module"], shown(value, unit), strength(value, top))
            for row, value in placed
            if row["layer"] is None
        ),
        legend=tuple(
            shown(top * share, unit) for share in ((-1, 0, 1) if unit == "signed" else (0, 0.5, 1))
        ),
    )


def _labels(
    across: Mapping[str, float], down: Mapping[int, int], *, step: float, height: int
) -> list[Markup]:
    """Return the names of modules over the columns and the numbers of layers beside the rows."""
    every = max(1, math.ceil(len(across) / (2 * MOST_LABELS)))
    parts = [
        Markup('<text class="label" transform="translate({} {}) rotate(-38)">{}</text>').format(
            _n(x + 0.35 * step), TOP - 6, module_label(module)
        )
        for i, (module, x) in enumerate(across.items())
        if i % every == 0
    ]
    every = max(1, math.ceil(len(down) / MOST_LABELS))
    return parts + [
        Markup('<text class="label end" x="{}" y="{}">{}</text>').format(
            LEFT - 6, y + height - 2, layer
        )
        for i, (layer, y) in enumerate(down.items())
        if i % every == 0
    ]


def _kind(value: float | None) -> str:
    if value is None:
        return "cell none"
    return "cell negative" if value < 0 else "cell"


def _n(value: float) -> str:
    """Return a coordinate with at most one decimal: a tenth of a unit cannot be seen."""
    return f"{value:.1f}".removesuffix(".0")
