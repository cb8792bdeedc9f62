"""NaN, infinity and what is out of range in a merge: named, or read as 0 and counted."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cuvee.errors import MergeError
from cuvee.merge import blocks
from cuvee.merge.config.read import MergeConfig, parse_config
from cuvee.merge.methods.spec import Method
from cuvee.merge.methods.table import METHODS
from cuvee.merge.stream import merge

ALL = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
KINDS = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
SHAPES = {"model.layers.0.mlp.up_proj.weight": (40, 30), "model.norm.weight": (30,)}
MATRIX, VECTOR = SHAPES


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 300)


def write(name: str, *, seed: int, dtype: torch.dtype = torch.float32, **values: float) -> None:
    """Write a checkpoint; `values`: replace one element each of the matrix or the vector."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {n: torch.randn(s, generator=generator).to(dtype) for n, s in SHAPES.items()}
    for place, value in values.items():
        tensors[MATRIX if place == "matrix" else VECTOR].view(-1)[17] = value
    Path(name).mkdir()
    Path(name, "config.json").write_text(json.dumps({"model_type": "a"}))
    save_file(tensors, f"{name}/model.safetensors", {"format": "pt"})


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def asked(method: Method, **changes: Any) -> MergeConfig:
    needed = {p.name: 0.5 for p in method.parameters if p.default is None}
    data: dict[str, Any] = {
        "merge_method": method.name,
        "models": ["bad", "good"][: method.models[1] or 2],
        "base_model": "base" if method.base != "refused" else None,
        "parameters": needed or None,
    }
    return parse_config(data | changes, where="test")


def merged(config: MergeConfig) -> dict[str, Tensor]:
    merge(config, Path("out"), threads=2)
    found: dict[str, Tensor] = load_file("out/model.safetensors")
    return found


@ALL
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_they_are_named_with_tensor_and_file_and_nothing_is_left(
    method: Method, value: float
) -> None:
    write("bad", seed=1, matrix=value)
    write("good", seed=2)
    write("base", seed=3)
    before = sorted(Path().iterdir())
    with pytest.raises(MergeError) as raised:
        merge(asked(method), Path("out"), threads=2)
    message = str(raised.value)
    assert f"tensor {MATRIX} holds NaN or infinite values" in message
    assert "bad/model.safetensors (1)" in message
    assert "good" not in message
    assert sorted(Path().iterdir()) == before


@ALL
def test_where_they_are_allowed_they_are_read_as_0_and_counted(method: Method) -> None:
    write("bad", seed=1, matrix=float("nan"), vector=-float("inf"))
    write("good", seed=2)
    write("base", seed=3)
    found = merged(asked(method, allow_nonfinite=True))
    rows = json.loads(Path("out/cuvee_merge.json").read_text())["tensors"]
    inputs = len(asked(method).models) + (method.base != "refused")
    assert {row["name"]: row["facts"]["read_as_0"] for row in rows} == {
        name: [1] + [0] * (inputs - 1) for name in SHAPES
    }
    Path("out").rename("first")
    zeroed = load_file("bad/model.safetensors")
    for tensor in zeroed.values():
        tensor[~torch.isfinite(tensor)] = 0
    save_file(zeroed, "bad/model.safetensors", {"format": "pt"})
    again = merged(asked(method))
    assert all(torch.equal(found[name], tensor) for name, tensor in again.items())


@KINDS
@pytest.mark.parametrize("anchor", ["later", "earlier"])
@pytest.mark.parametrize("tensor", ["matrix", "vector"])
def test_a_fusion_of_stored_bytes_names_them_too(
    dtype: torch.dtype, anchor: str, tensor: str
) -> None:
    write("good", seed=2, dtype=dtype)
    write("bad", seed=1, dtype=dtype, **{tensor: float("inf")})
    write("fine", seed=3, dtype=dtype)
    name = {"matrix": MATRIX, "vector": VECTOR}[tensor]
    method = METHODS["arcee_fusion"]
    for models in (["bad", "good"], ["good", "bad"], ["good", "fine", "bad"]):
        with pytest.raises(MergeError, match=rf"tensor {name} holds NaN.* bad/\S* \(1\)"):
            merge(asked(method, models=models, anchor=anchor), Path("out"), threads=2)
    config = asked(method, models=["good", "bad"], anchor=anchor, allow_nonfinite=True)
    assert all(torch.isfinite(found).all() for found in merged(config).values())


def test_mode_mergekit_names_them_too() -> None:
    write("bad", seed=1, matrix=float("nan"))
    write("good", seed=2)
    with pytest.raises(MergeError, match=rf"tensor {MATRIX} holds NaN.* bad/"):
        merge(asked(METHODS["arcee_fusion"], mode="mergekit"), Path("out"), threads=1)


def test_a_reference_is_named_too() -> None:
    write("bad", seed=1)
    write("good", seed=2)
    write("base", seed=3, vector=float("nan"))
    with pytest.raises(MergeError, match=rf"tensor {VECTOR} holds NaN.* base/"):
        merge(asked(METHODS["arcee_fusion"], reference="base"), Path("out"), threads=1)


@pytest.mark.parametrize("value", [65520.0, -1e6])
def test_what_is_out_of_float16_s_range_is_refused_by_name(value: float) -> None:
    write("bad", seed=1, vector=value)
    write("good", seed=1, vector=value)
    with pytest.raises(MergeError, match=rf"tensor {VECTOR}: 1 of the merged.*fit in float16"):
        merge(asked(METHODS["linear"], out_dtype="float16"), Path("out"), threads=1)
    assert not Path("out").exists()
    assert not Path(".out.partial").exists()
    assert merged(asked(METHODS["linear"], out_dtype="bfloat16"))[VECTOR].isfinite().all()


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_a_result_that_overflows_float32_is_refused_by_name() -> None:
    write("bad", seed=1, matrix=3e38)
    write("good", seed=2, matrix=3e38)
    write("base", seed=3, matrix=-3e38)
    config = asked(METHODS["task_arithmetic"], parameters={"weight": 2})
    with pytest.raises(MergeError, match=rf"tensor {MATRIX}: 1 of the merged values"):
        merge(config, Path("out"), threads=1)
