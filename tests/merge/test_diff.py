"""Differences of checkpoints: hand-worked values, what cannot be compared, and what is said."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from safetensors.torch import save_file

from cuvee.errors import MergeError
from cuvee.merge.blocks import stack_of
from cuvee.merge.diagnostics.diff import (
    Amounts,
    Difference,
    added,
    compare,
    diff_checkpoints,
    to_json,
)
from cuvee.merge.diagnostics.diff_table import show
from cuvee.merge.diagnostics.heatmap import write_html
from cuvee.merge.diagnostics.panels import panels
from cuvee.merge.threads import open_threads


def checkpoint(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    save_file(tensors, folder / "model.safetensors")
    return folder


def weights(seed: int, *, scale: float = 0.0) -> dict[str, torch.Tensor]:
    """A few bfloat16 tensors; `scale` is what differs from the same seed with 0."""
    made = torch.Generator().manual_seed(seed)
    names = ["model.embed_tokens.weight", "model.norm.weight"]
    names += [f"model.layers.{n}.mlp.{m}_proj.weight" for n in range(2) for m in ("up", "down")]
    start = {name: torch.randn(6, 40, generator=made) for name in names}
    return {
        name: (tensor + scale * torch.randn(6, 40, generator=made)).bfloat16()
        for name, tensor in start.items()
    }


def text_of(difference: Difference) -> str:
    console = Console(width=140)
    with console.capture() as captured:
        console.print(show(difference))
    return captured.get()


def test_amounts_by_hand() -> None:
    a, b = np.array([[3, 4, 0]], np.float32), np.array([[3, 0, -12]], np.float32)
    found = compare(stack_of([a, b]))
    assert found == Amounts(3, 25.0, 153.0, 160.0, 2, 12.0)
    assert found.norm == 5.0
    assert found.share_differing == pytest.approx(2 / 3)
    assert found.relative == pytest.approx((160 / 153) ** 0.5)
    assert found.cosine == pytest.approx(9 / (5 * 153**0.5))


def test_nothing_has_no_share_no_direction_and_no_size() -> None:
    none = compare(stack_of([np.zeros((0, 3)), np.zeros((0, 3))]))
    assert (none.share_differing, none.cosine, none.relative, none.norm) == (None, None, None, 0.0)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 3000))
def test_amounts_are_those_of_their_definition(seed: int, rows: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(-4, 5, (2, rows, d)) / 16).astype(np.float32)
    found = compare(stack_of([a, b]))
    assert found.differing == np.count_nonzero(a != b)
    assert found.largest == np.abs(b - a).max()
    assert found.squares_apart == pytest.approx(float(((b - a) ** 2).sum(dtype=np.float64)), 1e-6)
    assert found.squares_a == pytest.approx(float((a**2).sum(dtype=np.float64)), rel=1e-6)


def test_threads_change_nothing() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 300, 1000)).astype(np.float32)
    with open_threads(3) as threads:
        assert compare(stack_of([a, b], threads=threads)) == compare(stack_of([a, b]))


def test_amounts_add_up_over_tensors() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 4, 50)).astype(np.float32)
    whole = compare(stack_of([a, b]))
    parts = added(compare(stack_of([a[i : i + 2], b[i : i + 2]])) for i in (0, 2))
    assert (parts.elements, parts.differing, parts.largest) == (200, 200, whole.largest)
    assert parts.squares_apart == pytest.approx(whole.squares_apart)


def test_identical_checkpoints_say_so(tmp_path: Path) -> None:
    one, other = checkpoint(tmp_path / "a", weights(1)), checkpoint(tmp_path / "b", weights(1))
    found = diff_checkpoints(one, other, threads=2)
    assert found.identical
    assert "Identical: all 1,440 weights in 6 tensors are equal." in text_of(found)
    assert to_json(found)["identical"] is True


def test_a_changed_checkpoint_shows_where_it_changed(tmp_path: Path) -> None:
    changed = weights(1)
    changed["model.layers.1.mlp.up_proj.weight"][2, 3] += 2
    one, other = checkpoint(tmp_path / "a", weights(1)), checkpoint(tmp_path / "b", changed)
    found = diff_checkpoints(one, other, threads=1)
    assert not found.identical
    assert found.total.differing == 1
    assert found.total.largest == pytest.approx(2, abs=0.02)
    text = text_of(found)
    assert "1 of 1,440 weights in 6 tensors differ" in text
    assert "mlp.up_proj ×2" in text
    changed_rows = text.partition("most changed")[2]
    assert "model.layers.1.mlp.up_proj.weight" in changed_rows
    assert "down_proj" not in changed_rows


def test_tensors_that_cannot_be_compared_are_listed_and_the_others_compared(tmp_path: Path) -> None:
    a, b = weights(1), weights(1)
    a["only.a"], b["only.b"] = torch.zeros(2), torch.zeros(2)
    a["shape"], b["shape"] = torch.zeros(2, 3), torch.zeros(3, 2)
    a["ids"] = b["ids"] = torch.zeros(2, dtype=torch.int64)
    b["model.norm.weight"] = b["model.norm.weight"].float()
    one, other = checkpoint(tmp_path / "a", a), checkpoint(tmp_path / "b", b)
    found = diff_checkpoints(one, other, threads=1)
    assert (found.only_in_a, found.only_in_b) == (("only.a",), ("only.b",))
    assert dict(found.not_compared) == {
        "shape": "shape [2, 3] in A, [3, 2] in B",
        "ids": "dtype I64; compared are F64, F32, F16, BF16",
    }
    assert len(found.tensors) == 6
    assert not found.identical
    text = text_of(found)
    assert "What could be compared is equal: 1,440 weights in 6 tensors." in text
    assert "Only in A: only.a" in text
    assert "Another dtype in B: 1 of 6 tensors; values were compared." in text


def test_nan_and_infinite_values_are_counted(tmp_path: Path) -> None:
    broken = weights(1)
    broken["model.norm.weight"][0, :3] = torch.tensor([float("nan"), float("inf"), 1.0])
    one, other = checkpoint(tmp_path / "a", weights(1)), checkpoint(tmp_path / "b", broken)
    found = diff_checkpoints(one, other, threads=1)
    assert sum(tensor.not_finite for tensor in found.tensors) == 2
    assert "NaN or infinite values: 2, compared as 0." in text_of(found)
    json.dumps(to_json(found), allow_nan=False)


def test_a_difference_is_drawn_as_a_page(tmp_path: Path) -> None:
    one = checkpoint(tmp_path / "a", weights(1))
    other = checkpoint(tmp_path / "b", weights(1, scale=0.1))
    found: dict[str, Any] = to_json(diff_checkpoints(one, other, threads=1))
    assert [panel.group.title for panel in panels(found)] == [
        "Relative difference", "Weights that differ", "Largest difference", "1 − cosine",
        "Norm of the weights",
    ]  # fmt: skip
    relative = panels(found)[0].values
    assert all(value is not None and 0.05 < value < 0.2 for value in relative)
    write_html(found, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().count('class="cell"') == 4 * 5


def test_a_folder_without_weights_is_refused_by_name(tmp_path: Path) -> None:
    one = checkpoint(tmp_path / "a", weights(1))
    with pytest.raises(MergeError, match="missing"):
        diff_checkpoints(one, tmp_path / "missing", threads=1)


def test_markup_in_names_is_text(tmp_path: Path) -> None:
    a, b = {"[red]x[/red]": torch.zeros(3)}, {"[red]x[/red]": torch.ones(3)}
    one, other = checkpoint(tmp_path / "a", a), checkpoint(tmp_path / "b", b)
    assert "[red]x[/red]" in text_of(diff_checkpoints(one, other, threads=1))
