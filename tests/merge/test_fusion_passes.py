"""How Arcee Fusion reads a tensor: quartiles are exact and a result one, whatever the passes."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cuvee.merge import blocks
from cuvee.merge.blocks import Raw, Stack, apply, stack_of
from cuvee.merge.kernels import KINDS, LANES
from cuvee.merge.methods import fusion
from cuvee.merge.methods.divergence import MOMENTS, row_divergence
from cuvee.merge.methods.fusion import Anchor, arcee_fusion
from cuvee.merge.threads import open_threads

Array = NDArray[np.float32]
Facts = dict[str, Any]


def fuse(stack: Stack, *, anchor: Anchor = "later") -> tuple[Array, list[Facts]]:
    """Return the fusion of a stack [rows, d] and the statistics of its steps."""
    rule = arcee_fusion(stack, anchor=anchor)
    result = apply(stack, rule)
    assert rule.tally is not None
    return result, list(rule.tally()["fusions"])


def pair(a: Array, b: Array) -> tuple[Array, Facts]:
    """Return the fusion of an anchor and another tensor [rows, d], and its statistics."""
    result, (facts,) = fuse(stack_of([b, a]))
    return result, facts


def normal(*shape: int, scale: float = 1.0, seed: int = 0) -> Array:
    return np.asarray(scale * np.random.default_rng(seed).normal(size=shape), np.float32)


# --- quartiles are exact, whatever the sample guessed


def uneven(rows: int, d: int, *, seed: int = 0) -> tuple[Array, Array]:
    """Return two tensors; the elements that the sample looks at moved a hundred times less."""
    a = normal(rows, d, scale=0.02, seed=seed)
    update = normal(rows, d, scale=1e-2, seed=seed + 1)
    size = max(1, fusion.SAMPLE // rows)
    for row in range(rows):
        for k in range(size):
            first, last = k * d // size, (k + 1) * d // size
            update[row, first + (row * 40503) % (last - first)] /= 100
    return a, a + update


def exact_quartiles(a: Array, b: Array) -> list[float]:
    """Return the quartiles of the float32 scores by a sort of all of them."""
    work = np.empty((MOMENTS, LANES), np.float32), np.empty((5, a.shape[1]), np.float32)
    rows = [np.float32(row_divergence(*pair, *work)[0]) for pair in zip(a, b, strict=True)]
    ordered = np.sort((np.abs(b - a) * np.array(rows)[:, None]).ravel())
    return [float(ordered[int(share * (ordered.size - 1))]) for share in (0.25, 0.5, 0.75)]


def quartiles(facts: Facts) -> list[float]:
    return [facts["q1"], facts["median"], facts["q3"]]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passes over the tensor: `diverged`, `scanned`, `counted`."""
    made = []

    def spy(name: str) -> None:
        function = getattr(fusion, f"_{name}")

        def spied(*arguments: Any) -> Any:
            made.append(name)
            return function(*arguments)

        monkeypatch.setattr(fusion, f"_{name}", spied)

    for name in ("diverged", "scanned", "counted"):
        spy(name)
    return made


def test_a_sample_that_told_the_truth_saves_passes(passes: list[str]) -> None:
    a = normal(1200, 300, scale=0.02)
    b = a + normal(1200, 300, scale=3e-4, seed=1)
    assert quartiles(pair(a, b)[1]) == exact_quartiles(a, b)
    assert passes == ["diverged", "scanned"]


def test_rows_that_moved_by_far_different_amounts_do_not_mislead(passes: list[str]) -> None:
    a = normal(1200, 300, scale=0.02)
    amounts = np.exp(normal(1200, 1, scale=1.5, seed=2)).astype(np.float32)
    b = a + amounts * normal(1200, 300, scale=1e-4, seed=1)
    assert quartiles(pair(a, b)[1]) == exact_quartiles(a, b)
    assert passes == ["diverged", "scanned"]


def test_a_small_tensor_is_sampled_whole(passes: list[str]) -> None:
    a = normal(100, 300, scale=0.02)
    b = a + normal(100, 300, scale=3e-4, seed=1)
    assert quartiles(pair(a, b)[1]) == exact_quartiles(a, b)
    assert passes == ["diverged"]


@pytest.mark.parametrize(("rows", "d"), [(2000, 256), (4001, 133)])
def test_a_sample_that_misled_costs_passes_but_no_digit(
    passes: list[str], rows: int, d: int
) -> None:
    a, b = uneven(rows, d)
    result, facts = pair(a, b)
    assert passes == ["diverged", "scanned", "counted"]
    assert quartiles(facts) == exact_quartiles(a, b)
    mask = (result == b) & (a != b)
    assert 0 < mask.sum() == facts["adopted"]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kept", [0, 500])
def test_quartiles_are_the_same_where_too_many_scores_are_near_them_to_be_kept(
    monkeypatch: pytest.MonkeyPatch, passes: list[str], kept: int, threads: int
) -> None:
    monkeypatch.setattr(fusion, "KEPT", kept)
    a = normal(2000, 256, scale=0.02)
    b = a + normal(2000, 256, scale=1e-3, seed=1)
    with open_threads(threads) as pool:
        _, (facts,) = fuse(stack_of([b, a], threads=pool))
    assert passes[-1] == "counted"
    assert quartiles(facts) == exact_quartiles(a, b)


def test_ties_at_the_end_of_a_window_are_counted(passes: list[str]) -> None:
    a = np.zeros((1000, 300), np.float32)
    b = a.copy()
    b[::4] = normal(250, 300, scale=0.1)  # the third quartile is the last score of 0
    assert quartiles(pair(a, b)[1]) == exact_quartiles(a, b)
    assert passes == ["diverged", "scanned", "counted"]


@pytest.mark.parametrize("tied", [0.0, 0.25])
def test_ties_by_the_hundred_thousand_need_no_more_passes(passes: list[str], tied: float) -> None:
    # Two in three rows are `tied` away in every other element: their scores are 0, or one value.
    a = np.zeros((1002, 300), np.float32)
    b = a.copy()
    b[::3] = normal(334, 300, scale=0.1)
    b[1::3, ::2] = b[2::3, ::2] = tied
    _, facts = pair(a, b)
    assert passes == ["diverged", "scanned"]
    assert quartiles(facts) == exact_quartiles(a, b)


def test_a_chain_has_exact_quartiles_in_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = uneven(2000, 256)
    c = b + normal(2000, 256, scale=1e-3, seed=5)
    for kept in (fusion.KEPT, 0):
        monkeypatch.setattr(fusion, "KEPT", kept)
        _, steps = fuse(stack_of([a, b, c]))
        assert quartiles(steps[0]) == exact_quartiles(b, a)
        assert quartiles(steps[1]) == exact_quartiles(c, fuse(stack_of([a, b]))[0])


# --- the same for any threads, blocks and way of reading


@pytest.mark.parametrize("shape", [(301, 257), (4, 1000), (5, 70_003), (5000, 3), (100_003,)])
def test_threads_and_blocks_change_nothing(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    models = [normal(*shape, scale=0.02, seed=seed) for seed in range(3)]
    expected = fuse(stack_of(models))
    for elements in (blocks.BLOCK_ELEMENTS, 1 << 20, 1000):  # 1000: rows longer than a block
        monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", elements)
        for threads in (1, 2, 3):
            with open_threads(threads) as pool:
                result, facts = fuse(stack_of(models, threads=pool))
            assert np.array_equal(result, expected[0])
            assert facts == expected[1]


def with_raw(
    stack: Stack, parts: Sequence[NDArray[Any]], kinds: Sequence[str]
) -> tuple[Stack, Facts]:
    """Return the stack with its tensors' stored elements [rows, d], and counts of their reads."""
    counts = {"read": 0, "released": 0}
    numbers = np.array([KINDS[kind] for kind in kinds], np.int64)

    def release() -> None:
        counts["released"] += 1

    def read_raw(begin: int, end: int) -> Raw:
        counts["read"] += 1
        rows = (np.ascontiguousarray(part[begin:end]).reshape(-1) for part in parts)
        return Raw(tuple(row.view(np.uint8) for row in rows), numbers, release)

    return dataclasses.replace(stack, read_raw=read_raw), counts


def stored(values: Array, kind: str) -> tuple[NDArray[Any], Array]:
    """Return the elements as a file has them, and as float32."""
    if kind == "BF16":
        found: Array = torch.from_numpy(values).bfloat16().float().numpy()
        return (found.view(np.uint32) >> 16).astype(np.uint16), found
    elements = values.astype({"F16": np.float16, "F32": np.float32, "F64": np.float64}[kind])
    return elements, elements.astype(np.float32)


@pytest.mark.parametrize("anchor", ["later", "earlier"])
@pytest.mark.parametrize("kinds", [("BF16", "BF16"), ("F16", "BF16"), ("F32", "F16", "F64")])
@pytest.mark.parametrize("shape", [(2000, 129), (7, 64)])
def test_stored_bytes_give_what_float32_blocks_give(
    shape: tuple[int, int], kinds: Sequence[str], anchor: Anchor
) -> None:
    weights = normal(*shape, scale=0.02)
    models = [
        stored(weights + normal(*shape, scale=1e-3, seed=number + 1), kind)
        for number, kind in enumerate(kinds)
    ]
    stack = stack_of([values for _, values in models])
    raw, counts = with_raw(stack, [elements for elements, _ in models], kinds)
    result, facts = fuse(raw, anchor=anchor)
    expected, expected_facts = fuse(stack, anchor=anchor)
    assert np.array_equal(result, expected)
    assert facts == expected_facts
    assert counts["read"] == counts["released"] > 0
