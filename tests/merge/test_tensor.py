"""Rules that go from stored bfloat16 to stored bfloat16 write what the general way writes."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cuvee.errors import MergeError
from cuvee.merge import blocks, tensor
from cuvee.merge.config.read import parse_config
from cuvee.merge.stream import merge

DIRECT: dict[str, dict[str, Any]] = {
    "arcee_fusion, the later anchors": {"merge_method": "arcee_fusion"},
    "arcee_fusion, the earlier anchors": {"merge_method": "arcee_fusion", "anchor": "earlier"},
    "linear": {"merge_method": "linear", "parameters": {"weight": [0.3, 0.7]}},
    "linear, not normalised": {
        "merge_method": "linear",
        "parameters": {"weight": [-0.3, 0.9], "normalize": False},
    },
    "slerp": {"merge_method": "slerp", "parameters": {"t": 0.3}, "base_model": "a"},
    "nuslerp": {"merge_method": "nuslerp", "parameters": {"weight": [0.4, 0.6]}},
}
SHAPES = {"matrix": (301, 257), "row": (1000,), "one": (1,), "none": (0, 5), "many": (5000, 3)}


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two models `a` and `b` in bfloat16, some of whose weights are the same or a -0."""
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(3)
    tensors = {k: 0.02 * torch.randn(shape, generator=generator) for k, shape in SHAPES.items()}
    tensors["identical"] = torch.ones(7, 9)
    for name, by in (("a", 0.0), ("b", 1e-3)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"architectures": ["A"], "model_type": "a"}')
        found = {}
        for key, values in tensors.items():
            change = by * torch.randn(values.shape, generator=generator)
            change[..., ::4] = 0
            found[key] = (values + change * (key != "identical")).bfloat16()
        found["matrix"][0, :4] = torch.tensor([0.0, -0.0, 0.0, 0.01] if by else [-0.0, 0, 0, 0])
        save_file(found, tmp_path / name / "model.safetensors", {"format": "pt"})
    return tmp_path


def merged(config: dict[str, Any], out: str) -> tuple[dict[str, torch.Tensor], list[Any]]:
    """Merge `a` and `b`; return the tensors' bits and their rows of the record."""
    data = config | {"out_dtype": "bfloat16"}
    data.setdefault("models", ["a", "b"] if "base_model" not in data else ["b"])
    merge(parse_config(data, where="test"), Path(out), threads=2)
    record = json.loads(Path(out, "cuvee_merge.json").read_text())
    tensors = load_file(Path(out, "model.safetensors"))
    return {name: t.view(torch.int16) for name, t in tensors.items()}, record["tensors"]


def near(one: Any, other: Any) -> bool:
    """Say whether JSON values are equal, numbers to float32's rounding."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(near(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(near, one, other))
    if isinstance(one, float):
        return bool(other == pytest.approx(one, rel=1e-5, abs=1e-7))
    return bool(one == other)


@pytest.mark.parametrize("config", DIRECT.values(), ids=DIRECT.keys())
@pytest.mark.usefixtures("folders")
def test_the_direct_way_gives_the_bits_and_the_measures_of_the_general_one(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 1000)
    ways = []

    def spied(*arguments: Any) -> tensor.Written:
        ways.append("direct")
        return write_direct(*arguments)

    write_direct = tensor._write_direct
    monkeypatch.setattr(tensor, "_write_direct", spied)
    direct = merged(config, "direct")
    assert len(ways) > 70
    monkeypatch.setattr(tensor, "_may_go_direct", lambda _: False)
    general = merged(config, "general")
    assert all(torch.equal(direct[0][name], bits) for name, bits in general[0].items())
    assert near(direct[1], general[1])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_direct_way_names_an_input_that_is_not_finite(folders: Path, value: float) -> None:
    tensors = load_file(folders / "b" / "model.safetensors")
    tensors["matrix"][7, 7] = value
    save_file(tensors, folders / "b" / "model.safetensors", {"format": "pt"})
    for number, config in enumerate(DIRECT.values()):
        with pytest.raises(MergeError, match=r"tensor matrix holds NaN or infinite.*b/model"):
            merged(config, str(number))


def test_the_direct_way_tells_what_does_not_fit(folders: Path) -> None:
    for name in ("a", "b"):
        tensors = load_file(folders / name / "model.safetensors")
        tensors["row"][3] = 3e38
        save_file(tensors, folders / name / "model.safetensors", {"format": "pt"})
    config = DIRECT["linear"] | {"parameters": {"weight": [1.0, 1.0], "normalize": False}}
    with pytest.raises(MergeError, match="tensor row: 1 of the merged values do not fit"):
        merged(config, "out")


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "dare_linear"])
def test_changes_beyond_float32_are_told_as_what_does_not_fit(folders: Path, method: str) -> None:
    for name, value in (("a", -3e38), ("b", 3e38)):
        tensors = load_file(folders / name / "model.safetensors")
        tensors["row"][3] = value
        save_file(tensors, folders / name / "model.safetensors", {"format": "pt"})
    parameters = {"weight": 1.0} | ({"density": 1.0} if method != "task_arithmetic" else {})
    config = {"merge_method": method, "base_model": "a", "parameters": parameters}
    with pytest.raises(MergeError, match=r"tensor row: \d+ of the merged values do not fit"):
        merged(config, "out")


def test_a_merge_into_the_folder_it_stands_in_is_refused_with_its_name(folders: Path) -> None:
    os.chdir(folders / "a")
    with pytest.raises(MergeError, match=r"exists and is not an empty folder"):
        merged({"merge_method": "linear", "parameters": {"weight": 1}, "models": ["../b"]}, ".")


def test_a_checkpoint_without_tensors_is_refused(folders: Path) -> None:
    for name in ("a", "b"):
        save_file({}, folders / name / "model.safetensors", {"format": "pt"})
    with pytest.raises(MergeError, match="hold no tensor"):
        merged(DIRECT["linear"], "out")
