"""The files of weights: named, laid out and rounded as other programs do it."""

import errno
import json
import os
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from cuvee.merge.kernels import Array
from cuvee.merge.shards import (
    DTYPES,
    Shard,
    index_json,
    open_shard,
    plan_shards,
    prepare_shard,
    rounded,
    write_at,
)

TENSORS = {"a": (), "b": (0, 3), "c": (2, 3), "d": (4,), "e": (2, 1, 2)}
SHARD = Shard("model.safetensors", tuple(TENSORS.items()))


def as_bytes(values: Array) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return values.reshape(-1).view(np.uint8)


@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=12),
    shard_bytes=st.integers(1, 120),
)
def test_shards_hold_every_tensor_in_order_and_none_more_than_fits(
    sizes: list[int], shard_bytes: int
) -> None:
    tensors = [(f"t{number}", (size,)) for number, size in enumerate(sizes)]
    shards = plan_shards(tensors, itemsize=4, shard_bytes=shard_bytes)
    assert [tensor for shard in shards for tensor in shard.tensors] == tensors
    assert all(len(shard.tensors) == 1 or 4 * shard.elements <= shard_bytes for shard in shards)
    for one, following in pairwise(shards):  # none was closed too early
        assert 4 * (one.elements + prod(following.tensors[0][1])) > shard_bytes
    if len(shards) == 1:
        assert shards[0].file == "model.safetensors"
    else:
        assert shards[-1].file == f"model-{len(shards):05d}-of-{len(shards):05d}.safetensors"


@pytest.mark.parametrize("backwards", [False, True])
def test_a_file_written_in_any_order_is_a_safetensors_file(tmp_path: Path, backwards: bool) -> None:
    random = np.random.default_rng(0)
    values = {n: random.normal(size=shape).astype(np.float32) for n, shape in TENSORS.items()}
    file = open_shard(tmp_path / SHARD.file)
    places = prepare_shard(file, SHARD, "float32")
    for name in sorted(values, reverse=backwards):
        write_at(file, as_bytes(values[name]), places[name])
    os.close(file)
    found = load_file(tmp_path / SHARD.file)
    assert {name: tensor.shape for name, tensor in found.items()} == TENSORS
    assert all(np.array_equal(found[name], values[name]) for name in values)
    assert places["a"] % 8 == 0


def test_preparing_a_file_again_keeps_its_weights_and_cuts_what_is_too_long(
    tmp_path: Path,
) -> None:
    file = open_shard(tmp_path / SHARD.file)
    os.pwrite(file, b"x" * 10_000, 0)
    place = prepare_shard(file, SHARD, "float32")["d"]
    write_at(file, as_bytes(np.arange(4, dtype=np.float32)), place)
    prepare_shard(file, SHARD, "float32")
    os.close(file)
    assert load_file(tmp_path / SHARD.file)["d"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("tied", [True, False])
def test_the_index_is_the_one_that_transformers_writes(tmp_path: Path, tied: bool) -> None:
    config = LlamaConfig(
        vocab_size=100, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, tie_word_embeddings=tied,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path, max_shard_size=10_000)
    theirs = (tmp_path / "model.safetensors.index.json").read_text()
    shards = []
    for file in sorted(tmp_path.glob("model-*.safetensors")):
        tensors = load_file(file)
        shards.append(Shard(file.name, tuple((name, t.shape) for name, t in tensors.items())))
    assert len(shards) > 2
    assert index_json(shards, itemsize=4) == theirs
    order = [tensor for shard in shards for tensor in shard.tensors]
    planned = plan_shards(order, itemsize=4, shard_bytes=10_000)
    assert [shard.file for shard in planned] == [shard.file for shard in shards]


EDGES = [0.0, -0.0, 1.00390625, 1.01171875, 65504.0, 65519.0, 6e-8, 2.9e-8, 1e-40, 3.38e38]
"""Ties of bfloat16 to both sides, the ends of float16, and numbers too small for either."""


@settings(deadline=None)
@given(hnp.arrays(np.float32, hnp.array_shapes()))
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_are_rounded_as_torch_does_and_what_does_not_fit_is_counted(
    dtype: str, values: Array
) -> None:
    values = np.concatenate([values.ravel(), np.array(EDGES, np.float32)]).reshape(1, -1)
    data, back, lost = rounded(values, dtype)
    expected = torch.from_numpy(values).to(getattr(torch, dtype))
    fits = torch.isfinite(expected)
    assert lost == int((~fits).sum())
    stored = torch.from_numpy(data.copy()).view(expected.dtype).reshape(expected.shape)
    assert stored.shape == expected.shape == back.shape
    assert torch.equal(stored[fits].view(torch.uint8), expected[fits].view(torch.uint8))
    assert np.array_equal(back[fits.numpy()], expected.float().numpy()[fits.numpy()])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_never_fits(dtype: str, value: float) -> None:
    assert rounded(np.array([[1, value, value]], np.float32), dtype)[2] == 2


def test_nothing_is_rounded_to_nothing() -> None:
    data, back, lost = rounded(np.zeros((0, 8), np.float32), "bfloat16")
    assert (data.size, back.shape, lost) == (0, (0, 8), 0)


def test_a_full_disk_is_an_error() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    file = os.open("/dev/full", os.O_RDWR)
    with pytest.raises(OSError, match="No space") as caught:
        write_at(file, np.zeros(100, np.uint8), 0)
    os.close(file)
    assert caught.value.errno == errno.ENOSPC


def test_the_index_names_the_file_of_every_tensor() -> None:
    shards = plan_shards(list(TENSORS.items()), itemsize=2, shard_bytes=12)
    index = json.loads(index_json(shards, itemsize=2))
    assert index["metadata"] == {"total_parameters": 15, "total_size": 30}
    assert index["weight_map"] == {
        name: shard.file for shard in shards for name, _ in shard.tensors
    }
