"""A good export passes; one broken on purpose, in each way that exports break, does not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from cuvee.errors import DataError, RecipeError
from cuvee.models.checkpoint import load_tokenizer
from cuvee.models.gguf_write import write_gguf
from cuvee.models.random_model import Architecture, write_random_model
from cuvee.models.tokens import text_ids
from cuvee.records import Parity, read_rows, write_rows
from cuvee.release.parity import Text, read_text, shipped_text
from cuvee.release.parity.check import check_parity
from cuvee.release.parity.weights import file_weights

TEXT = Text("a short text", "What is 12 + 345? The answer, 证明, is\n\treturn x**2 🍷. " * 3)
Edit = Callable[[dict[str, Any], dict[str, numpy.ndarray[Any, Any]]], None]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a random llama."""
    folder = tmp_path_factory.mktemp("models") / "llama"
    write_random_model(folder)
    return folder


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return its export in F32."""
    file = tmp_path_factory.mktemp("exports") / "m.gguf"
    write_gguf(checkpoint, file, quantization="F32")
    return file


def parity(checkpoint: Path, file: Path, quantization: str = "F32", **changes: Any) -> Parity:
    asked: dict[str, Any] = {"text": TEXT, "tokens": 64, "folder": file.parent / "logs"}
    return check_parity(checkpoint, file, quantization=quantization, **asked | changes)


def broken(file: Path, out: Path, edit: Edit) -> Path:
    """Write a GGUF file again with metadata or tensors changed by `edit`."""
    reader = gguf.GGUFReader(file)
    metadata = {
        name: field.contents()
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.")
    }
    tensors = {tensor.name: tensor.data.copy() for tensor in reader.tensors}
    edit(metadata, tensors)
    writer = gguf.GGUFWriter(out, metadata.pop("general.architecture"))
    for name, value in metadata.items():
        kind = reader.fields[name].types[0]
        inner = reader.fields[name].types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, value, kind, sub_type=inner)
    for name, data in tensors.items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def perplexity(checkpoint: Path, text: str, tokens: int) -> float:
    """Return what transformers says of the first tokens of a text."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    ids = torch.tensor([text_ids(load_tokenizer(checkpoint), text)[:tokens]])
    with torch.no_grad():
        return float(model(ids, labels=ids).loss.exp())


def test_an_exact_export_passes_with_no_difference_at_all(
    checkpoint: Path, exported: Path, tmp_path: Path
) -> None:
    row = parity(checkpoint, exported)
    assert row.passed, row.detail
    assert (row.texts_unlike, row.chats_unlike) == (0, 0)
    assert row.texts > 30 and row.chats == 24
    assert (row.kl_mean, row.kl_p99, row.logit_difference, row.same_top) == (0.0, 0.0, 0.0, 1.0)
    assert row.perplexity == row.perplexity_checkpoint
    assert row.perplexity == pytest.approx(perplexity(checkpoint, TEXT.content, 64), rel=1e-5)
    assert row.positions == 63
    assert row.left_out > 0 and f"{row.left_out} tokens of the text left out" in row.detail
    assert row.engine_positions == 2
    assert row.engine_kl is not None and row.engine_kl < 1e-3
    assert row.bytes == exported.stat().st_size
    write_rows(tmp_path / "parity.parquet", [row], Parity)
    assert read_rows(tmp_path / "parity.parquet", Parity) == [row]


@pytest.mark.parametrize(("architecture", "kind"), [("qwen2", "BF16"), ("qwen3", "F16")])
def test_rounded_weights_of_other_architectures_pass(
    architecture: Architecture, kind: str, tmp_path: Path
) -> None:
    folder, file = tmp_path / "m", tmp_path / "m.gguf"
    write_random_model(folder, architecture=architecture, tied=False)
    write_gguf(folder, file, quantization=kind)
    row = parity(folder, file, kind)
    assert row.passed, row.detail
    assert row.logit_difference is not None and row.logit_difference > 0


def test_a_template_that_opens_the_reasoning_and_writes_bos_passes(
    checkpoint: Path, tmp_path: Path
) -> None:
    folder, file = tmp_path / "m", tmp_path / "m.gguf"
    shutil.copytree(checkpoint, folder)
    tokenizer = load_tokenizer(folder)
    template = str(tokenizer.chat_template).replace(
        "assistant\\n' }}", "assistant\\n<think>\\n' }}"
    )
    assert "<think>" in template
    tokenizer.bos_token, tokenizer.add_bos_token = "<|endoftext|>", True
    tokenizer.chat_template = "{{ bos_token }}" + template
    tokenizer.save_pretrained(folder)
    write_gguf(folder, file, quantization="F32")
    row = parity(folder, file)
    assert row.passed, row.detail
    assert row.positions == 64  # the first one follows BOS


def test_texts_that_a_tokenizer_composes_are_compared_so_and_noted(
    checkpoint: Path, tmp_path: Path
) -> None:
    folder, file = tmp_path / "m", tmp_path / "m.gguf"
    shutil.copytree(checkpoint, folder)
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["normalizer"] = {"type": "NFC"}
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    write_gguf(folder, file, quantization="F32")
    row = parity(folder, file)
    assert row.passed, row.detail
    assert "1 texts composed (NFC) first" in row.detail


def test_a_short_context_is_read_in_windows_and_said(checkpoint: Path, tmp_path: Path) -> None:
    folder, file = tmp_path / "m", tmp_path / "m.gguf"
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 24}))
    write_gguf(folder, file, quantization="F32")
    row = parity(folder, file)
    assert "in 3 windows of 24" in row.text
    assert row.positions == 64 - 3
    assert row.kl_mean == 0.0


def test_quantising_shows_as_a_divergence_and_fails_where_none_is_allowed(
    checkpoint: Path, tmp_path: Path
) -> None:
    file = tmp_path / "m.gguf"
    write_gguf(checkpoint, file, quantization="Q8_0")
    claimed = parity(checkpoint, file, "F32")
    assert claimed.kl_mean is not None and claimed.kl_mean > 0
    assert not claimed.passed
    assert "a log-probability differs by" in claimed.detail


def change_template(metadata: dict[str, Any], _: Any) -> None:
    key = "tokenizer.chat_template"
    metadata[key] = metadata[key].replace("<|im_end|>' + '\\n'", "<|im_end|>' + ' \\n'")


def lose_a_merge(metadata: dict[str, Any], _: Any) -> None:
    metadata["tokenizer.ggml.merges"] = metadata["tokenizer.ggml.merges"][1:]


def mistake_a_token_type(metadata: dict[str, Any], _: Any) -> None:
    metadata["tokenizer.ggml.token_type"][1] = int(gguf.TokenType.NORMAL)


def forget_to_reorder(_: Any, tensors: dict[str, Any]) -> None:
    weight = tensors["blk.0.attn_q.weight"]
    pairs = weight.reshape(-1, 8, 2, weight.shape[1])
    tensors["blk.0.attn_q.weight"] = pairs.swapaxes(1, 2).reshape(weight.shape).copy()


def zero_a_tensor(_: Any, tensors: dict[str, Any]) -> None:
    tensors["blk.1.ffn_down.weight"][:] = 0


def make_nan(_: Any, tensors: dict[str, Any]) -> None:
    tensors["blk.1.ffn_down.weight"][0, 0] = float("nan")


def mistake_the_base_of_positions(metadata: dict[str, Any], _: Any) -> None:
    metadata["llama.rope.freq_base"] = 500.0


def lose_a_tensor(_: Any, tensors: dict[str, Any]) -> None:
    del tensors["blk.1.ffn_down.weight"]


@pytest.mark.parametrize(
    ("edit", "said", "counts"),
    [
        (lambda *_: None, "", (0, 0)),  # that it was written again changes nothing
        (change_template, "conversations: 24 of 24: user, ", (0, 24)),
        (lose_a_merge, "token ids: ", None),
        (mistake_a_token_type, "token ids: ", None),
        (forget_to_reorder, "predictions: mean divergence", (0, 0)),
        (zero_a_tensor, "predictions: mean divergence", (0, 0)),
        (mistake_the_base_of_positions, "predictions: mean divergence", (0, 0)),
        (make_nan, "predictions: mean divergence nan", None),
        (lose_a_tensor, "not checked: predictions: ", None),
    ],
)
def test_what_is_broken_on_purpose_fails_by_name(
    edit: Edit,
    said: str,
    counts: tuple[int, int] | None,
    checkpoint: Path,
    exported: Path,
    tmp_path: Path,
) -> None:
    row = parity(checkpoint, broken(exported, tmp_path / "m.gguf", edit))
    assert row.passed == (not said), row.detail
    assert said in row.detail
    if counts is not None:
        assert (row.texts_unlike, row.chats_unlike) == counts
    if said.startswith("token ids"):
        assert row.texts_unlike > 0
        assert row.kl_mean == 0.0


def test_a_file_s_weights_are_those_that_gguf_s_own_reader_finds(
    checkpoint: Path, tmp_path: Path
) -> None:
    write_gguf(checkpoint, tmp_path / "m.gguf", quantization="Q8_0")
    ours = file_weights(tmp_path / "m.gguf")
    theirs = {t.name: t for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    stored = theirs["blk.1.ffn_down.weight"]
    wanted = gguf.quants.dequantize(stored.data, stored.tensor_type)
    found = ours.tensor("model.layers.1.mlp.down_proj.weight").numpy()
    assert stored.tensor_type.name == "Q8_0"
    assert numpy.array_equal(found, wanted)


def test_a_file_cut_short_is_a_row_that_did_not_pass(
    checkpoint: Path, exported: Path, tmp_path: Path
) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(exported.read_bytes()[: exported.stat().st_size // 2])
    row = parity(checkpoint, file)
    assert not row.passed
    assert (row.texts, row.chats, row.positions, row.kl_mean) == (0, 0, 0, None)
    assert "not checked: predictions: " in row.detail
    assert "not checked: token ids, conversations" in row.detail


def test_the_weights_of_another_checkpoint_do_not_pass(
    checkpoint: Path, exported: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(checkpoint, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] *= 1.01
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    row = parity(folder, exported)
    assert not row.passed
    assert row.logit_difference is not None and row.logit_difference > 1e-3


def test_llama3_positions_pass(checkpoint: Path, tmp_path: Path) -> None:
    folder, file = tmp_path / "m", tmp_path / "m.gguf"
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] = {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    (folder / "config.json").write_text(json.dumps(config))
    write_gguf(folder, file, quantization="F32")
    row = parity(folder, file)
    assert row.passed, row.detail


def test_what_the_caller_gets_wrong_is_an_error(
    checkpoint: Path, exported: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="quantization 'Q9'"):
        parity(checkpoint, exported, "Q9")
    with pytest.raises(DataError, match="0 tokens"):
        parity(checkpoint, exported, text=Text("none", ""))
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    with pytest.raises(RecipeError, match="not a UTF-8 text"):
        read_text(tmp_path / "latin")


def test_texts_are_read_as_they_stand(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes("é\r\n中".encode())
    assert read_text(tmp_path / "t.txt") == Text("t.txt", "é\r\n中")
    shipped = shipped_text().content
    assert all(part in shipped for part in (r"\boxed{", "def longest_run", "酿酒师", "cellar"))
