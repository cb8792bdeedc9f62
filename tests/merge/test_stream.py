"""Merging checkpoint folders: what comes out is the method's, whatever threads, memory, shards."""

import json
import shutil
import struct
import urllib.request
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from cuvee.merge import blocks, plan
from cuvee.merge.blocks import apply, stack_of
from cuvee.merge.config.read import MergeConfig, parse_config
from cuvee.merge.methods.spec import Method
from cuvee.merge.methods.table import METHODS
from cuvee.merge.plan import make_plan, memory_needed
from cuvee.merge.shards import plan_shards
from cuvee.merge.stream import merge
from cuvee.models.engines import serve
from cuvee.models.gguf_write import write_gguf
from cuvee.models.random_model import Architecture, write_random_model
from cuvee.recipe import Serve

ALL = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
SUITABLE = {"weight": 0.4, "t": 0.3, "density": 0.6, "gamma": 0.05, "epsilon": 0.2, "lambda": 0.9}
"""Values by which a method does what it is for; ram's epsilon is its default."""


def moved(tensors: Mapping[str, Tensor], *, seed: int, by: float = 1e-2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (tensor.float() + by * torch.randn(tensor.shape, generator=generator)).to(tensor)
        for name, tensor in tensors.items()
    }


def checkpoint(folder: Path, tensors: Mapping[str, Tensor]) -> Path:
    """Write a checkpoint of any tensors."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["A"], "model_type": "a"}))
    save_file(dict(tensors), folder / "model.safetensors", {"format": "pt"})
    return folder


def specialist(base: Path, folder: Path, *, seed: int, dtype: torch.dtype | None = None) -> Path:
    """Copy a checkpoint with every weight moved a little."""
    shutil.copytree(base, folder)
    tensors = moved(load_file(base / "model.safetensors"), seed=seed)
    stored = {name: t.to(dtype or t.dtype) for name, t in tensors.items()}
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base and three specialists of it, two-layer models in float32."""
    folder = tmp_path_factory.mktemp("family")
    write_random_model(folder / "base")
    for seed, name in enumerate(("math", "code", "prose")):
        specialist(folder / "base", folder / name, seed=seed)
    return {path.name: path for path in folder.iterdir()}


def weights(folder: Path) -> dict[str, Tensor]:
    return {k: v for f in sorted(folder.glob("*.safetensors")) for k, v in load_file(f).items()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Say whether tensors are the same bit for bit."""
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype
        and one[name].shape == other[name].shape
        and torch.equal(one[name].reshape(-1).view(torch.uint8), t.reshape(-1).view(torch.uint8))
        for name, t in other.items()
    )


def record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "cuvee_merge.json").read_text())
    return found


def fuse(*models: Path, **changes: Any) -> MergeConfig:
    data = {"merge_method": "arcee_fusion", "models": [str(model) for model in models]}
    return parse_config(data | changes, where="test")


def asked(method: Method, models: list[Path], base: Path, **changes: Any) -> MergeConfig:
    """Return a config of any method, with a base where the method may have one."""
    parameters = {
        p.name: SUITABLE[p.name]
        for p in method.parameters
        if p.name in SUITABLE and (p.name != "epsilon" or p.each_model)
    }
    data: dict[str, Any] = {
        "merge_method": method.name,
        "models": [str(model) for model in models],
        "base_model": str(base) if method.base != "refused" else None,
        "parameters": parameters or None,
        "seed": 5,
    }
    return parse_config(data | changes, where="test")


def as_many_as_it_takes(method: Method, models: list[Path]) -> list[Path]:
    return models[: method.models[1] or 3]


def by_the_rule(config: MergeConfig, folders: list[Path], base: Path) -> dict[str, Tensor]:
    """Merge in memory, in bfloat16."""
    planned = make_plan(config, Path("nowhere"), threads=1, max_ram=None)
    models, based = [weights(folder) for folder in folders], weights(base)
    found = {}
    for name in models[0]:
        anchor = based[name].numpy() if planned.base else None
        stack = stack_of([model[name].numpy() for model in models], base=anchor, name=name)
        given = {"anchor": config.anchor} if config.method == "arcee_fusion" else {}
        rule = planned.method.rule(stack, **planned.parameters(name), **given)
        merged = torch.from_numpy(apply(stack, rule)).to(torch.bfloat16)
        found[name] = merged.reshape(models[0][name].shape)
    return found


@ALL
def test_any_threads_memory_and_shards_give_the_same_bytes_those_of_the_rule(
    method: Method, family: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 1000)  # so that all threads have work
    folders = as_many_as_it_takes(method, [family[name] for name in ("math", "code", "prose")])
    config = asked(method, folders, family["base"], out_dtype="bfloat16")
    expected = by_the_rule(config, folders, family["base"])
    least = memory_needed(make_plan(config, tmp_path / "x", threads=1, max_ram=None), 1)
    for threads, max_ram in ((1, None), (2, None), (3, None), (3, least)):
        out = tmp_path / f"{threads} {max_ram}"
        merge(config, out, threads=threads, max_ram=max_ram)
        assert same(weights(out), expected)
    small = partial(plan_shards, shard_bytes=40_000)
    monkeypatch.setattr(plan, "plan_shards", small)
    merge(config, tmp_path / "shards", threads=2)
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 2
    assert same(weights(tmp_path / "shards"), expected)
    records = {(out / "cuvee_merge.json").read_bytes() for out in tmp_path.iterdir()}
    assert len(records) == 1


@ALL
def test_merging_a_model_with_itself_is_the_identity_bit_for_bit(
    method: Method, family: dict[str, Path], tmp_path: Path
) -> None:
    one = specialist(family["base"], tmp_path / "one", seed=9, dtype=torch.bfloat16)
    models = as_many_as_it_takes(method, [one] * 3)
    if method.base != "refused":
        models.append(one)  # listed once more: the base is taken out
    merge(asked(method, models, one), tmp_path / "out", threads=2)
    assert same(weights(tmp_path / "out"), weights(one))


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_a_merged_model_loads_and_generates_in_transformers_and_llama_cpp(
    tmp_path: Path, architecture: Architecture, tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_random_model(tmp_path / "base", architecture=architecture, tied=tied)
    pair = [specialist(tmp_path / "base", tmp_path / name, seed=n) for n, name in enumerate("ab")]
    small = partial(plan_shards, shard_bytes=100_000)
    monkeypatch.setattr(plan, "plan_shards", small)
    out = tmp_path / "merged"
    merge(asked(METHODS["ties"], pair, tmp_path / "base", out_dtype="bfloat16"), out, threads=2)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert model.dtype == torch.bfloat16
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(pair[0]).chat_template
    stored = weights(out)
    assert (tied and "lm_head.weight" not in stored) or not tied
    loaded = model.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in stored.items())
    ids = tokenizer("hello", return_tensors="pt")
    assert model.generate(**ids, max_new_tokens=4, do_sample=False).shape[1] > ids.input_ids.numel()
    write_gguf(out, tmp_path / "m.gguf", quantization="BF16")
    settings = Serve(slots=1, context=256, threads=1, start_timeout=60)
    with serve(settings, str(tmp_path / "m.gguf"), name="m", folder=tmp_path) as engine:
        assert completed(engine.url)


def completed(url: str) -> bool:
    """Say whether a server generates tokens."""
    body = json.dumps({"model": "m", "prompt": "hello", "max_tokens": 4}).encode()
    request = urllib.request.Request(
        f"{url}/completions", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return bool(json.load(response)["usage"]["completion_tokens"])


def test_files_are_those_of_transformers_and_none_of_the_work_s(
    family: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()  # an empty folder is as good as none
    merge(fuse(family["math"], family["code"]), tmp_path / "out", threads=1)
    theirs = {path.name for path in family["math"].iterdir()}
    ours = {path.name for path in (tmp_path / "out").iterdir()}
    assert ours == theirs | {"cuvee_merge.json", "cuvee_merge.html"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    monkeypatch.setattr(plan, "plan_shards", partial(plan_shards, shard_bytes=100_000))
    merge(fuse(family["math"], family["code"]), tmp_path / "shards", threads=1)
    shards = sorted(path.name for path in (tmp_path / "shards").glob("*.safetensors"))
    again = {path.name for path in (tmp_path / "shards").iterdir()} - set(shards)
    assert again == ours - {"model.safetensors"} | {"model.safetensors.index.json"}
    index = json.loads((tmp_path / "shards" / "model.safetensors.index.json").read_text())
    for file in shards:
        with safe_open(tmp_path / "shards" / file, "pt") as opened:
            assert opened.metadata() == {"format": "pt"}
            assert all(index["weight_map"][name] == file for name in opened.keys())  # noqa: SIM118
    # A merge of sharded checkpoints reads through their index.
    merge(fuse(tmp_path / "shards", tmp_path / "shards"), tmp_path / "itself", threads=1)
    assert same(weights(tmp_path / "itself"), weights(tmp_path / "out"))


@pytest.mark.parametrize(("anchor", "order"), [("later", [1, 0]), ("earlier", [0, 1])])
def test_a_fusion_takes_what_it_adopts_from_the_other(
    family: dict[str, Path], tmp_path: Path, anchor: str, order: list[int]
) -> None:
    pair = (family["math"], family["code"])
    merged = merge(fuse(*pair, anchor=anchor), tmp_path / "out", threads=2)
    anchored, other = (weights(pair[place]) for place in order)
    result = weights(tmp_path / "out")
    adopted = 0
    for name, tensor in result.items():
        assert ((tensor == anchored[name]) | (tensor == other[name])).all()
        adopted += int((tensor != anchored[name]).sum())
    assert merged.tensors == len(result)
    assert merged.weights == merged.elements == sum(t.numel() for t in result.values())
    # Where the two are equal an adopted element shows no difference.
    assert merged.share_adopted == pytest.approx(adopted / merged.elements, rel=1e-2)
    assert 0 < adopted / merged.elements < 0.5


def test_one_model_is_copied(family: dict[str, Path], tmp_path: Path) -> None:
    merged = merge(fuse(family["math"], out_dtype="bfloat16"), tmp_path / "out", threads=1)
    expected = {name: t.to(torch.bfloat16) for name, t in weights(family["math"]).items()}
    assert same(weights(tmp_path / "out"), expected)
    assert merged.share_adopted is None


def test_the_record_names_inputs_and_places_every_tensor(
    family: dict[str, Path], tmp_path: Path
) -> None:
    config = fuse(family["math"], family["code"], reference=str(family["base"]))
    merge(config, tmp_path / "out", threads=1)
    found = record(tmp_path / "out")
    assert [source["name"] for source in found["order"]] == ["math", "code"]
    assert len({source["identity"] for source in found["order"]}) == 2
    assert found["base"]["name"] == "base"
    assert (found["fusions"][0]["anchor"], found["fusions"][0]["other"]) == ("code", "math")
    rows = {row["name"]: row for row in found["tensors"]}
    row = rows["model.layers.1.self_attn.q_proj.weight"]
    assert (row["layer"], row["module"]) == (1, "self_attn.q_proj")
    assert 0 < row["measures"]["models"][0]["share_moved"] <= 1
    total = sum(row["fusions"][0]["adopted"] for row in rows.values())
    assert total == found["fusions"][0]["adopted"] > 0


def test_the_identity_of_an_input_is_that_of_its_content(
    family: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(family["math"], tmp_path / "copy")
    edited = weights(family["math"])
    edited["model.norm.weight"][0] += 1
    shutil.copytree(family["math"], tmp_path / "edited")
    save_file(edited, tmp_path / "edited" / "model.safetensors", {"format": "pt"})
    merge(fuse(family["math"], tmp_path / "copy", tmp_path / "edited"), tmp_path / "o", threads=2)
    first, second, third = (source["identity"] for source in record(tmp_path / "o")["order"])
    assert first == second != third


def test_mode_mergekit_is_seeded_and_in_the_order_of_names(
    family: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cuvee.merge.methods import fusion_mergekit

    monkeypatch.setattr(fusion_mergekit, "SAMPLE", 100)  # so that random numbers are drawn
    found = []
    for threads, seed in ((1, 0), (2, 0), (1, 1)):
        out = tmp_path / f"{threads} {seed}"
        asking = fuse(family["math"], family["code"], mode="mergekit", seed=seed)
        merge(asking, out, threads=threads)
        found.append(weights(out))
    assert same(found[0], found[1])
    assert not same(found[0], found[2])
    assert "torch" in record(tmp_path / "1 0")["versions"]


SHAPES: dict[str, tuple[int, ...]] = {
    "scalar": (), "empty": (0, 8), "nothing": (3, 0), "vector": (7,), "long": (300_000,),
    "matrix": (6, 5), "experts": (2, 3, 4), "kernel": (4, 1, 3, 2), "one": (1, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", ["arcee_fusion", "linear", "ties", "dare_ties", "karcher"])
@pytest.mark.parametrize("out_dtype", ["float32", "float16", "bfloat16"])
def test_tensors_of_every_shape_and_dtype_are_merged(
    tmp_path: Path, name: str, out_dtype: str
) -> None:
    kinds = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
    generator = torch.Generator().manual_seed(0)
    base = {k: torch.randn(shape, generator=generator) for k, shape in SHAPES.items()}
    folders = []
    for seed in range(3):  # every tensor in another dtype in every model
        tensors = moved(base, seed=seed, by=0.1)
        mixed = {k: t.to(kinds[(i + seed) % 4]) for i, (k, t) in enumerate(tensors.items())}
        folders.append(checkpoint(tmp_path / f"m{seed}", mixed))
    method = METHODS[name]
    config = asked(method, folders[:2], folders[2], out_dtype=out_dtype)
    merge(config, tmp_path / "out", threads=2)
    found = weights(tmp_path / "out")
    assert {k: tuple(t.shape) for k, t in found.items()} == SHAPES
    assert {t.dtype for t in found.values()} == {getattr(torch, out_dtype)}
    models, based = [weights(folder) for folder in folders[:2]], weights(folders[2])
    planned = make_plan(config, tmp_path / "x", threads=1, max_ram=None)
    for key, tensor in found.items():
        arrays = [model[key].float().numpy() for model in models]
        anchor = based[key].float().numpy() if planned.base else None
        stack = stack_of(arrays, base=anchor, name=key)
        given = {"anchor": "later"} if name == "arcee_fusion" else {}
        rule = method.rule(stack, **planned.parameters(key), **given)
        expected = torch.from_numpy(apply(stack, rule)).reshape(tensor.shape)
        assert torch.equal(tensor, expected.to(tensor.dtype)), key


def test_tensors_at_odd_offsets_are_merged(tmp_path: Path) -> None:
    tensors = {"x": torch.randn(40, 30, generator=torch.Generator().manual_seed(3))}
    folders = [checkpoint(tmp_path / n, moved(tensors, seed=i)) for i, n in enumerate("ab")]
    config = fuse(*folders)
    merge(config, tmp_path / "even", threads=1)
    for folder in folders:
        file = folder / "model.safetensors"
        data = file.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header = data[8 : 8 + length] + b" " * 3
        file.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + length :])
    merge(config, tmp_path / "odd", threads=1)
    assert same(weights(tmp_path / "odd"), weights(tmp_path / "even"))


def test_a_warning_says_where_most_scores_tie(
    family: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = weights(family["math"])
    tensors["model.norm.weight"][0] += 1  # one weight of 64 moved, and of the others none
    shutil.copytree(family["math"], tmp_path / "other")
    save_file(tensors, tmp_path / "other" / "model.safetensors", {"format": "pt"})
    merged = merge(fuse(family["math"], tmp_path / "other"), tmp_path / "out", threads=1)
    assert merged.degenerate == ("model.norm.weight",)
    assert "most scores tie in 1 of" in capsys.readouterr().err


def test_the_record_s_measures_are_of_the_models_as_they_were_read(
    family: dict[str, Path], tmp_path: Path
) -> None:
    # They are taken after the method: one that wrote over its inputs would show here.
    for name, method in METHODS.items():
        folders = as_many_as_it_takes(method, [family["math"], family["code"], family["prose"]])
        out = tmp_path / name
        merge(asked(method, folders, family["base"]), out, threads=1)
        measured = {row["name"]: row["measures"]["models"][0] for row in record(out)["tensors"]}
        with_base = record(out)["base"] is not None
        model, base = weights(folders[0]), weights(family["base"])
        for tensor, found in measured.items():
            change = model[tensor] - base[tensor] if with_base else model[tensor]
            norm = float(np.linalg.norm(change.numpy().astype(np.float64)))
            key = "delta_norm" if with_base else "norm"
            assert found[key] == pytest.approx(norm, rel=1e-5), (name, tensor)
