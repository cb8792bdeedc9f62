"""The inner loops of merging: every bit pattern, stated orders of sums, random streams."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cuvee.merge.blocks import Block, order_statistics, stack_of
from cuvee.merge.kernels import (
    HIGH_BINS,
    KINDS,
    LOW_BINS,
    SUM_LANES,
    Array,
    count_high,
    count_low,
    count_not_finite,
    lane_dot,
    lane_sum,
    narrow_bf16,
    uniform,
    widen_all,
    widen_bf16,
    widen_f16,
)

ALL_BITS = np.arange(1 << 16).astype(np.uint16)
SIZES = [0, 1, 7, 8, 63, 64, 65, 1000]


def normal(n: int, *, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=n).astype(np.float32)


def words(values: Array) -> NDArray[np.uint32]:
    return values.view(np.uint32)


def bfloat16(values: Array) -> NDArray[np.uint16]:
    """Return the bits of float32 rounded by torch."""
    bits: NDArray[np.uint16] = torch.from_numpy(values).bfloat16().view(torch.uint16).numpy()
    return bits


# --- dtypes


def test_every_bfloat16_is_widened_as_torch_does() -> None:
    out = np.empty(ALL_BITS.size, np.float32)
    bad = widen_bf16(ALL_BITS, out)
    expected = torch.from_numpy(ALL_BITS.copy()).view(torch.bfloat16).float().numpy()
    assert np.array_equal(words(out), words(expected))
    assert bad == np.count_nonzero(~np.isfinite(expected)) == 256


def test_every_float16_is_widened_as_numpy_does_subnormals_and_infinities_too() -> None:
    out = np.empty(ALL_BITS.size, np.float32)
    bad = widen_f16(ALL_BITS, out)
    expected = ALL_BITS.view(np.float16).astype(np.float32)
    number = ~np.isnan(expected)
    assert np.array_equal(words(out)[number], words(expected)[number])
    assert np.array_equal(np.isnan(out), ~number)
    assert bad == np.count_nonzero(~np.isfinite(expected)) == 2048


def test_parts_of_all_dtypes_are_widened_together_and_what_is_not_finite_is_counted() -> None:
    values = np.array([1.5, -0.25, 2.0**-20, np.inf])
    parts = {
        "F32": values.astype(np.float32),
        "BF16": bfloat16(values.astype(np.float32)),
        "F16": values.astype(np.float16),
        "F64": values + np.array([2.0**-40, 0, 0, 0]),
    }
    out = np.empty((4, 4), np.float32)
    raw = tuple(part.view(np.uint8) for part in parts.values())
    bad = widen_all(raw, np.array([KINDS[name] for name in parts], np.int64), out)
    assert bad == 4
    np.testing.assert_array_equal(out, np.tile(values.astype(np.float32), (4, 1)))


def test_a_float64_that_float32_cannot_hold_is_counted() -> None:
    out = np.empty((1, 2), np.float32)
    raw = (np.array([1e300, 1.0]).view(np.uint8),)
    assert widen_all(raw, np.array([KINDS["F64"]], np.int64), out) == 1


def test_counting_what_is_not_finite_looks_at_bits_alone() -> None:
    values = np.array([np.inf, -np.inf, np.nan, -np.nan, 3.4e38, 1e-45, -0.0], np.float32)
    assert count_not_finite(values) == 4


def narrowed(values: Array) -> tuple[NDArray[np.uint16], Array, int]:
    bits, back = np.empty(values.size, np.uint16), np.empty(values.size, np.float32)
    return bits, back, int(narrow_bf16(values, bits, back))


def test_floats_of_all_sizes_are_rounded_to_bfloat16_as_torch_does() -> None:
    random = np.random.default_rng(1).integers(0, 1 << 32, 500_000, dtype=np.uint32)
    values = random.view(np.float32)
    values = values[np.isfinite(values)]
    bits, back, bad = narrowed(values)
    expected = bfloat16(values)
    assert np.array_equal(bits, expected)
    assert np.array_equal(words(back), expected.astype(np.uint32) << 16)
    assert bad == np.count_nonzero((expected & 0x7F80) == 0x7F80)


@pytest.mark.parametrize("lower", [0x0000, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
def test_ties_go_to_even_for_every_upper_half_subnormals_included(lower: int) -> None:
    values = ((ALL_BITS.astype(np.uint32) << 16) | np.uint32(lower)).view(np.float32)
    values = values[np.isfinite(values)]
    assert np.array_equal(narrowed(values)[0], bfloat16(values))


def test_what_bfloat16_cannot_hold_is_counted() -> None:
    values = np.array([3.4e38, -3.4e38, np.inf, np.nan, -np.nan, 3.38e38], np.float32)
    bits, back, bad = narrowed(values)
    assert bad == 5
    assert back[:3].tolist() == [np.inf, -np.inf, np.inf]
    assert np.isnan(back[3:5]).all()
    assert bits[5] == 0x7F7E


# --- sums


@pytest.mark.parametrize("n", SIZES)
def test_a_lane_sum_is_taken_in_its_stated_order(n: int) -> None:
    x, whole = normal(n), n - n % SUM_LANES
    lanes = np.zeros(SUM_LANES, np.float32)
    for part in x[:whole].reshape(-1, SUM_LANES):
        lanes += part
    total = 0.0
    for value in [*lanes.tolist(), *x[whole:].tolist()]:
        total += value
    assert lane_sum(x) == total
    assert total == pytest.approx(math.fsum(x.tolist()), abs=1e-5)


@pytest.mark.parametrize("n", SIZES)
def test_a_lane_dot_is_taken_in_its_stated_order(n: int) -> None:
    x, y, whole = normal(n, seed=1), normal(n, seed=2), n - n % 8
    products = x.astype(np.float64) * y.astype(np.float64)
    lanes = np.zeros(8)
    for part in products[:whole].reshape(-1, 8):
        lanes += part
    a, b, c, d, e, f, g, h = lanes.tolist()
    total = ((a + b) + (c + d)) + ((e + f) + (g + h))
    for value in products[whole:].tolist():
        total += value
    assert lane_dot(x, y) == total


# --- counts and order statistics


def test_histograms_of_upper_and_lower_bits_are_added_to_what_is_there() -> None:
    scores = np.abs(normal(5000, seed=3))
    upper, lower = words(scores) >> 16, words(scores) & 0xFFFF
    high = np.ones(HIGH_BINS, np.int64)
    count_high(scores, high)
    assert np.array_equal(high - 1, np.bincount(upper, minlength=HIGH_BINS))

    wanted = np.array([upper[0], upper[1], 0x7F00], np.uint32)
    low = np.ones((3, LOW_BINS), np.int64)
    count_low(scores, wanted, low)
    for bin_, found in zip(wanted, low, strict=True):
        expected = np.bincount(lower[upper == bin_], minlength=LOW_BINS)
        assert np.array_equal(found - 1, expected)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0, 10, width=32) | st.sampled_from([0.0, 1.0]), min_size=1, max_size=40),
    st.lists(st.floats(0, 1), min_size=1, max_size=4),
)
def test_order_statistics_are_those_of_a_sort(values: list[float], shares: list[float]) -> None:
    stack = stack_of([np.array(values, np.float32).reshape(-1, 1)])

    def scores(block: Block) -> Array:
        return block.models[:1]

    ranks = [int(share * (len(values) - 1)) for share in shares]
    assert order_statistics(stack, scores, [ranks]) == [[sorted(values)[r] for r in ranks]]


# --- random numbers


def drawn(seed: int, begin: int, n: int) -> Array:
    out = np.empty(n, np.float32)
    uniform(np.uint64(seed), begin, out)
    return out


def test_random_numbers_are_the_upper_bits_of_splitmix64() -> None:
    outputs = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]  # of seed 0
    assert drawn(0, 0, 3).tolist() == [(output >> 40) / 2**24 for output in outputs]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**64 - 1), st.integers(0, 500), st.integers(0, 100))
def test_any_slice_of_a_stream_has_the_same_random_numbers(seed: int, begin: int, n: int) -> None:
    assert np.array_equal(drawn(seed, begin, n), drawn(seed, 0, begin + n)[begin:])


def test_a_stream_goes_on_past_two_to_the_thirty_second_element() -> None:
    assert drawn(5, 2**32 - 1, 3)[1:].tolist() == drawn(5, 2**32, 2).tolist()
    assert drawn(5, 2**32, 2).tolist() != drawn(5, 0, 2).tolist()


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_random_numbers_are_uniform_and_neighbours_independent(seed: int) -> None:
    n, bins = 1 << 18, 256
    values = drawn(seed, 0, n)
    assert 0 <= values.min() < values.max() < 1
    expected = n / bins
    counts = np.histogram(values, bins, (0, 1))[0]
    # A sum of 255 squares: mean 255, standard deviation 22.6; five of them.
    assert ((counts - expected) ** 2 / expected).sum() < 255 + 5 * 22.6
    assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 5 / math.sqrt(n)
    others = drawn(seed ^ 1, 0, n)
    assert abs(np.corrcoef(values, others)[0, 1]) < 5 / math.sqrt(n)
