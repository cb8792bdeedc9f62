"""Arcee Fusion of a stack: values by hand, invariants, and a float64 reference."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mergekit.merge_methods import merge_tensors
from numpy.typing import NDArray

from cuvee.errors import MergeError
from cuvee.merge.blocks import Stack, apply, stack_of
from cuvee.merge.methods.fusion import Anchor, arcee_fusion

Array = NDArray[np.float32]
Wide = NDArray[np.float64]
Facts = dict[str, Any]

ANCHOR = np.array([[0, 0, 0], [1, 2, 3]], np.float32)
OTHER = np.array([[0, 0, 0.1], [1, 2.5, 2]], np.float32)


def fused_stack(stack: Stack, *, anchor: Anchor = "later") -> tuple[Array, list[Facts]]:
    """Return the fusion of a stack [rows, d] and the statistics of its steps."""
    rule = arcee_fusion(stack, anchor=anchor)
    result = apply(stack, rule)
    assert rule.tally is not None
    return result, list(rule.tally()["fusions"])


def chain(arrays: Sequence[NDArray[Any]], *, anchor: Anchor = "later") -> Array:
    return fused_stack(stack_of(arrays), anchor=anchor)[0].reshape(arrays[0].shape)


def fuse(a: NDArray[Any], b: NDArray[Any]) -> tuple[Array, Facts]:
    """Return the fusion of an anchor and another tensor, and its statistics."""
    result, (facts,) = fused_stack(stack_of([b, a]))
    return result.reshape(a.shape), facts


def normal(*shape: int, scale: float = 1.0, seed: int = 0) -> Array:
    return np.asarray(scale * np.random.default_rng(seed).normal(size=shape), np.float32)


def rounded(values: Array, dtype: str) -> Array:
    """Return values rounded to a dtype of torch's, as float32."""
    result: Array = torch.from_numpy(values).to(getattr(torch, dtype)).float().numpy()
    return result


def bits(values: Array) -> NDArray[np.uint32]:
    return np.ascontiguousarray(values).view(np.uint32)


# --- the formula


def textbook_scores(anchor: Array, other: Array) -> Wide:
    """Return |B - A| KL(softmax(B) || softmax(A)) as it is written, in float64."""
    a, b = anchor.astype(np.float64), other.astype(np.float64)
    p = np.exp(b) / np.exp(b).sum(-1, keepdims=True)
    q = np.exp(a) / np.exp(a).sum(-1, keepdims=True)
    return np.asarray(np.abs(b - a) * (p * np.log(p / q)).sum(-1, keepdims=True))


def stable_scores(anchor: Array, other: Array) -> Wide:
    """Return the same with sum q (r e^r - expm1(r)): the textbook loses digits of small updates."""

    def log_softmax(values: Array) -> Wide:
        shifted = values.astype(np.float64) - values.max(-1, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))

    log_q = log_softmax(anchor)
    r = log_softmax(other) - log_q
    terms = np.exp(log_q) * (r * np.exp(r) - np.expm1(r))
    differences = other.astype(np.float64) - anchor
    return np.asarray(np.abs(differences) * terms.sum(-1, keepdims=True))


def threshold_of(scores: NDArray[Any]) -> float:
    ordered = np.sort(scores.ravel())
    q1, median, q3 = (float(ordered[int(s * (ordered.size - 1))]) for s in (0.25, 0.5, 0.75))
    return median + 1.5 * (q3 - q1)


def test_two_by_three_example_adopts_what_the_formula_says() -> None:
    # Row 0: KL = 0.0011, row 1: KL = 0.135, so the scores are (0, 0, 0.0001, 0, 0.068, 0.135);
    # sorted indices floor(1.25) = 1, floor(2.5) = 2, floor(3.75) = 3: Q1 = 0, median = 0,
    # Q3 = 0.0001, T = 1.5 Q3. Above it stand the last two of row 1.
    scores = textbook_scores(ANCHOR, OTHER)
    assert threshold_of(scores) == pytest.approx(1.5 * scores[0, 2])

    result, facts = fuse(ANCHOR, OTHER)

    assert result.tolist() == [[0, 0, 0], [1, 2.5, 2]]
    assert facts["threshold"] == pytest.approx(1.5 * scores[0, 2], rel=1e-5)
    assert facts["q3"] == pytest.approx(scores[0, 2], rel=1e-5)
    assert (facts["q1"], facts["median"], facts["degenerate"]) == (0, 0, False)
    assert (facts["elements"], facts["differing"], facts["adopted"]) == (6, 3, 2)


def test_swapping_anchor_and_other_gives_another_model() -> None:
    backward, _ = fuse(OTHER, ANCHOR)
    assert not np.array_equal(fuse(ANCHOR, OTHER)[0], backward)
    assert backward[0, 2] == np.float32(0.1)  # not adopted: the anchor's value stays
    assert np.array_equal(chain([OTHER, ANCHOR], anchor="earlier"), backward)


@pytest.mark.parametrize(("rows", "d"), [(7, 33), (8, 8), (5, 64), (4, 129), (1, 1000), (64, 2)])
def test_quartiles_agree_with_the_textbook_in_float64(rows: int, d: int) -> None:
    a = normal(rows, d)
    b = a + normal(rows, d, seed=1)
    expected = np.sort(textbook_scores(a, b).ravel())
    result, facts = fuse(a, b)
    for name, share in (("q1", 0.25), ("median", 0.5), ("q3", 0.75)):
        at = int(share * (expected.size - 1))
        assert facts[name] == pytest.approx(expected[at], rel=2e-5)
    mask = textbook_scores(a, b) >= threshold_of(expected)
    assert np.array_equal(result, np.where(mask, b, a))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("update", [2e-5, 1e-4, 3e-4, 1e-3])
def test_what_is_adopted_agrees_with_float64_for_small_updates(dtype: str, update: float) -> None:
    weights = normal(256, 1024, scale=0.02)
    a = rounded(weights, dtype)
    b = rounded(weights + normal(256, 1024, scale=update, seed=1), dtype)
    scores = stable_scores(a, b)
    expected = scores >= threshold_of(scores)

    result, facts = fuse(a, b)

    taken, wanted = (result == b) & (a != b), expected & (a != b)
    assert (taken & wanted).sum() / (taken | wanted).sum() >= 0.995
    assert facts["adopted"] == pytest.approx(expected.sum(), rel=0.005)


def test_agrees_with_mergekit_in_float64() -> None:
    a = normal(64, 64)
    b = a + normal(64, 64, scale=0.3, seed=1)
    pair = [torch.from_numpy(array.astype(np.float64)) for array in (a, b)]
    theirs = merge_tensors(pair, "arcee_fusion", base_index=0).numpy()
    ours, facts = fuse(a, b)
    assert 0.02 < facts["adopted"] / facts["elements"] < 0.5
    # Theirs is a + (b - a), so an adopted value can be off by an ulp.
    assert (np.abs(ours - theirs) < 1e-12).mean() > 0.999


# --- invariants


@settings(max_examples=50, deadline=None)
@given(
    shape=st.sampled_from([(), (1,), (99,), (100,), (3, 1), (5, 20), (2, 3, 4)]),
    scale=st.sampled_from([0.1, 10.0, 1000.0]),
    seed=st.integers(0, 99),
)
def test_every_element_is_a_copy_and_fusing_with_itself_changes_no_bit(
    shape: tuple[int, ...], scale: float, seed: int
) -> None:
    a = normal(*shape, scale=scale, seed=seed)
    b = a + normal(*shape, scale=0.1 * scale, seed=seed + 100)
    result, facts = fuse(a, b)
    assert result.shape == a.shape
    assert ((bits(result) == bits(a)) | (bits(result) == bits(b))).all()
    assert facts["elements"] == a.size
    assert facts["adopted"] >= np.count_nonzero((result == b) & (a != b))
    itself, nothing = fuse(a, a.copy())
    assert np.array_equal(bits(itself), bits(a))
    assert (nothing["differing"], nothing["adopted"], nothing["degenerate"]) == (0, 0, False)


def test_zeros_that_differ_in_sign_alone_stay_the_anchor_s() -> None:
    a = np.array([[0.0, -0.0, 1.0]], np.float32)
    result, facts = fuse(a, np.array([[-0.0, 0.0, 1.0]], np.float32))
    assert np.array_equal(bits(result), bits(a))
    assert (facts["differing"], facts["adopted"]) == (0, 0)


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0)])
def test_empty_tensors_stay_empty_without_quantiles(shape: tuple[int, ...]) -> None:
    result, facts = fuse(np.empty(shape), np.empty(shape))
    assert result.shape == shape
    assert (facts["elements"], facts["threshold"], facts["median"]) == (0, None, None)


@pytest.mark.parametrize("shape", [(), (1,), (4, 1)])
def test_rows_of_one_element_are_adopted_whole_and_marked_degenerate(
    shape: tuple[int, ...],
) -> None:
    # A softmax over one element is 1 in both models: no divergence, threshold 0, 0 >= 0.
    result, facts = fuse(np.zeros(shape), np.ones(shape))
    assert np.array_equal(result, np.ones(shape))
    assert facts["degenerate"]
    assert facts["adopted"] == facts["elements"]


@pytest.mark.parametrize("value", [0.5, 100.0])
def test_a_repeated_value_shifted_as_a_whole_is_degenerate(value: float) -> None:
    # A softmax does not see a constant shift of its row: all scores tie, at 0 or at rounding.
    b = np.full((10, 10), value + 0.25)
    result, facts = fuse(np.full((10, 10), value), b)
    assert np.array_equal(result, b)
    assert facts["degenerate"]


def test_few_moved_weights_make_the_threshold_zero_and_are_marked() -> None:
    a = np.zeros((10, 10))
    b = a.copy()
    b[0, :5] = 1.0
    result, facts = fuse(a, b)
    assert np.array_equal(result, b)
    assert (facts["degenerate"], facts["threshold"]) == (True, 0)
    assert (facts["differing"], facts["adopted"]) == (5, 100)


@pytest.mark.parametrize("scale", [30.0, 100.0, 300.0])
def test_large_weights_do_not_overflow(scale: float) -> None:
    a = normal(50, 40, scale=scale)
    b = a + normal(50, 40, scale=scale / 10, seed=1)
    scores = stable_scores(a, b)
    assert 0 < threshold_of(scores) < np.inf
    assert np.array_equal(fuse(a, b)[0], np.where(scores >= threshold_of(scores), b, a))


def test_weights_whose_differences_overflow_are_refused_by_name() -> None:
    a = np.full((4, 1), 3e38, np.float32)
    with pytest.raises(MergeError, match=r"tensor lm_head: .* overflow float32"):
        arcee_fusion(stack_of([a, -a], name="lm_head"), anchor="later")


# --- chains


@pytest.mark.parametrize("shape", [(20, 20), (3, 7), (100,)])
def test_a_chain_is_fusions_one_after_another_with_the_stated_anchor(
    shape: tuple[int, ...],
) -> None:
    a, b, c, d = (normal(*shape, seed=seed) for seed in range(4))
    later, steps = fused_stack(stack_of([a, b, c, d]))
    expected, last = fuse(d, fuse(c, fuse(b, a)[0])[0])
    assert np.array_equal(later.reshape(shape), expected)
    assert len(steps) == 3
    assert steps[2] == last
    earlier, steps = fused_stack(stack_of([a, b, c]), anchor="earlier")
    expected, last = fuse(fuse(a, b)[0], c)
    assert np.array_equal(earlier.reshape(shape), expected)
    assert steps[1] == last


@pytest.mark.parametrize("anchor", ["later", "earlier"])
def test_a_chain_of_one_is_that_model_and_of_none_is_refused(anchor: Anchor) -> None:
    a = normal(3, 4)
    result, steps = fused_stack(stack_of([a]), anchor=anchor)
    assert np.array_equal(result, a)
    assert steps == []
    nothing = dataclasses.replace(stack_of([a]), models=0)
    with pytest.raises(MergeError, match="nothing to fuse"):
        arcee_fusion(nothing, anchor=anchor)


def test_identical_models_within_a_chain_change_nothing() -> None:
    a, b = normal(9, 9), normal(9, 9, seed=1)
    assert np.array_equal(chain([a, a, b, b]), chain([a, b]))
