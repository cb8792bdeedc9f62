"""Every way to name a model becomes a checked local folder; its identity is its content."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from cuvee.errors import DataError, RecipeError
from cuvee.models.checkpoint import RANDOM, identity, load_tokenizer, resolve
from cuvee.models.gguf_write import write_gguf
from cuvee.models.random_model import Architecture, write_random_model

Checkpoint = Callable[[Architecture], Path]


def hashes(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_random_model_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    write_random_model(tmp_path / "a")
    write_random_model(tmp_path / "b")
    write_random_model(tmp_path / "c", seed=1)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    assert identity(tmp_path / "a") == identity(tmp_path / "b") != identity(tmp_path / "c")


def test_random_model_is_made_once_and_loads(tmp_path: Path) -> None:
    folder = resolve(RANDOM, cache=tmp_path)
    begun = (folder / "model.safetensors").stat().st_mtime_ns
    assert resolve(RANDOM, cache=tmp_path) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == begun
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.num_hidden_layers == 2
    assert model.config.vocab_size == len(load_tokenizer(folder))


def test_every_byte_survives_the_random_tokenizer(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(resolve(RANDOM, cache=tmp_path))
    text = "the 中文 🍷 é\t\n \x00 <think>"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text


def test_identity_follows_weights_tokenizer_template_and_config_alone(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint("llama"), folder)
    first = identity(folder)
    (folder / "train_log.jsonl").write_text("{}")
    assert identity(folder) == first
    (folder / "chat_template.jinja").write_text("other")
    assert identity(folder) != first


def test_gguf_is_converted_once_and_a_killed_conversion_is_done_again(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    file = tmp_path / "m.gguf"
    write_gguf(checkpoint("llama"), file, quantization="F32")
    folder = resolve(str(file), cache=tmp_path)
    assert resolve(str(file), cache=tmp_path) == folder
    shutil.rmtree(folder)
    folder.with_name(f".{folder.name}.{os.getpid()}.tmp").mkdir()  # what a kill leaves behind
    assert resolve(str(file), cache=tmp_path) == folder
    assert [p.name for p in (tmp_path / "bases").iterdir()] == [folder.name]


def test_relative_gguf_path_is_of_the_current_folder(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gguf(checkpoint("llama"), tmp_path / "m.gguf", quantization="F32")
    monkeypatch.chdir(tmp_path)
    assert (resolve("m.gguf", cache=tmp_path) / "config.json").is_file()


@pytest.mark.parametrize("spec", ["./nowhere", "nowhere", "/no/where.gguf", "a/b/c", ""])
def test_what_names_nothing_is_refused_with_the_forms(spec: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"hub id .owner/name., a local folder, a \.gguf file"):
        resolve(spec, cache=tmp_path / "cache") if spec else resolve("?", cache=tmp_path)


def test_a_folder_says_what_it_lacks(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no config\.json and no tokenizer\.json"):
        resolve(str(tmp_path))
    folder = tmp_path / "m"
    shutil.copytree(checkpoint("llama"), folder)
    (folder / "model.safetensors").unlink()
    assert resolve(str(folder), weights=False) == folder
    with pytest.raises(DataError, match=r"neither model\.safetensors nor"):
        resolve(str(folder))
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "model-00001-of-00002.safetensors"}}))
    with pytest.raises(DataError, match="model-00001-of-00002"):
        resolve(str(folder))
    index.write_text("{}")
    with pytest.raises(DataError, match="not a readable index"):
        resolve(str(folder))


def test_an_unreadable_tokenizer_names_its_folder(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(checkpoint("llama"), folder)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match=str(folder)):
        load_tokenizer(folder)
