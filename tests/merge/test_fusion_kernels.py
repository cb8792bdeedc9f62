"""Arcee Fusion's inner loops against numpy in float64 and wider: divergence, scores, choice."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cuvee.merge.kernels import HIGH_BINS, KINDS, Array
from cuvee.merge.methods.fusion_kernels import (
    NARROW,
    SAFE_EXPONENT,
    SMALL,
    WIDTH,
    choose,
    exponentials,
    row_divergence,
    row_scores,
    score_rows,
    small_exponentials,
)

SIZES = [1, 2, 7, 8, 63, 64, 65, 1000]


def normal(*shape: int, scale: float = 1.0, seed: int = 0) -> Array:
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def divergence(a: Array, b: Array) -> float:
    w, v, delta = np.empty((3, a.size), np.float32)
    return float(row_divergence(a, b, w, v, delta))


def reference(a: Array, b: Array) -> float:
    """KL(softmax(b) || softmax(a)) in numpy's widest float (80 bits on x86)."""

    def log_softmax(values: Array) -> NDArray[Any]:
        wide = values.astype(np.longdouble)
        shifted = wide - wide.max()
        return np.asarray(shifted - np.log(np.exp(shifted).sum()))

    log_q = log_softmax(a)
    r = log_softmax(b) - log_q
    return float((np.exp(log_q) * (r * np.exp(r) - np.expm1(r))).sum())


# --- exponentials


@pytest.mark.parametrize("span", [1e-3, 1.0, SAFE_EXPONENT])
def test_exponentials_are_good_to_two_in_ten_million(span: float) -> None:
    x = np.linspace(-span, span, 200_001).astype(np.float32)
    out = np.empty_like(x)
    exponentials(x, out)
    np.testing.assert_allclose(out, np.exp(x.astype(np.float64)), rtol=2e-7)


def test_small_exponentials_are_good_to_two_and_a_half_in_ten_million() -> None:
    x = np.linspace(-SMALL, SMALL, 200_001).astype(np.float32)
    out = np.empty_like(x)
    small_exponentials(x, out)
    np.testing.assert_allclose(out, np.exp(x.astype(np.float64)), rtol=2.5e-7)


# --- the divergence of a row


@pytest.mark.parametrize("d", [64, 999, 5120])
@pytest.mark.parametrize("weights", [0.02, 0.3, 2.0, 15.0])
@pytest.mark.parametrize("update", [1e-6, 2e-5, 3e-4, 1e-2])
def test_narrow_rows_agree_with_wider_floats(weights: float, update: float, d: int) -> None:
    a = normal(d, scale=weights)
    b = a + np.clip(normal(d, scale=update, seed=1), -NARROW / 2, NARROW / 2)
    assert divergence(a, b) == pytest.approx(reference(a, b), rel=3e-6)


@pytest.mark.parametrize("d", [64, 999, 5120])
@pytest.mark.parametrize("weights", [0.02, 0.3, 2.0, 14.0])
@pytest.mark.parametrize("update", [0.03, 0.3, 3.0])
def test_wide_rows_agree_with_wider_floats(weights: float, update: float, d: int) -> None:
    a, noise = normal(d, scale=weights), normal(d, scale=update, seed=1)
    noise[0] = 2 * NARROW
    b = np.clip(a + noise, -SAFE_EXPONENT, SAFE_EXPONENT)
    assert divergence(a, b) == pytest.approx(reference(a, b), rel=3e-6)


@pytest.mark.parametrize("d", [64, 999, 5120])
@pytest.mark.parametrize(("weights", "update"), [(100.0, 0.1), (100.0, 50.0), (4000.0, 1.0)])
def test_extreme_rows_agree_with_wider_floats(weights: float, update: float, d: int) -> None:
    a = normal(d, scale=weights)
    a[0] = 2 * weights
    b = a + normal(d, scale=update, seed=1)
    assert divergence(a, b) == pytest.approx(reference(a, b), rel=3e-6)


@pytest.mark.parametrize("edge", [NARROW, SMALL, 0.5, SAFE_EXPONENT])
def test_the_paths_meet_at_their_edges(edge: float) -> None:
    a = normal(257, scale=0.1)
    for at in (np.nextafter(np.float32(edge), np.float32(0)), np.float32(edge * 1.001)):
        moved, shifted = a.copy(), a.copy()
        moved[3] = a[3] + at  # the change at the edge
        shifted[3] = at  # the weight at the edge
        assert divergence(a, moved) == pytest.approx(reference(a, moved), rel=3e-6)
        other = shifted + normal(257, scale=1e-3, seed=1)
        assert divergence(shifted, other) == pytest.approx(reference(shifted, other), rel=3e-6)


@settings(max_examples=200, deadline=None)
@given(
    d=st.integers(2, 70),
    weights=st.floats(-3, 3.5),
    update=st.floats(-5, 3.5),
    moved=st.floats(0.05, 1),
    seed=st.integers(0, 10_000),
)
def test_no_divergence_is_negative_and_all_are_near_the_reference(
    d: int, weights: float, update: float, moved: float, seed: int
) -> None:
    # 10^weights and 10^update: from far below to far above every edge between the paths.
    generator = np.random.default_rng(seed)
    a = (10**weights * generator.normal(size=d)).astype(np.float32)
    change = 10**update * generator.normal(size=d) * (generator.random(d) < moved)
    b = (a + change).astype(np.float32)
    found, expected = divergence(a, b), reference(a, b)
    assert found >= 0
    # A change of up to 120 is rounded by up to 4e-6: half its square can be all that is left.
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-11)


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0, 1000.0])
@pytest.mark.parametrize("d", SIZES)
def test_a_row_does_not_diverge_from_itself(d: int, scale: float) -> None:
    a = normal(d, scale=scale)
    assert divergence(a, a.copy()) == 0


def test_divergence_of_one_certain_from_two_equal_outcomes_is_log_two() -> None:
    a, b = np.zeros(2, np.float32), np.array([300, 0], np.float32)
    assert divergence(a, b) == pytest.approx(np.log(2), rel=1e-7)


def test_small_updates_diverge_by_half_their_mean_square() -> None:
    a = normal(512, 2048, scale=0.02)
    b = a + normal(512, 2048, scale=1e-4, seed=1)
    found = [divergence(*pair) for pair in zip(a, b, strict=True)]
    assert min(found) > 0
    assert np.mean(found) == pytest.approx(5e-9, rel=0.02)


# --- scores


@pytest.mark.parametrize("d", SIZES)
def test_a_row_s_scores_are_its_differences_times_its_divergence(d: int) -> None:
    a, b, scores = normal(d), normal(d, seed=1), np.empty(d, np.float32)
    b[::3] = a[::3]
    assert row_scores(a, b, 0.37, scores) == np.count_nonzero(a != b)
    assert np.array_equal(scores, np.abs(b - a) * np.float32(0.37))


@pytest.mark.parametrize("other", [np.inf, -np.inf, np.nan, -3e38])
def test_no_score_has_its_sign_bit_set_whatever_the_weights(other: float) -> None:
    # The upper bits of a score are an index into a histogram that has no room for a sign.
    for d in (1, 2):
        a, b, scores = np.full(d, 3e38, np.float32), np.ones(d, np.float32), np.ones(d, np.float32)
        b[0] = other
        row_scores(a, b, divergence(a, b), scores)
        row_scores(a, b, np.nan, scores)
        assert not np.signbit(scores).any()


def scored(
    a: Array, b: Array, windows: list[int], room: int
) -> tuple[Array, NDArray[np.int64], NDArray[np.uint32], tuple[int, int, int]]:
    """Score float32 rows; return divergence, upper counts, what was kept, and the answer."""
    rows, d = a.shape
    found = np.empty(rows, np.float32)
    high, near = np.zeros(HIGH_BINS, np.int64), np.zeros(room, np.uint32)
    pair = (a.reshape(-1).view(np.uint8), b.reshape(-1).view(np.uint8))
    kinds = np.full(2, KINDS["F32"], np.int64)
    scratch = np.empty((6, d), np.float32)
    first = np.array(windows, np.uint32)
    answer = score_rows(pair, kinds, scratch, found, first, (high, near))
    return found, high, near, answer


@pytest.mark.parametrize("d", SIZES)
def test_scores_are_counted_by_upper_bits_and_those_in_windows_kept(d: int) -> None:
    a = normal(9, d, scale=0.02)
    b = a + normal(9, d, scale=1e-3, seed=1)
    b[:, ::5] = a[:, ::5]
    rows = [np.float32(divergence(*pair)) for pair in zip(a, b, strict=True)]
    bits = (np.abs(b - a) * np.array(rows)[:, None]).view(np.uint32).reshape(-1)
    upper = bits >> 16
    windows = [int(w) for w in (upper.min(), np.median(upper), upper.max())]
    inside = np.any([(upper >= w) & (upper < w + WIDTH) for w in windows], axis=0)

    found, high, near, (differing, bad, hits) = scored(a, b, windows, room=9 * d + d + 1)

    assert found.tolist() == rows
    assert np.array_equal(high, np.bincount(upper, minlength=HIGH_BINS))
    assert np.array_equal(near[:hits], bits[inside])
    assert bad == 0
    assert differing == np.count_nonzero(a != b)
    assert hits == np.count_nonzero(inside)


def test_more_scores_than_there_is_room_for_are_only_counted() -> None:
    a = normal(20, 16)
    _, high, _, (_, _, hits) = scored(a, a.copy(), [0, 0, 0], room=100)
    assert hits == -1
    assert high[0] == a.size


def test_values_that_are_not_finite_are_counted_and_write_nowhere_else() -> None:
    a, b = normal(4, 16), normal(4, 16, seed=1)
    b[1, 3], b[2, 0] = np.inf, np.nan
    _, high, _, (_, bad, _) = scored(a, b, [0, 0, 0], room=100)
    assert bad == 2
    assert high.sum() == a.size


# --- the choice


@pytest.mark.parametrize("d", SIZES)
def test_the_other_is_chosen_where_its_score_reaches_the_threshold(d: int) -> None:
    a, b = normal(5, d), normal(5, d, seed=1)
    factor = np.abs(normal(5, seed=2))
    scores = np.abs(b - a) * factor[:, None]
    threshold = float(np.median(scores))  # for odd sizes one score is the threshold
    out = np.empty_like(a)
    assert choose(a, b, factor, threshold, out) == np.count_nonzero(scores >= threshold)
    assert np.array_equal(out, np.where(scores >= np.float32(threshold), b, a))


@pytest.mark.parametrize("reused", [0, 1])
def test_the_choice_may_be_written_over_either_input(reused: int) -> None:
    pair = (normal(5, 9), normal(5, 9, seed=1))
    factor, fresh = np.ones(5, np.float32), np.empty((5, 9), np.float32)
    choose(*pair, factor, 1.0, fresh)
    choose(*pair, factor, 1.0, pair[reused])
    assert np.array_equal(pair[reused], fresh)
