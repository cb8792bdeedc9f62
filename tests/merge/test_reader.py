"""Rows of files as float32: every dtype, at any offset, and nothing that is not finite."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import xxhash
from safetensors.torch import save_file

from cuvee.errors import MergeError
from cuvee.merge.inputs import reader
from cuvee.merge.inputs.headers import TensorHeader, read_headers
from cuvee.merge.inputs.lora import Adapter, LowRank
from cuvee.merge.inputs.reader import (
    Tensors,
    hashes,
    open_sources,
    open_tensors,
    raw_rows,
    read_rows,
)
from cuvee.merge.kernels import Array

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def checkpoint(folder: Path, tensors: Mapping[str, torch.Tensor]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file(dict(tensors), folder / "model.safetensors", {"format": "pt"})
    return folder


def opened(*folders: Path, name: str = "x", d: int, allow_nonfinite: bool = False) -> Tensors:
    sources = open_sources([(read_headers(folder), None) for folder in folders])
    return open_tensors(sources, name, d=d, allow_nonfinite=allow_nonfinite)


def read(tensors: Tensors, begin: int, end: int, d: int) -> tuple[Array, list[int]]:
    out = np.full((len(tensors.headers), end - begin, d), 7, np.float32)
    return out, read_rows(tensors, begin, end, out)


def test_rows_of_every_dtype_are_widened_exactly(tmp_path: Path) -> None:
    values = torch.randn((9, 5), generator=torch.Generator().manual_seed(0))
    values[0] = torch.tensor([0.0, -0.0, 6e-8, 1e-40, 65504.0])
    stored = {str(dtype): values.to(dtype) for dtype in DTYPES}
    folders = [checkpoint(tmp_path / name, {"x": tensor}) for name, tensor in stored.items()]
    tensors = opened(*folders, d=5)
    for begin, end in ((0, 9), (0, 1), (3, 7), (8, 9), (4, 4)):
        found, bad = read(tensors, begin, end, 5)
        assert bad == [0] * 4
        for values_read, tensor in zip(found, stored.values(), strict=True):
            expected = tensor[begin:end].float().numpy()
            assert values_read.tobytes() == expected.tobytes()


@pytest.mark.parametrize("shape", [(), (0, 8), (6,), (2, 3, 4)])
def test_every_shape_is_rows_over_the_last_dimension(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    values = torch.arange(24.0)[: int(np.prod(shape))].reshape(shape)
    folder = checkpoint(tmp_path / "a", {"x": values})
    d = shape[-1] if shape else 1
    rows = values.numel() // d
    found, _ = read(opened(folder, d=d), 0, rows, d)
    assert np.array_equal(found[0], values.reshape(rows, d).numpy())


@pytest.mark.parametrize("shift", range(1, 8))
@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_at_odd_offsets_are_read(tmp_path: Path, dtype: torch.dtype, shift: int) -> None:
    # Only the library's own writer aligns; a header of any length is a valid file.
    values = torch.randn((4, 3), generator=torch.Generator().manual_seed(1)).to(dtype)
    folder = checkpoint(tmp_path / "a", {"x": values})
    file = folder / "model.safetensors"
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = data[8 : 8 + length].rstrip() + b" " * (shift - len(data[8 : 8 + length].rstrip()) % 8)
    file.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + length :])
    found, _ = read(opened(folder, d=3), 1, 4, 3)
    assert np.array_equal(found[0], values[1:].float().numpy())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_named_or_read_as_0_and_counted(
    tmp_path: Path, dtype: torch.dtype, value: float
) -> None:
    values = torch.ones((4, 3), dtype=dtype)
    good = checkpoint(tmp_path / "good", {"x": values})
    values[1, 2] = values[3, 0] = value
    wrong = checkpoint(tmp_path / "wrong", {"x": values})
    tensors = opened(good, wrong, d=3)
    read(tensors, 2, 3, 3)  # other rows are as good as any
    with pytest.raises(MergeError, match=r"tensor x holds NaN.* in \S*wrong/\S* \(1\)") as raised:
        read(tensors, 0, 2, 3)
    assert "good" not in str(raised.value)
    found, bad = read(opened(good, wrong, d=3, allow_nonfinite=True), 0, 4, 3)
    assert bad == [0, 2]
    assert found[1].tolist() == [[1, 1, 1], [1, 1, 0], [1, 1, 1], [0, 1, 1]]


def test_a_float64_beyond_float32_is_not_finite(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "a", {"x": torch.tensor([[1.0, 1e300]], dtype=torch.float64)})
    with pytest.raises(MergeError, match="NaN or infinite"):
        read(opened(folder, d=2), 0, 1, 2)


def test_rows_of_a_large_tensor_are_given_back_and_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "WINDOW_BYTES", 1000)
    values = torch.randn((300, 50), generator=torch.Generator().manual_seed(2))
    folder = checkpoint(tmp_path / "a", {"x": values, "y": -values})
    tensors = opened(folder, d=50)
    for _ in range(2):
        for begin in range(0, 300, 70):
            found, _ = read(tensors, begin, min(begin + 70, 300), 50)
            assert np.array_equal(found[0], values[begin : begin + 70].numpy())
        reader.release_all(tensors)


def test_bytes_and_hashes_are_those_of_the_rows(tmp_path: Path) -> None:
    values = torch.arange(12, dtype=torch.bfloat16).reshape(4, 3)
    tensors = opened(checkpoint(tmp_path / "a", {"w": values * 2, "x": values}), d=3)
    expected = values[1:3].contiguous().view(torch.uint8).numpy().tobytes()
    assert raw_rows(tensors, 1, 3)[0].tobytes() == expected
    assert hashes(tensors, 1, 3) == [xxhash.xxh3_64_intdigest(expected)]


def test_an_adapter_adds_its_delta_and_replaces_whole_tensors(tmp_path: Path) -> None:
    base = read_headers(checkpoint(tmp_path / "a", {"x": torch.ones(4, 2), "y": torch.ones(1, 2)}))
    other = read_headers(checkpoint(tmp_path / "b", {"y": torch.full((1, 2), 5.0)}))
    low = LowRank(np.arange(4, dtype=np.float32).reshape(4, 1), np.ones((1, 2), np.float32), 2.0)
    adapter = Adapter({"x": low}, {"y": other.tensors["y"]})
    sources = open_sources([(base, adapter), (base, None)])
    found, _ = read(open_tensors(sources, "x", d=2), 1, 3, 2)
    assert found.tolist() == [[[3, 3], [5, 5]], [[1, 1], [1, 1]]]
    found, _ = read(open_tensors(sources, "y", d=2), 0, 1, 2)
    assert found.tolist() == [[[5, 5]], [[1, 1]]]


def test_shards_are_read_through_their_index(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "a", {"x": torch.ones(2, 2)})
    (folder / "model.safetensors").rename(folder / "one.safetensors")
    save_file({"y": torch.zeros(1, 2), "stray": torch.zeros(1)}, folder / "two.safetensors")
    places = {"x": "one.safetensors", "y": "two.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    checkpoint_read = read_headers(folder)
    assert set(checkpoint_read.tensors) == {"x", "y"}
    found, _ = read(opened(folder, d=2, name="y"), 0, 1, 2)
    assert found.tolist() == [[[0, 0]]]


def test_a_header_says_where_a_tensor_is(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "a", {"x": torch.ones(2, 2)})
    file = folder / "model.safetensors"
    end = file.stat().st_size
    assert read_headers(folder).tensors["x"] == TensorHeader(
        "x", (2, 2), "F32", file, end - 16, end
    )
