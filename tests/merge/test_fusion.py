"""Arcee Fusion of two tensors: values by hand, invariants, and a float64 reference."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cuvee.errors import MergeError
from cuvee.merge.fusion import fuse, fuse_chain, importance, order_statistics, row_divergence

Array = NDArray[np.float64]


def reference_importance(anchor: Array, other: Array) -> Array:
    """The textbook formula, in float64: |B - A| KL(softmax(B) || softmax(A))."""
    p = np.exp(other) / np.exp(other).sum(-1, keepdims=True)
    q = np.exp(anchor) / np.exp(anchor).sum(-1, keepdims=True)
    divergence = (p * np.log(p / q)).sum(-1, keepdims=True)
    return np.asarray(np.abs(other - anchor) * divergence, dtype=np.float64)


def reference_threshold(scores: Array) -> float:
    ordered = np.sort(scores.ravel())
    q1, median, q3 = (ordered[int(share * (len(ordered) - 1))] for share in (0.25, 0.5, 0.75))
    return float(median + 1.5 * (q3 - q1))


ANCHOR = [[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]
OTHER = [[0.0, 0.0, 0.1], [1.0, 2.5, 2.0]]


def test_two_by_three_example_adopts_what_the_formula_says() -> None:
    # Row 0: KL = 0.0011, row 1: KL = 0.135, so the scores are (0, 0, 0.0001, 0, 0.068, 0.135);
    # sorted indices floor(1.25) = 1, floor(2.5) = 2, floor(3.75) = 3: Q1 = 0, median = 0,
    # Q3 = 0.0001, T = 1.5 Q3. Above it stand the last two of row 1.
    scores = reference_importance(np.array(ANCHOR), np.array(OTHER))
    threshold = reference_threshold(scores)
    assert threshold == pytest.approx(1.5 * scores[0, 2])

    fused, statistics = fuse(torch.tensor(ANCHOR), torch.tensor(OTHER))

    assert fused.tolist() == [[0.0, 0.0, 0.0], [1.0, 2.5, 2.0]]
    assert statistics.threshold == pytest.approx(threshold, rel=1e-4)
    assert statistics.q3 == pytest.approx(scores[0, 2], rel=1e-4)
    assert (statistics.elements, statistics.differing, statistics.adopted) == (6, 3, 2)
    assert not statistics.degenerate


def test_swapping_anchor_and_other_gives_another_model() -> None:
    forward, _ = fuse(torch.tensor(ANCHOR), torch.tensor(OTHER))
    backward, _ = fuse(torch.tensor(OTHER), torch.tensor(ANCHOR))
    assert not torch.equal(forward, backward)
    assert backward[0, 2] == torch.tensor(0.1)  # not adopted: the anchor's value stays


def test_importance_agrees_with_the_textbook_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn((7, 33), generator=generator)
    b = a + torch.randn((7, 33), generator=generator)
    expected = reference_importance(a.double().numpy(), b.double().numpy())
    np.testing.assert_allclose(importance(a, b).numpy(), expected, rtol=2e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("update", [2e-5, 1e-4, 3e-4, 1e-3])
def test_mask_agrees_with_float64_for_small_updates(dtype: torch.dtype, update: float) -> None:
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn((256, 1024), generator=generator) * 0.02
    anchor = weights.to(dtype)
    other = (weights + torch.randn((256, 1024), generator=generator) * update).to(dtype)
    a, b = anchor.double(), other.double()
    # In float64 the textbook sum still loses digits for tiny updates; use r e^r - expm1(r).
    r = (torch.log_softmax(b, -1) - torch.log_softmax(a, -1)).numpy()
    terms = torch.softmax(a, -1).numpy() * (r * np.exp(r) - np.expm1(r))
    scores = np.abs((b - a).numpy()) * terms.sum(-1, keepdims=True)
    expected = scores >= reference_threshold(scores)

    found = importance(anchor, other)
    q1, median, q3 = order_statistics(found, (0.25, 0.5, 0.75))
    mask = (found >= median + 1.5 * (q3 - q1)).numpy()

    assert (mask & expected).sum() / (mask | expected).sum() >= 0.995


def test_no_row_has_a_negative_divergence() -> None:
    generator = torch.Generator().manual_seed(2)
    a = torch.randn((512, 2048), generator=generator) * 0.02
    b = a + torch.randn((512, 2048), generator=generator) * 1e-4
    divergence = row_divergence(a, b)
    assert (divergence > 0).all()
    # For a near-flat softmax KL is about half the mean square update: 5e-9.
    assert divergence.mean().item() == pytest.approx(5e-9, rel=0.05)


def test_divergence_survives_large_values() -> None:
    divergence = row_divergence(torch.tensor([[0.0, 0.0]]), torch.tensor([[300.0, 0.0]]))
    assert divergence.item() == pytest.approx(np.log(2), rel=1e-5)


@settings(max_examples=50, deadline=None)
@given(
    shape=st.sampled_from([(), (1,), (99,), (100,), (3, 1), (5, 20), (2, 3, 4)]),
    seed=st.integers(0, 99),
)
def test_every_element_is_a_copy_and_fusing_with_itself_changes_no_bit(
    shape: tuple[int, ...], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(shape, generator=generator).to(torch.bfloat16)
    b = (a.float() + torch.randn(shape, generator=generator) * 0.1).to(torch.bfloat16)
    fused, statistics = fuse(a, b)
    assert fused.dtype == torch.bfloat16
    assert fused.shape == a.shape
    assert ((fused == a) | (fused == b)).all()
    assert statistics.elements == a.numel()
    itself, nothing = fuse(a, a)
    assert torch.equal(itself.view(torch.int16), a.view(torch.int16))
    assert (nothing.differing, nothing.adopted, nothing.degenerate) == (0, 0, False)


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0)])
def test_empty_tensors_stay_empty_without_quantiles(shape: tuple[int, ...]) -> None:
    fused, statistics = fuse(torch.empty(shape), torch.empty(shape))
    assert fused.shape == shape
    assert (statistics.elements, statistics.threshold, statistics.median) == (0, None, None)


@pytest.mark.parametrize("shape", [(), (1,), (4, 1)])
def test_rows_of_one_element_are_adopted_whole_and_marked_degenerate(
    shape: tuple[int, ...],
) -> None:
    # A softmax over one element is 1 in both models: no divergence, threshold 0, 0 >= 0.
    fused, statistics = fuse(torch.zeros(shape), torch.ones(shape))
    assert torch.equal(fused, torch.ones(shape))
    assert statistics.degenerate
    assert statistics.adopted == statistics.elements


def test_a_repeated_value_shifted_as_a_whole_is_degenerate() -> None:
    # A softmax does not see a constant shift of its row: all scores tie, at 0 or at rounding.
    fused, statistics = fuse(torch.full((10, 10), 0.5), torch.full((10, 10), 0.75))
    assert torch.equal(fused, torch.full((10, 10), 0.75))
    assert statistics.degenerate


def test_few_moved_weights_make_the_threshold_zero_and_are_marked() -> None:
    a = torch.zeros((10, 10))
    b = a.clone()
    b[0, :5] = 1.0
    fused, statistics = fuse(a, b)
    assert torch.equal(fused, b)
    assert (statistics.degenerate, statistics.differing, statistics.adopted) == (True, 5, 100)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 10, width=32), min_size=1, max_size=40), st.floats(0, 1))
def test_order_statistics_are_the_floor_index_of_a_sort(values: list[float], share: float) -> None:
    expected = sorted(values)[int(share * (len(values) - 1))]
    assert order_statistics(torch.tensor(values), (share,)) == [expected]


def test_mixed_dtypes_meet_in_the_one_both_fit_in() -> None:
    fused, _ = fuse(torch.zeros(3, dtype=torch.bfloat16), torch.ones(3, dtype=torch.float16))
    assert fused.dtype == torch.float32


def test_shapes_and_integer_dtypes_are_refused_by_name() -> None:
    with pytest.raises(MergeError, match=r"\(2, 3\) and \(3, 2\)"):
        fuse(torch.zeros(2, 3), torch.zeros(3, 2))
    with pytest.raises(MergeError, match="int64"):
        fuse(torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))


def test_chain_is_fusions_one_after_another_with_the_stated_anchor() -> None:
    generator = torch.Generator().manual_seed(3)
    a, b, c = (torch.randn((20, 20), generator=generator) for _ in range(3))
    later, steps = fuse_chain([a, b, c], anchor="later")
    assert torch.equal(later, fuse(c, fuse(b, a)[0])[0])
    assert len(steps) == 2
    earlier, _ = fuse_chain([a, b, c], anchor="earlier")
    assert torch.equal(earlier, fuse(fuse(a, b)[0], c)[0])
    alone, none = fuse_chain([a], anchor="later")
    assert torch.equal(alone, a)
    assert none == []
    with pytest.raises(MergeError, match="nothing to fuse"):
        fuse_chain([], anchor="later")


@pytest.mark.filterwarnings("ignore")  # mergekit's own, at import
def test_agrees_with_mergekit_in_float64() -> None:
    from mergekit.merge_methods import merge_tensors

    generator = torch.Generator().manual_seed(4)
    a = torch.randn((64, 64), generator=generator, dtype=torch.float64)
    b = a + 0.3 * torch.randn((64, 64), generator=generator, dtype=torch.float64)
    theirs = merge_tensors([a, b], "arcee_fusion", base_index=0)
    ours, statistics = fuse(a, b)
    assert 0.02 < statistics.adopted / statistics.elements < 0.5
    # Theirs is a + (b - a), so an adopted value can be off by an ulp.
    assert (ours - theirs).abs().lt(1e-12).double().mean() > 0.999
