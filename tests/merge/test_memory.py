"""Memory: a few blocks a thread, whatever the model's size."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

MEASURED = """
import json, sys
from pathlib import Path
from cuvee.merge.config.read import parse_config
from cuvee.merge.stream import merge
def peak():  # ru_maxrss would count what the process that started this one held
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0])
config = parse_config(json.loads(sys.argv[1]), where="test")
before = peak()
merge(config, Path(sys.argv[2]), threads=2)
print(peak() - before)
"""
ROWS, D = 2560, 2048


def write(folder: Path, *, megabytes: int, bits: int) -> Path:
    """Write a checkpoint of bfloat16 tensors of 10 MB, whose values differ by `bits`."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "a"}))
    random = np.random.default_rng(0)
    data = (0.02 * random.normal(size=(ROWS, D))).astype(np.float32).view(np.uint32) >> 16
    data = (data ^ (random.integers(0, 8, data.shape, np.uint32) & bits)).astype("<u2")
    count = megabytes * 1_000_000 // data.nbytes
    header = {
        f"model.layers.{n}.mlp.up_proj.weight": {
            "dtype": "BF16",
            "shape": [ROWS, D],
            "data_offsets": [n * data.nbytes, (n + 1) * data.nbytes],
        }
        for n in range(count)
    }
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _ in range(count):
            file.write(data.tobytes())
    return folder


def peak(method: str, folders: list[Path], out: Path) -> float:
    """Return megabytes a merge holds at its peak beyond what its imports do."""
    config = {
        "merge_method": method,
        "models": [str(folder) for folder in folders[1:]],
        "base_model": str(folders[0]) if method == "ties" else None,
        "parameters": {"weight": 0.5} if method == "ties" else None,
    }
    command = [sys.executable, "-c", MEASURED, json.dumps(config), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout) / 1000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Path]]:
    """Three models of 200 MB and three of 400 MB."""
    folders = {size: tmp_path_factory.mktemp(f"of {size} MB") for size in (200, 400)}
    return {
        size: [write(folder / f"{bits}", megabytes=size, bits=bits) for bits in (0, 3, 5)]
        for size, folder in folders.items()
    }


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize("method", ["arcee_fusion", "ties"])
def test_a_merge_holds_little_and_no_more_of_a_model_twice_as_large(
    made: dict[int, list[Path]], tmp_path: Path, method: str
) -> None:
    small, large = (peak(method, folders, tmp_path / f"{n}") for n, folders in made.items())
    assert 10 < small < 400
    assert abs(large - small) < 80
