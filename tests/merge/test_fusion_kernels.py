"""Arcee Fusion's inner loops against numpy in float64 and wider: divergence, scores, choice."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cuvee.merge.kernels import LANES, Array, Row
from cuvee.merge.methods.divergence import (
    MOMENTS,
    NARROW,
    SAFE_EXPONENT,
    SMALL,
    exponentials,
    row_divergence,
)
from cuvee.merge.methods.fusion_kernels import adopt_rows, choose, diverge_rows, scan_rows

SIZES = [1, 2, 7, 8, 63, 64, 65, 1000]


def normal(*shape: int, scale: float = 1.0, seed: int = 0) -> Array:
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def work(d: int) -> tuple[Array, Array]:
    return np.empty((MOMENTS, LANES), np.float32), np.empty((5, d), np.float32)


def divergence(a: Array, b: Array) -> float:
    found, differing = row_divergence(a, b, *work(a.size))
    assert differing == np.count_nonzero(a != b)
    return float(found)


def bits(values: Array) -> NDArray[np.uint16]:
    """Return bfloat16 bits, cut off: any will do here."""
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def from_bits(stored: NDArray[np.uint16]) -> Array:
    return (stored.astype(np.uint32) << 16).view(np.float32)


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


@pytest.mark.parametrize("update", [1e-6, 1e-3, 0.3, 100.0])
@pytest.mark.parametrize("d", SIZES)
def test_a_row_stored_as_bfloat16_diverges_as_its_values_do(d: int, update: float) -> None:
    a = bits(normal(d, scale=0.1))
    b = bits(from_bits(a) + normal(d, scale=update, seed=1))
    found = row_divergence(a, b, *work(d))
    assert found == row_divergence(from_bits(a), from_bits(b), *work(d))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("d", SIZES)
def test_a_value_that_is_not_finite_is_told_in_either_row(d: int, value: float) -> None:
    for which in (0, 1):
        a, b = normal(d), normal(d, seed=1)
        (a, b)[which][d // 2] = value
        assert row_divergence(a, b, *work(d))[1] < 0


def test_a_difference_beyond_float32_is_told() -> None:
    a, b = np.full(3, 3e38, np.float32), np.full(3, -3e38, np.float32)
    assert row_divergence(a, b, *work(3))[1] < 0


@pytest.mark.parametrize("shift", [1e-4, 0.01, 0.04])
def test_a_row_moved_as_a_whole_hardly_diverges(shift: float) -> None:
    # The mean change cancels in the series: these rows must take the longer way.
    a = normal(999, scale=0.02)
    b = a + np.float32(shift) + normal(999, scale=shift / 100, seed=1)
    assert divergence(a, b) == pytest.approx(reference(a, b), rel=1e-5)


# --- samples and scans


def rows_of(rows: int, d: int) -> tuple[Array, Array]:
    a = normal(rows, d, scale=0.02)
    b = a + normal(rows, d, scale=1e-3, seed=1)
    b[:, ::5] = a[:, ::5]
    return a, b


def scores_of(a: Array, b: Array) -> tuple[Array, NDArray[np.uint32]]:
    """Return rows' divergence and the scores' bits, [rows, d]."""
    found = np.array([divergence(*pair) for pair in zip(a, b, strict=True)], np.float32)
    return found, (np.abs(b - a) * found[:, None]).view(np.uint32)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("d", SIZES)
def test_every_part_of_every_sampled_row_gives_one_of_its_scores(d: int, stored: bool) -> None:
    a, b = rows_of(9, d)
    pair: tuple[Row, Row] = (a, b)
    if stored:
        pair = (bits(a), bits(b))
        a, b = from_bits(bits(a)), from_bits(bits(b))
    expected, scores = scores_of(a, b)
    for size, every in ((d, 1), (max(1, d // 3), 1), (1, 4)):
        found = np.zeros(9, np.float32)
        sample = np.full((-(-9 // every), size), 0xFFFFFFFF, np.uint32)
        for begin, end in ((0, 4), (4, 9)):
            part = (pair[0][begin:end], pair[1][begin:end])
            differing = diverge_rows(part, begin, found, sample, every, work(d))
            assert differing == np.count_nonzero(a[begin:end] != b[begin:end])
        assert np.array_equal(found, expected)
        if (size, every) == (d, 1):
            assert np.array_equal(sample, scores)
        parts = list(pairwise(k * d // size for k in range(size + 1)))
        for i, row in enumerate(sample):
            given = zip(row, parts, strict=True)
            assert all(score in scores[i * every, low:end] for score, (low, end) in given)


@pytest.mark.parametrize("d", SIZES)
def test_scores_are_counted_below_windows_and_those_inside_kept(d: int) -> None:
    a, b = rows_of(9, d)
    found, scores = scores_of(a, b)
    flat = np.sort(scores.reshape(-1))
    lows = np.array([flat[0], flat[flat.size // 2], flat[-1]])  # 0: ties, a window of one value
    ends = np.array([lows[0] + 1, flat[int(flat.size * 0.6)] + 5, flat[-1] + 1])
    windows = np.array([lows, ends], np.uint32)
    counts, near = np.zeros((2, 3), np.int64), np.zeros(9 * d + d + 1, np.uint32)
    hits = scan_rows((a, b), found, windows, counts, near)
    kept = (scores >= lows[1]) & (scores < ends[1])
    assert counts.tolist() == [[np.count_nonzero(scores < w) for w in row] for row in windows]
    assert hits == np.count_nonzero(kept)
    assert np.array_equal(near[:hits], scores[kept])


def test_more_scores_than_there_is_room_for_are_told() -> None:
    a, b = rows_of(20, 16)
    windows = np.array([[0, 0, 0], [0x7F800000] * 3], np.uint32)
    near = np.zeros(100, np.uint32)
    assert scan_rows((a, b), scores_of(a, b)[0], windows, np.zeros((2, 3), np.int64), near) == -1


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


@pytest.mark.parametrize("anchor", [0, 1])
@pytest.mark.parametrize("d", SIZES)
def test_adopting_bfloat16_rows_chooses_the_same_and_measures_it(d: int, anchor: int) -> None:
    stored = (bits(normal(5, d)), bits(normal(5, d, seed=1)))
    stored[1][:, ::3] = stored[0][:, ::3]
    x, y = from_bits(stored[0]), from_bits(stored[1])
    factor = np.abs(normal(5, seed=2))
    threshold = float(np.median(np.abs(y - x) * factor[:, None]))
    expected, out = np.empty_like(x), np.empty_like(stored[0])
    first, second = (x, y) if anchor == 0 else (y, x)
    adopted = choose(first, second, factor, threshold, expected)
    squares, counts = np.zeros(5), np.zeros(5, np.int64)
    adopt_rows(stored, factor, threshold, anchor, out, (squares, counts))
    assert np.array_equal(from_bits(out), expected)
    assert counts.tolist() == [
        np.count_nonzero(x != y),
        0,
        np.count_nonzero(out != stored[0]),
        np.count_nonzero(out != stored[1]),
        adopted,
    ]
    sums = [float((v.astype(np.float64) ** 2).sum()) for v in (x, y, expected, x - y)]
    assert squares[:4] == pytest.approx(sums, rel=1e-6)
