"""Export and import of GGUF are each other's inverse; what would change the model is refused."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from cuvee.errors import DataError
from cuvee.models.checkpoint import resolve
from cuvee.models.gguf_header import read_header
from cuvee.models.gguf_layout import halves_to_pairs, pairs_to_halves, shortest
from cuvee.models.gguf_read import read_gguf
from cuvee.models.gguf_write import write_gguf
from cuvee.models.pretokenizers import PRETOKENIZERS, by_name, name_of
from cuvee.models.random_model import Architecture, write_random_model

Checkpoint = Callable[[Architecture], Path]
ARCHITECTURES: tuple[Architecture, ...] = ("llama", "qwen2", "qwen3")


def changed(source: Path, folder: Path, file: str, **values: Any) -> Path:
    """Return a copy of a checkpoint with top-level values of one JSON file changed."""
    shutil.copytree(source, folder)
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | values))
    return folder


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("head", ["tied", "own"])
def test_reading_what_was_written_gives_the_same_checkpoint(
    architecture: Architecture, head: str, tmp_path: Path
) -> None:
    write_random_model(tmp_path / "in", architecture=architecture, tied=head == "tied")
    write_gguf(tmp_path / "in", tmp_path / "m.gguf", quantization="F32")
    read_gguf(tmp_path / "m.gguf", tmp_path / "out")
    before = load_file(tmp_path / "in" / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    for name in ("tokenizer.json", "chat_template.jinja", "tokenizer_config.json"):
        assert (tmp_path / "in" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    config = [json.loads((tmp_path / d / "config.json").read_text()) for d in ("in", "out")]
    assert config[0] == config[1]


@pytest.mark.parametrize("quantization", ["F32", "F16", "BF16", "Q8_0"])
def test_export_is_deterministic_and_stores_what_it_says(
    quantization: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    files = [tmp_path / "a.gguf", tmp_path / "b.gguf"]
    for file in files:
        write_gguf(checkpoint("qwen2"), file, quantization=quantization)
    assert files[0].read_bytes() == files[1].read_bytes()
    kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(files[0]).tensors}
    assert kinds.pop("blk.0.attn_q.bias") == "F32"
    assert kinds.pop("blk.0.attn_norm.weight") == "F32"
    assert kinds["token_embd.weight"] == kinds["blk.1.ffn_down.weight"] == quantization


@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from([(), (3,)]))
def test_reordering_rows_is_undone(heads: int, pairs: int, rest: tuple[int, ...]) -> None:
    count = heads * pairs * 2
    tensor = torch.arange(count * (3 if rest else 1)).reshape(count, *rest)
    assert torch.equal(pairs_to_halves(halves_to_pairs(tensor, heads), heads), tensor)


def test_reordering_interleaves_the_halves_of_each_head() -> None:
    rows = torch.tensor([0, 1, 2, 3, 10, 11, 12, 13])
    assert halves_to_pairs(rows, 2).tolist() == [0, 2, 1, 3, 10, 12, 11, 13]


@given(st.floats(2.0**-26, 2.0**24, width=32))
def test_shortest_decimal_is_the_same_float32(number: float) -> None:
    assert torch.tensor(shortest(number), dtype=torch.float32).item() == number


def test_shortest_decimal_is_what_people_write() -> None:
    assert shortest(9.999999747378752e-06) == 1e-5


@pytest.mark.parametrize("name", PRETOKENIZERS)
def test_a_pre_tokenizer_has_one_name(name: str) -> None:
    known = PRETOKENIZERS[name]
    model = {"ignore_merges": known.ignore_merges}
    assert name_of({"pre_tokenizer": known.rules, "model": model}) == name


def test_unknown_pre_tokenizers_are_refused_by_name() -> None:
    with pytest.raises(DataError, match="Whitespace"):
        name_of({"pre_tokenizer": {"type": "Whitespace"}, "model": {}})
    with pytest.raises(DataError, match="tekken"):
        by_name("tekken")


@pytest.mark.parametrize(
    ("file", "values", "said"),
    [
        ("config.json", {"model_type": "gpt2"}, "architecture 'gpt2'"),
        ("config.json", {"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        (
            "config.json",
            {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
            "rope_type 'dynamic'",
        ),
        ("config.json", {"tie_word_embeddings": False}, r"no tensor lm_head\.weight"),
        ("config.json", {"vocab_size": 200}, "has a token 264, the model only 200"),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Whitespace"}}, "pre-tokenizer"),
        ("tokenizer.json", {"normalizer": {"type": "Lowercase"}}, "normalizer"),
    ],
)
def test_what_would_change_the_model_is_refused(
    file: str, values: dict[str, Any], said: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = changed(checkpoint("llama"), tmp_path / "m", file, **values)
    with pytest.raises(DataError, match=said):
        write_gguf(folder, tmp_path / "m.gguf", quantization="F32")
    assert not list(tmp_path.glob("*gguf*"))


@pytest.mark.parametrize(("value", "quantization"), [(float("nan"), "F32"), (70000.0, "F16")])
def test_a_value_the_file_cannot_hold_is_refused(
    value: float, quantization: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(checkpoint("llama"), folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = value
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(DataError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        write_gguf(folder, tmp_path / "m.gguf", quantization=quantization)
    assert not list(tmp_path.glob("*gguf*"))


@pytest.mark.parametrize("keep", [0, 3, 20, 5000, 200000])
def test_a_cut_file_is_refused_by_name(keep: int, checkpoint: Checkpoint, tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    write_gguf(checkpoint("llama"), file, quantization="F32")
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"m\.gguf: not a whole GGUF file"):
        read_gguf(file, tmp_path / "out")


def test_rows_without_a_token_become_unused_tokens(tmp_path: Path) -> None:
    write_random_model(tmp_path / "m")
    file = tmp_path / "m" / "model.safetensors"
    weights = load_file(file)
    rows = weights["model.embed_tokens.weight"]
    weights["model.embed_tokens.weight"] = torch.cat([rows, torch.zeros(7, rows.shape[1])])
    save_file(weights, file)
    folder = changed(tmp_path / "m", tmp_path / "padded", "config.json", vocab_size=272)
    write_gguf(folder, tmp_path / "m.gguf", quantization="F32")
    read_gguf(tmp_path / "m.gguf", tmp_path / "out")
    before, after = (
        json.loads((tmp_path / d / "tokenizer.json").read_text()) for d in ("m", "out")
    )
    assert before["model"]["vocab"] == after["model"]["vocab"]


REAL = os.environ.get("CUVEE_TEST_GGUF", "")
"""A real model's .gguf file; what takes real weights is skipped without."""


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="CUVEE_TEST_GGUF names no .gguf file")
@pytest.mark.parametrize(
    ("quantization", "error"),
    [("F32", 0.0), ("BF16", 2.0**-8), ("F16", 2.0**-11), ("Q8_0", 0.01), ("Q4_K_M", 0.12)],
)
def test_a_real_model_comes_back_from_every_type(
    quantization: str, error: float, tmp_path: Path
) -> None:
    folder = resolve(REAL)
    write_gguf(folder, tmp_path / "m.gguf", quantization=quantization)
    original, written = (read_header(f) for f in (Path(REAL), tmp_path / "m.gguf"))
    ours = ("tokenizer.ggml.", "tokenizer.chat_template")
    for key in (k for k in original.metadata if k.startswith(ours)):
        if key in written.metadata:
            assert written.metadata[key] == original.metadata[key], key
        else:
            assert key == "tokenizer.ggml.add_space_prefix", "which SentencePiece alone reads"
    assert {t.name: t.shape for t in original.tensors} == {t.name: t.shape for t in written.tensors}
    read_gguf(tmp_path / "m.gguf", tmp_path / "out")
    before, after = (load_file(d / "model.safetensors") for d in (folder, tmp_path / "out"))
    assert before.keys() == after.keys()
    for name, weight in before.items():
        assert (weight - after[name]).norm() <= error * weight.norm() + 1e-12, name
