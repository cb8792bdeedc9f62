"""Merging checkpoint folders: what comes out, what is refused, what never looks complete."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from cuvee.errors import MergeError
from cuvee.merge import shards, stream
from cuvee.merge.fusion import fuse
from cuvee.merge.stream import merge_checkpoints
from cuvee.models.random_model import write_random_model

Specialists = tuple[Path, Path]
Edit = Callable[[Path], None]


def nudge(source: Path, folder: Path, *, seed: int) -> Path:
    """Copy a checkpoint with every weight moved a little."""
    shutil.copytree(source, folder)
    generator = torch.Generator().manual_seed(seed)
    file = folder / "model.safetensors"
    moved = {
        name: tensor + 1e-3 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in load_file(file).items()
    }
    save_file(moved, file, metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Specialists:
    folder = tmp_path_factory.mktemp("trained")
    write_random_model(folder / "base")
    return (
        nudge(folder / "base", folder / "math", seed=1),
        nudge(folder / "base", folder / "code", seed=2),
    )


@pytest.fixture
def specialists(trained: Specialists, tmp_path: Path) -> Specialists:
    """Copies that a test may damage."""
    copies = [shutil.copytree(path, tmp_path / path.name) for path in trained]
    return Path(copies[0]), Path(copies[1])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v for f in sorted(folder.glob("*.safetensors")) for k, v in load_file(f).items()}


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("anchor", ["later", "earlier"])
def test_every_tensor_is_the_fusion_of_the_pair(
    trained: Specialists, tmp_path: Path, anchor: Any
) -> None:
    merged = merge_checkpoints(trained, anchor=anchor, out=tmp_path / "m", out_dtype="float32")
    math, code, result = (weights(p) for p in (*trained, tmp_path / "m"))
    assert set(result) == set(math)
    for name, tensor in result.items():
        pair = (code[name], math[name]) if anchor == "later" else (math[name], code[name])
        assert torch.equal(tensor, fuse(*pair)[0]), name
    assert merged.tensors == len(math)
    assert merged.share_adopted is not None
    assert 0 < merged.share_adopted < 0.5


def test_result_loads_in_transformers_with_the_config_s_dtype(
    trained: Specialists, tmp_path: Path
) -> None:
    out = tmp_path / "merged"
    merge_checkpoints(trained, anchor="later", out=out, out_dtype="bfloat16")
    model = AutoModelForCausalLM.from_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert model.dtype == torch.bfloat16
    assert all(t.dtype == torch.bfloat16 for t in weights(out).values())
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(trained[1]).chat_template
    ids = torch.tensor([tokenizer.encode("hello")])
    assert torch.isfinite(model(ids).logits).all()


def test_merging_a_model_with_itself_is_the_identity(trained: Specialists, tmp_path: Path) -> None:
    out = tmp_path / "merged"
    merged = merge_checkpoints([trained[0]] * 3, anchor="later", out=out, out_dtype="float32")
    before, after = weights(trained[0]), weights(out)
    assert all(torch.equal(before[n], after[n]) for n in before)
    assert merged.adopted == 0


def test_one_specialist_is_copied(trained: Specialists, tmp_path: Path) -> None:
    out = tmp_path / "merged"
    merged = merge_checkpoints(trained[:1], anchor="later", out=out, out_dtype="bfloat16")
    before, after = weights(trained[0]), weights(out)
    assert all(torch.equal(before[n].to(torch.bfloat16), after[n]) for n in before)
    assert merged.share_adopted is None


def test_shards_and_index_hold_the_same_tensors_as_one_file(
    trained: Specialists, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, many = tmp_path / "one", tmp_path / "many"
    merge_checkpoints(trained, anchor="later", out=one, out_dtype="bfloat16")
    planned = shards.plan_shards

    def small(tensors: Any, *, itemsize: int) -> Any:
        return planned(tensors, itemsize=itemsize, shard_bytes=40_000)

    monkeypatch.setattr(stream, "plan_shards", small)
    merge_checkpoints(trained, anchor="later", out=many, out_dtype="bfloat16")
    assert (one / "model.safetensors").exists()
    assert len(list(many.glob("model-*.safetensors"))) > 1
    expected, found = weights(one), weights(many)
    assert set(expected) == set(found)
    assert all(torch.equal(expected[n], found[n]) for n in expected)
    loaded = AutoModelForCausalLM.from_pretrained(many).state_dict()
    assert all(torch.equal(loaded[n], expected[n]) for n in expected)
    # A merge of sharded checkpoints reads through their index.
    merge_checkpoints([many, many], anchor="later", out=tmp_path / "again", out_dtype="bfloat16")
    assert all(torch.equal(t, expected[n]) for n, t in weights(tmp_path / "again").items())


def test_record_names_inputs_and_places_every_tensor(trained: Specialists, tmp_path: Path) -> None:
    merge_checkpoints(trained, anchor="later", out=tmp_path / "m", out_dtype="bfloat16")
    record = json.loads((tmp_path / "m" / "cuvee_merge.json").read_text())
    assert [source["name"] for source in record["order"]] == ["math", "code"]
    assert len({source["identity"] for source in record["order"]}) == 2
    assert (record["fusions"][0]["anchor"], record["fusions"][0]["other"]) == ("code", "math")
    rows = {row["name"]: row for row in record["tensors"]}
    row = rows["model.layers.1.self_attn.q_proj.weight"]
    assert (row["layer"], row["module"]) == (1, "self_attn.q_proj")
    assert 0 <= row["fusions"][0]["share_adopted"] <= 1
    assert rows["model.embed_tokens.weight"]["layer"] is None
    total = sum(r["fusions"][0]["adopted"] for r in rows.values())
    assert total == record["fusions"][0]["adopted"]


def test_same_inputs_give_the_same_bytes(trained: Specialists, tmp_path: Path) -> None:
    for name in ("one", "two"):
        merge_checkpoints(trained, anchor="later", out=tmp_path / name, out_dtype="bfloat16")
    files = sorted(f.name for f in (tmp_path / "one").iterdir())
    assert files == sorted(f.name for f in (tmp_path / "two").iterdir())
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_all_that_does_not_fit_is_listed_at_once(specialists: Specialists, tmp_path: Path) -> None:
    math, code = specialists
    tensors = load_file(code / "model.safetensors")
    tensors["model.norm.weight"] = torch.zeros(32)
    tensors["extra.weight"] = torch.zeros(2)
    tensors["counter"] = torch.zeros(2, dtype=torch.int64)
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, code / "model.safetensors", metadata={"format": "pt"})
    edit_json(code / "config.json", tie_word_embeddings=False, vocab_size=300)
    edit_json(code / "tokenizer_config.json", eos_token="<|endoftext|>")
    for place in (code / "chat_template.jinja", code / "tokenizer_config.json"):
        if place.suffix == ".jinja" and place.exists():
            place.write_text("{{ messages }}")
        elif place.suffix == ".json" and not (code / "chat_template.jinja").exists():
            edit_json(place, chat_template="{{ messages }}")
    with pytest.raises(MergeError) as raised:
        merge_checkpoints(specialists, anchor="later", out=tmp_path / "m", out_dtype="bfloat16")
    message = str(raised.value)
    for part in (
        "tensors only in math: model.layers.0.mlp.up_proj.weight",
        "tensors only in code: counter, extra.weight",
        "model.norm.weight (64,) against (32,)",
        "counter (I64)",
        "config tie_word_embeddings: true against false",
        "config vocab_size",
        "chat template differs",
        "tokenizer_config.json eos_token differs",
    ):
        assert part in message
    assert math.exists()
    assert not (tmp_path / "m").exists()


def test_padding_left_in_the_tokenizer_by_training_is_no_difference(
    specialists: Specialists, tmp_path: Path
) -> None:
    edit_json(specialists[0] / "tokenizer.json", truncation={"max_length": 5})
    edit_json(specialists[0] / "config.json", transformers_version="0.0.1", use_cache=False)
    merge_checkpoints(specialists, anchor="later", out=tmp_path / "m", out_dtype="bfloat16")
    assert (tmp_path / "m" / "config.json").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_are_named_and_leave_nothing(
    specialists: Specialists, tmp_path: Path, value: float
) -> None:
    file = specialists[1] / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"][3] = value
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(MergeError, match=r"code.*model\.norm\.weight holds 1 NaN or infinite"):
        merge_checkpoints(specialists, anchor="later", out=tmp_path / "m", out_dtype="bfloat16")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["code", "math"]


def test_values_out_of_float16_s_range_are_refused(
    specialists: Specialists, tmp_path: Path
) -> None:
    file = specialists[1] / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"][:] = 1e5
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(MergeError, match=r"model\.norm\.weight: its largest value, 1e\+05"):
        merge_checkpoints(specialists, anchor="later", out=tmp_path / "m", out_dtype="float16")


def truncate(path: Path) -> None:
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])


def without_weights(path: Path) -> None:
    (path / "model.safetensors").unlink()


def without_config(path: Path) -> None:
    (path / "config.json").unlink()


@pytest.mark.parametrize("edit", [truncate, without_weights, without_config])
def test_a_damaged_folder_is_named(specialists: Specialists, tmp_path: Path, edit: Edit) -> None:
    edit(specialists[1])
    with pytest.raises(MergeError, match="code"):
        merge_checkpoints(specialists, anchor="later", out=tmp_path / "m", out_dtype="bfloat16")


def test_a_full_folder_is_not_overwritten_and_nothing_is_merged_from_nothing(
    trained: Specialists, tmp_path: Path
) -> None:
    with pytest.raises(MergeError, match="not an empty folder"):
        merge_checkpoints(trained, anchor="later", out=trained[0], out_dtype="bfloat16")
    with pytest.raises(MergeError, match="at least one"):
        merge_checkpoints([], anchor="later", out=tmp_path / "m", out_dtype="bfloat16")


def test_a_killed_merge_leaves_no_config_and_the_next_one_succeeds(
    trained: Specialists, tmp_path: Path
) -> None:
    partial = tmp_path / ".m.partial"
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"half")
    merge_checkpoints(trained, anchor="later", out=tmp_path / "m", out_dtype="bfloat16")
    assert not partial.exists()
    assert (tmp_path / "m" / "config.json").exists()


def test_hints_of_a_scalar_an_empty_and_a_large_tensor_survive_the_file(tmp_path: Path) -> None:
    tensors = {"a": torch.tensor(1.5), "b": torch.empty(0, 3), "c": torch.arange(6.0).view(2, 3)}
    plan = [(name, tuple(tensor.shape)) for name, tensor in tensors.items()]
    planned = shards.plan_shards(plan, itemsize=4, shard_bytes=10)
    assert [len(shard.tensors) for shard in planned] == [2, 1]
    for shard in planned:
        shards.write_shard(tmp_path, shard, [tensors[n] for n, _ in shard.tensors], "float32")
    found = weights(tmp_path)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
