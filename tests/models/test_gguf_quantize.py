"""K-quants: made by llama.cpp's quantiser, the same each time, and loud where they are not."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import typing
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from cuvee.errors import CuveeError, RecipeError
from cuvee.models.gguf_quantize import FILE_TYPES, fallbacks, quantize
from cuvee.models.gguf_write import ALL_TYPES, write_gguf
from cuvee.models.random_model import Architecture, write_random_model
from cuvee.recipe import Quantization

pytest.importorskip("cyllama", reason="the extra `quantize` is not installed")
Checkpoint = Callable[[Architecture], Path]
Values = dict[str, NDArray[typing.Any]]


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a random bfloat16 llama whose rows are multiples of 256."""
    folder = tmp_path_factory.mktemp("wide")
    write_random_model(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64, "dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config))
    sizes = {"q_proj": (256, 256), "k_proj": (128, 256), "v_proj": (128, 256)}
    sizes |= {"o_proj": (256, 256), "gate_proj": (512, 256), "up_proj": (512, 256)}
    sizes |= {"down_proj": (256, 512), "embed_tokens": (265, 256)}
    generator = torch.Generator().manual_seed(1)
    weights = {}
    for name, old in load_file(folder / "model.safetensors").items():
        shape = sizes.get(name.split(".")[-2], (256,))
        drawn = torch.randn(shape, generator=generator) / 5 + (1.0 if old.ndim == 1 else 0.0)
        weights[name] = drawn.bfloat16()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def exact(wide: Path, tmp_path_factory: pytest.TempPathFactory) -> Values:
    """Return its weights as a file holds them exactly."""
    file = tmp_path_factory.mktemp("exact") / "m.gguf"
    write_gguf(wide, file, quantization="F32")
    return values(file)


def values(file: Path) -> Values:
    return {
        t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(file).tensors
    }


def test_every_type_of_a_recipe_is_written_here_or_by_the_quantiser() -> None:
    assert set(typing.get_args(Quantization)) == set(ALL_TYPES)


def test_file_types_are_those_that_gguf_knows() -> None:
    for name, number in FILE_TYPES.items():
        known = {"Q2_K": "MOSTLY_Q2_K", "Q6_K": "MOSTLY_Q6_K"}.get(name, f"MOSTLY_{name}")
        assert gguf.LlamaFileType[known] == number


@pytest.mark.parametrize("quantization", FILE_TYPES)
def test_a_k_quant_is_deterministic_near_the_weights_and_says_what_it_is(
    quantization: str, wide: Path, exact: Values, tmp_path: Path
) -> None:
    files = [tmp_path / "ä b.gguf", tmp_path / "b.gguf"]
    exported = [write_gguf(wide, file, quantization=quantization) for file in files]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert exported[0] == exported[1]
    assert exported[0].detail == ""
    assert exported[0].bytes == files[0].stat().st_size
    assert {kind[-2:] for kind in exported[0].types} == {"_K", "32"}
    assert sum(exported[0].types.values()) == exported[0].tensors == 20
    reader = gguf.GGUFReader(files[0])
    assert reader.fields["general.file_type"].contents() == FILE_TYPES[quantization]
    assert reader.fields["general.quantization_version"].contents() == 2
    quantized = values(files[0])
    assert exact.keys() == quantized.keys()
    bits = int(quantization[1])
    for name, weight in exact.items():
        # 2^bits steps over some 6 standard deviations a block; llama.cpp takes 1 to 3 bits more
        # for some tensors, never fewer.
        error = numpy.sqrt(numpy.mean((weight - quantized[name]) ** 2)) / numpy.std(weight)
        assert error < 2.0**-bits * 2, name
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")], "nothing temporary"


def test_k_quants_are_smaller_the_fewer_bits_they_have(wide: Path, tmp_path: Path) -> None:
    sizes = [
        write_gguf(wide, tmp_path / f"{name}.gguf", quantization=name).bytes
        for name in ("Q2_K", "Q4_K_S", "Q4_K_M", "Q6_K", "Q8_0", "BF16")
    ]
    assert sizes == sorted(set(sizes))


def test_what_fell_back_is_counted_with_its_reason(checkpoint: Checkpoint, tmp_path: Path) -> None:
    exported = write_gguf(checkpoint("qwen2"), tmp_path / "m.gguf", quantization="Q4_K_M")
    matrices = 2 * 7 + 1
    stored = {t.name: t for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert sum(len(t.shape) > 1 for t in stored.values()) == matrices
    assert exported.detail.startswith(f"{matrices} of {len(stored)} tensors fell back from Q4_K_M")
    assert "rows of 64, 128 numbers are no multiple of 256" in exported.detail


def test_fallbacks_name_types_and_rows() -> None:
    tensors = {
        "a": ((256, 8), "Q4_K"),
        "b": ((576, 8), "Q5_0"),
        "c": ((576, 9), "Q5_0"),
        "d": ((64, 9), "Q8_0"),
        "e": ((576,), "F32"),
    }
    assert fallbacks("Q4_K_M", tensors) == (
        "3 of 5 tensors fell back from Q4_K_M to Q5_0 (2), Q8_0 (1): "
        "their rows of 64, 576 numbers are no multiple of 256"
    )
    assert fallbacks("Q4_K_M", {"a": ((256, 8), "Q4_K"), "e": ((576,), "F32")}) == ""


def test_float32_weights_reach_the_quantiser_unrounded(wide: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(wide, folder)
    weights = {n: w.float() for n, w in load_file(folder / "model.safetensors").items()}
    name = "model.layers.0.mlp.up_proj.weight"
    # In bfloat16 the block would be constant.
    weights[name] = 1 + torch.linspace(0, 2**-9, weights[name].numel()).reshape_as(weights[name])
    save_file(weights, folder / "model.safetensors")
    write_gguf(folder, tmp_path / "m.gguf", quantization="Q6_K")
    written = values(tmp_path / "m.gguf")["blk.0.ffn_up.weight"]
    assert abs(written.mean() - (1 + 2**-10)) < 2**-12


def test_a_quantiser_that_fails_is_an_error_with_what_it_said(tmp_path: Path) -> None:
    source = tmp_path / "no.gguf"
    source.write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(CuveeError, match=r"exit code 1; the disk of .* MB free(.|\n)*failed"):
        quantize(source, tmp_path / "out.gguf", quantization="Q4_K_M", tensors=1)


def test_a_full_disk_is_an_error_that_says_what_is_free(wide: Path, tmp_path: Path) -> None:
    source = tmp_path / "source.gguf"
    write_gguf(wide, source, quantization="BF16")
    code = (
        "import resource, signal, sys; from pathlib import Path;"
        "from cuvee.models.gguf_quantize import quantize;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000));"
        "quantize(Path(sys.argv[1]), Path(sys.argv[2]), quantization='Q6_K', tensors=20)"
    )
    command = [sys.executable, "-c", code, str(source), str(tmp_path / "out.gguf")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "MB free" in done.stderr
    assert "failed to quantize" in done.stderr


def test_a_quantiser_that_fails_leaves_no_file(wide: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "m.gguf"
    out.parent.mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))  # less than the source needs
    try:
        with pytest.raises(OSError, match=r"m\.gguf"):
            write_gguf(wide, out, quantization="Q6_K")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert list(out.parent.iterdir()) == []


@pytest.mark.slow
def test_a_killed_export_leaves_no_temporary_source(wide: Path, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from cuvee.models import gguf_write;"
        "gguf_write.quantize = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL);"
        "gguf_write.write_gguf(Path(sys.argv[1]), Path(sys.argv[2]), quantization='Q6_K')"
    )
    out = tmp_path / "out" / "m.gguf"
    done = subprocess.run([sys.executable, "-c", code, str(wide), str(out)], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert list(out.parent.iterdir()) == []


def test_a_killed_parent_takes_the_quantiser_along(tmp_path: Path) -> None:
    pipe = tmp_path / "source"
    os.mkfifo(pipe)  # the quantiser waits here for someone to write
    code = (
        "import sys; from pathlib import Path; from cuvee.models.gguf_quantize import quantize;"
        "quantize(Path(sys.argv[1]), Path('o'), quantization='Q6_K', tensors=1)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(pipe)], cwd=tmp_path) as parent:
        child = _child(parent.pid)
        parent.kill()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{child}").exists()


def _child(parent: int) -> int:
    """Return the quantiser's process, once it has become that."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for number in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
            if b"cuvee.models.gguf_quantize" in words and b"cuvee.models.guard" not in words:
                return int(number)
        time.sleep(0.02)
    raise AssertionError("the quantiser did not start")


def test_a_missing_extra_is_said_before_anything_is_written(
    wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"pip install 'cuvee\[quantize\]'"):
        write_gguf(wide, tmp_path / "out" / "m.gguf", quantization="Q4_K_M")
    assert not (tmp_path / "out").exists()
