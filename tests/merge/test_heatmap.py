"""Heat maps and the page around them: cells as strong as their values, and nothing that runs."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from cuvee.merge.diagnostics.heatmap import (
    Cell,
    heat_map,
    module_label,
    module_order,
    strength,
    write_html,
)
from cuvee.merge.diagnostics.measures import measure
from cuvee.merge.diagnostics.panels import Panel, heading, lines, panels, shown
from cuvee.merge.diagnostics.record import Input, TensorRow, merge_record

Browser = Callable[..., dict[str, Any]]

HOSTILE = '</svg></main><script>document.title = "owned"</script><img src=x onerror="alert(1)">'
NAMES = ("model.embed_tokens.weight", "lm_head.weight", "model.norm.weight")
MODULES = ("self_attn.q_proj.weight", "self_attn.q_proj.bias", "mlp.up_proj.weight")


def record(*, layers: int = 3, base: bool = True, hostile: str = "", k: int = 2) -> dict[str, Any]:
    """A small merge of random models; the norms of the first model never moved."""
    rng = np.random.default_rng(0)
    rows = []
    for name in [*NAMES, *(f"model.layers.{n}.{m}" for n in range(layers) for m in MODULES)]:
        start = rng.normal(size=(2, 8)).astype(np.float32)
        models = (start + rng.normal(size=(k, 2, 8)) / 100).astype(np.float32)
        if "norm" in name:
            models[0] = start
        fusion = {"elements": 16, "differing": 16, "adopted": 4, "degenerate": False}
        sums = measure(models, start if base else None, models[0])
        facts = {"fusions": [fusion] * (k - 1)}
        rows.append(TensorRow(name + hostile, (2, 8), facts, tuple(sums.tolist())))
    names = ["math", "code", "science"][:k]
    return merge_record(
        rows,
        config={"merge_method": "arcee_fusion", "anchor": "later"},
        models=[Input(name + hostile, name, "0", {}) for name in names],
        base=Input("start", "start", "1", {}) if base else None,
        out_dtype="bfloat16",
        warnings=["ties" + hostile],
    )


def cells_of(svg: str) -> list[ElementTree.Element]:
    """The cells of an SVG that must parse as XML."""
    found = ElementTree.fromstring(svg).iter()
    return [element for element in found if (element.get("class") or "").startswith("cell")]


def page(tmp_path: Path, data: dict[str, Any]) -> str:
    write_html(data, tmp_path / "heatmap.html")
    return (tmp_path / "heatmap.html").read_text(encoding="utf-8")


def test_a_cell_is_as_strong_as_its_value_and_says_its_number() -> None:
    cells = [Cell(0, "a", 0.1, "10 %"), Cell(0, "b", -0.4, "−40 %"), Cell(9, "a", None, "no value")]
    found = cells_of(heat_map(cells, top=0.4, title="x"))
    assert [cell.get("fill-opacity") for cell in found] == ["0.250", "1.000", "0.000"]
    assert [cell.get("class") for cell in found] == ["cell", "cell negative", "cell none"]
    assert found[1].findtext("title") == "layer 0, b: −40 %"
    assert found[0].get("x") == found[2].get("x") != found[1].get("x")
    assert found[0].get("y") == found[1].get("y") != found[2].get("y")


def test_names_of_modules_are_escaped() -> None:
    svg = heat_map([Cell(0, HOSTILE, 0.1, "x")], top=1, title=HOSTILE)
    assert "<script" not in svg
    assert cells_of(svg)[0].findtext("title") == f"layer 0, {HOSTILE}: x"


@pytest.mark.parametrize(("columns", "rows"), [(1, 1), (3, 80), (200, 2)])
def test_cells_stay_inside_the_frame_and_labels_apart(columns: int, rows: int) -> None:
    cells = [Cell(r, f"m{c}", 0.5, "x") for r in range(rows) for c in range(columns)]
    svg = heat_map(cells, top=1, title="x")
    width, height = (float(v) for v in ElementTree.fromstring(svg).get("viewBox", "").split()[2:])
    for cell in cells_of(svg):
        x, y, w, h = (float(cell.get(key, "")) for key in ("x", "y", "width", "height"))
        assert 0 <= x < x + w <= width
        assert 0 <= y < y + h <= height
    assert svg.count("<text") <= 48


def test_a_strength_never_leaves_its_range() -> None:
    assert [strength(value, 0.5) for value in (None, 0, 0.25, 9, -9)] == [0, 0, 0.5, 1, -1]


@pytest.mark.parametrize(
    ("module", "label"),
    [("self_attn.q_proj", "q"), ("self_attn.q_proj.bias", "q bias"), ("mlp.gate_proj", "gate"),
     ("post_attention_layernorm", "post norm"), ("self_attn.q_norm", "q_norm")],
)  # fmt: skip
def test_modules_have_short_names(module: str, label: str) -> None:
    assert module_label(module) == label


def test_modules_stand_in_the_order_a_layer_uses_them() -> None:
    names = ["norm", "mlp.down_proj", "self_attn.k_proj", "self_attn.q_proj.bias", "q_proj"]
    assert sorted(names, key=module_order) == [
        "q_proj", "self_attn.k_proj", "mlp.down_proj", "norm", "self_attn.q_proj.bias",
    ]  # fmt: skip


def titles(found: list[Panel]) -> list[tuple[str, str]]:
    return [(panel.group.title, panel.of) for panel in found]


def test_a_merge_from_a_base_shows_changes() -> None:
    data = record()
    found = panels(data)
    assert titles(found) == [
        ("Share adopted", "math into code"), ("Cosine of the changes", "math · code"),
        ("Sign conflicts", ""), ("Weights that moved", "math"), ("Weights that moved", "code"),
        ("Weights that moved", "merged"), ("Size of the change", "math"),
        ("Size of the change", "code"), ("Size of the change", "merged"),
        ("Norm of the weights", "base"), ("Weights kept", "math"), ("Weights kept", "code"),
    ]  # fmt: skip
    assert all(len(panel.values) == len(data["tensors"]) for panel in found)
    norm = [tensor["module"] for tensor in data["tensors"]].index("norm")
    assert found[1].values[norm] is None
    assert found[3].values[norm] == 0


def test_a_merge_without_a_base_compares_the_models() -> None:
    groups = dict.fromkeys(title for title, _ in titles(panels(record(base=False))))
    assert list(groups) == [
        "Share adopted", "Relative difference", "Weights that differ", "1 − cosine",
        "Norm of the weights", "Weights kept",
    ]  # fmt: skip


def test_three_models_have_three_pairs_and_two_fusions() -> None:
    found = titles(panels(record(k=3)))
    assert [of for title, of in found if title == "Cosine of the changes"] == [
        "math · code", "math · science", "code · science",
    ]  # fmt: skip
    assert ("Share adopted", "math+code into science") in found


def test_a_record_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="kind None"):
        panels({"method": "arcee_fusion"})


def test_numbers_are_shown_with_their_units() -> None:
    assert shown(0.125, "share") == "12.5\u00a0%"
    assert [shown(v, "signed") for v in (0.5, -0.5, 0.0)] == ["+0.500", "−0.500", "0"]
    assert (shown(1.23456, "number"), shown(None, "share")) == ("1.23", "no value")


def test_the_page_says_what_was_merged() -> None:
    data = record()
    assert heading(data) == "arcee_fusion of math and code"
    assert lines(data)[0] == "12 tensors, 192 weights, written as bfloat16."
    assert lines(data)[-1] == "Changes are measured from start."
    assert heading(record(k=1)) == "Copy of math"


def test_every_measure_has_a_choice_a_legend_and_its_numbers(tmp_path: Path) -> None:
    data = record()
    text, count = page(tmp_path, data), len(panels(data))
    assert text.count('type="radio"') == text.count('class="legend"') == count
    assert text.count('class="cell') == 9 * count
    assert text.count(" checked") == 1
    assert "embed_tokens" in text
    assert re.search(r"<th scope=\"row\">2</th>(<td>25.0?\s?%</td>){3}", text)


def test_the_page_is_the_same_at_every_run(tmp_path: Path) -> None:
    assert page(tmp_path, record()) == page(tmp_path, record())


def test_tensors_outside_layers_alone_make_a_page(tmp_path: Path) -> None:
    assert "<svg" not in page(tmp_path, record(layers=0))


class Tags(HTMLParser):
    """Collects the tags of a page and the attributes that could load or run something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.risky: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.risky += [a for a in attrs if a[0].startswith("on") or a[0] in ("src", "href")]


def test_hostile_names_stay_text_and_nothing_is_loaded(tmp_path: Path) -> None:
    found = Tags()
    found.feed(page(tmp_path, record(hostile=HOSTILE)))
    assert not found.risky
    assert not found.tags & {"script", "img", "link", "iframe", "object"}


LOOK = """
function look(window, page) {
  const panels = [...page.querySelectorAll(".panel")];
  const visible = () => panels.filter(panel => panel.offsetHeight).map(panel => panel.id);
  const first = visible();
  page.querySelector("#m1").click();
  return {
    first: first, second: visible(), title: page.title, scripts: page.scripts.length,
    requests: window.performance.getEntriesByType("resource").length,
    wide: page.documentElement.scrollWidth > page.documentElement.clientWidth,
    fill: window.getComputedStyle(page.querySelector(".cell.negative")).fill,
  };
}
"""


def test_a_browser_shows_one_measure_at_a_time_and_runs_nothing(
    browser: Browser, tmp_path: Path
) -> None:
    seen = browser(page(tmp_path, record(hostile=HOSTILE)), 390, 1200, look=LOOK)
    for found in seen.values():
        assert (found["first"], found["second"]) == (["p0"], ["p1"])
        assert (found["scripts"], found["requests"], found["wide"]) == (0, 0, False)
        assert found["title"].startswith("arcee_fusion of math</svg>")
        assert found["fill"] == "rgb(0, 88, 143)"
