"""An export is made once: it stays while what it comes from is the same, and not longer."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
from safetensors.torch import load_file, save_file

from cuvee.models.gguf_kept import kept_gguf
from cuvee.models.gguf_write import About, write_gguf
from cuvee.models.random_model import Architecture

Checkpoint = Callable[[Architecture], Path]


@pytest.fixture
def folder(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint("llama"), tmp_path / "m"))


def test_a_file_of_the_same_source_stays(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.gguf"
    first = kept_gguf(folder, out, quantization="F16")
    before = out.stat()
    again = kept_gguf(folder, out, quantization="F16")
    assert (first.is_new, again.is_new) == (True, False)
    assert out.stat() == before
    assert again.exported == first.exported


def _weight(folder: Path, out: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] += 1
    save_file(weights, folder / "model.safetensors")


def _template(folder: Path, out: Path) -> None:
    file = folder / "chat_template.jinja"
    file.write_text(file.read_text() + "{# #}")


def _cut(folder: Path, out: Path) -> None:
    out.write_bytes(out.read_bytes()[:-32])


def _touched(folder: Path, out: Path) -> None:
    out.write_bytes(bytes([*out.read_bytes()[:-1], 1]))


def _gone(folder: Path, out: Path) -> None:
    out.unlink()


def _broken_note(folder: Path, out: Path) -> None:
    out.with_name("m.gguf.source.json").write_text("[")


@pytest.mark.parametrize("change", [_weight, _template, _cut, _touched, _gone, _broken_note])
def test_a_changed_source_or_file_is_exported_anew(
    change: Callable[[Path, Path], None], folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "m.gguf"
    kept_gguf(folder, out, quantization="F32")
    change(folder, out)
    assert kept_gguf(folder, out, quantization="F32").is_new
    write_gguf(folder, tmp_path / "fresh.gguf", quantization="F32")
    assert out.read_bytes() == (tmp_path / "fresh.gguf").read_bytes()


def test_another_type_or_name_is_exported_anew(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.gguf"
    kept_gguf(folder, out, quantization="F32")
    assert kept_gguf(folder, out, quantization="Q8_0").is_new
    about = About(name="m", base_models=("a/b",))
    assert kept_gguf(folder, out, quantization="Q8_0", about=about).is_new
    assert not kept_gguf(folder, out, quantization="Q8_0", about=about).is_new


def test_what_is_said_of_a_model_stands_in_the_file_and_changes_no_weight(
    folder: Path, tmp_path: Path
) -> None:
    about = About(name="mine", license="apache-2.0", base_models=("owner/base", "local"))
    write_gguf(folder, tmp_path / "a.gguf", quantization="F32", about=about)
    write_gguf(folder, tmp_path / "b.gguf", quantization="F32")
    said, plain = (gguf.GGUFReader(tmp_path / name) for name in ("a.gguf", "b.gguf"))
    added = {k: f.contents() for k, f in said.fields.items() if k not in plain.fields}
    assert added == {
        "general.name": "mine",
        "general.license": "apache-2.0",
        "general.base_model.count": 2,
        "general.base_model.0.name": "base",
        "general.base_model.0.organization": "owner",
        "general.base_model.0.repo_url": "https://huggingface.co/owner/base",
        "general.base_model.1.name": "local",
    }
    for a, b in zip(said.tensors, plain.tensors, strict=True):
        assert (a.name, a.data.tobytes()) == (b.name, b.data.tobytes())


def test_the_note_says_where_a_file_came_from(folder: Path, tmp_path: Path) -> None:
    kept_gguf(folder, tmp_path / "m.gguf", quantization="F32")
    note = json.loads((tmp_path / "m.gguf.source.json").read_text())
    assert note["source"]["quantization"] == "F32"
    assert len(note["source"]["checkpoint"]) == 16
