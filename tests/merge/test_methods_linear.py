"""linear, passthrough, nearswap and model_stock: identities, hand-worked values, mergekit."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mergekit.merge_methods import merge_tensors
from numpy.typing import NDArray

from cuvee.errors import MergeError
from cuvee.merge.blocks import apply, stack_of
from cuvee.merge.kernels import Array
from cuvee.merge.methods.linear import linear, nearswap, passthrough
from cuvee.merge.methods.stock import model_stock
from cuvee.merge.threads import ONE_THREAD, open_threads

SHAPES: list[tuple[int, ...]] = [(), (1,), (99,), (100,), (7, 5), (3, 4, 6)]
EMPTY: list[tuple[int, ...]] = [(0,), (0, 4), (4, 0)]
BIG = (40, 8192)  # three blocks


def normal(shape: tuple[int, ...], *, seed: int, scale: float = 1.0) -> Array:
    drawn = scale * np.random.default_rng(seed).standard_normal(shape)
    return np.asarray(drawn, np.float32).reshape(shape)


def updates(base: Array, models: int, *, scale: float = 0.1) -> list[Array]:
    """Models that share a part of their distance from the base."""
    shared = normal(base.shape, seed=90, scale=scale)
    return [base + shared + normal(base.shape, seed=91 + i, scale=scale) for i in range(models)]


def same_bits(left: NDArray[np.float32], right: NDArray[np.float32]) -> bool:
    assert left.dtype == right.dtype == np.float32
    return left.tobytes() == right.tobytes()


def oracle(
    method: str, tensors: Sequence[Array], base: Array | None = None, **parameters: object
) -> NDArray[np.float64]:
    """What mergekit gives for float64 tensors; the base comes first, as its own input."""
    inputs = [*([base] if base is not None else []), *tensors]
    found = merge_tensors(
        [torch.from_numpy(np.array(x, np.float64)) for x in inputs],
        method,
        base_index=None if base is None else 0,
        parameters=parameters,
    )
    return np.asarray(found.numpy(), np.float64)


numbers = st.one_of(st.floats(-1e4, 1e4, width=32), st.sampled_from([0.0, -0.0, 1e-40, 65504.0]))


@given(value=numbers, shares=st.lists(st.floats(0.01, 10), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_linear_of_equal_tensors_is_that_tensor_bit_for_bit(
    value: float, shares: list[float]
) -> None:
    x = np.array([value, 1.5, -value, 0.1], np.float32)
    stack = stack_of([x] * len(shares))
    assert same_bits(apply(stack, linear(stack, weight=shares)), x)


def test_linear_by_hand() -> None:
    stack = stack_of([np.array([1.0, 2.0]), np.array([5.0, -2.0])])
    assert apply(stack, linear(stack, weight=[3, 1])).tolist() == [[2.0, 1.0]]
    assert apply(stack, linear(stack, weight=[2, -1], normalize=False)).tolist() == [[-3.0, 6.0]]
    assert linear(stack, weight=[3, 1]).facts == {"weights": [0.75, 0.25]}


@pytest.mark.parametrize("shape", [*SHAPES, BIG])
@pytest.mark.parametrize("normalize", [True, False])
def test_linear_is_mergekits(shape: tuple[int, ...], *, normalize: bool) -> None:
    tensors = [normal(shape, seed=i) for i in range(4)]
    weight = [0.3, 0.0, 1.4, -0.2]
    stack = stack_of(tensors)
    ours = apply(stack, linear(stack, weight=weight, normalize=normalize))
    theirs = oracle("linear", tensors, weight=weight, normalize=normalize)
    np.testing.assert_allclose(ours.reshape(shape), theirs, rtol=2e-7, atol=1e-30)
    in_float32 = merge_tensors(
        [torch.from_numpy(x) for x in tensors],
        "linear",
        parameters={"weight": weight, "normalize": normalize},
    )
    np.testing.assert_allclose(ours.reshape(shape), in_float32.numpy(), rtol=1e-5, atol=1e-6)


def test_two_models_may_change_places_without_changing_a_bit() -> None:
    a, b = normal((50, 60), seed=1), normal((50, 60), seed=2, scale=30)
    ab, ba = stack_of([a, b]), stack_of([b, a])
    left = apply(ab, linear(ab, weight=[0.3, 0.7]))
    assert same_bits(left, apply(ba, linear(ba, weight=[0.7, 0.3])))


def test_the_order_of_five_models_moves_no_element_by_more_than_one_rounding() -> None:
    tensors = [normal((50, 60), seed=i, scale=10**i) for i in range(5)]
    straight, reverse = stack_of(tensors), stack_of(tensors[::-1])
    left = apply(straight, linear(straight, weight=[1] * 5))
    np.testing.assert_array_max_ulp(left, apply(reverse, linear(reverse, weight=[1] * 5)), 1)


def test_a_model_of_weight_zero_is_not_looked_at() -> None:
    x = normal((6, 7), seed=1)
    stack = stack_of([np.full_like(x, np.nan), x])
    assert same_bits(apply(stack, linear(stack, weight=[0, 1])), x)


def test_weights_that_sum_to_zero_are_an_error_where_mergekit_writes_nan() -> None:
    tensors = [normal((4,), seed=1), normal((4,), seed=2)]
    assert np.isnan(oracle("linear", tensors, weight=[0.0, 0.0])).all()
    with pytest.raises(MergeError, match=r"a\.weight.*\[0\.1, -0\.1\] sum to zero"):
        linear(stack_of(tensors, name="a.weight"), weight=[0.1, -0.1])
    stack = stack_of(tensors)
    rule = linear(stack, weight=[1, -1], normalize=False)
    np.testing.assert_array_equal(apply(stack, rule)[0], tensors[0] - tensors[1])


@pytest.mark.parametrize("shape", [*SHAPES, *EMPTY])
def test_passthrough_keeps_every_bit_and_scales_as_mergekit(shape: tuple[int, ...]) -> None:
    x = -normal(shape, seed=1) * 0 if shape == (99,) else normal(shape, seed=1)
    stack = stack_of([x])
    assert same_bits(apply(stack, passthrough(stack)), x)
    theirs = oracle("passthrough", [x], scale=0.3)
    ours = apply(stack, passthrough(stack, scale=[0.3]))
    np.testing.assert_allclose(ours.reshape(shape), theirs, rtol=2e-7)


@given(
    base=st.lists(numbers, min_size=1, max_size=8),
    shift=st.floats(-2, 2, width=32),
    t=st.floats(0, 1),
)
@settings(max_examples=100, deadline=None)
def test_nearswap_moves_at_most_t_and_lands_exactly_on_what_is_nearer(
    base: list[float], shift: float, t: float
) -> None:
    a = np.array(base, np.float32)
    b = a + np.float32(shift)
    stack = stack_of([b], base=a)
    found = apply(stack, nearswap(stack, t=t))[0]
    spacing = np.spacing(np.maximum(np.abs(a), np.abs(b)))
    assert (np.abs(found - a) <= np.float32(t) + spacing).all()
    near = np.abs(b.astype(np.float64) - a) < t - spacing
    assert same_bits(found[near], b[near])
    same = stack_of([a], base=a)
    assert same_bits(apply(same, nearswap(same, t=t)), a)


@pytest.mark.parametrize("t", [0.0, 1e-4, 0.3, 5.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_nearswap_is_mergekits(shape: tuple[int, ...], t: float) -> None:
    a, b = normal(shape, seed=1), normal(shape, seed=2)
    stack = stack_of([b], base=a)
    ours = apply(stack, nearswap(stack, t=t)).reshape(shape)
    np.testing.assert_allclose(ours, oracle("nearswap", [b], a, t=t), rtol=1e-6, atol=2e-7)


def test_nearswap_reaches_t_below_1e_6_where_mergekit_stops_short() -> None:
    a, b = np.array([0.0, 0.0], np.float32), np.array([1e-7, 9e-7], np.float32)
    stack = stack_of([b], base=a)
    np.testing.assert_allclose(apply(stack, nearswap(stack, t=5e-7))[0], [1e-7, 5e-7])
    np.testing.assert_allclose(oracle("nearswap", [b], a, t=5e-7), [0.5e-7, 4.5e-7], rtol=1e-6)


def test_model_stock_by_hand() -> None:
    # Two updates at 60 degrees: t = 2 (1/2) / (1 + 1/2) = 2/3.
    base = np.zeros(2, np.float32)
    models = [np.array([1.0, 0.0]), np.array([0.5, np.sqrt(0.75)])]
    stack = stack_of(models, base=base)
    rule = model_stock(stack)
    assert rule.facts["cosine"] == pytest.approx(0.5)
    assert rule.facts["t"] == pytest.approx(2 / 3)
    np.testing.assert_allclose(apply(stack, rule)[0], [0.5, np.sqrt(0.75) / 3], rtol=1e-6)


@pytest.mark.parametrize("shape", [*SHAPES[1:], BIG])
@pytest.mark.parametrize("models", [2, 3])
@pytest.mark.parametrize("filter_wise", [True, False])
def test_model_stock_is_mergekits_for_updates_at_acute_angles(
    shape: tuple[int, ...], models: int, *, filter_wise: bool
) -> None:
    base = normal(shape, seed=1)
    tensors = [base + np.abs(x - base) for x in updates(base, models)]
    stack = stack_of(tensors, base=base)
    ours = apply(stack, model_stock(stack, filter_wise=filter_wise)).reshape(shape)
    theirs = oracle("model_stock", tensors, base, filter_wise=filter_wise)
    np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=1e-7)
    in_float32 = merge_tensors(
        [torch.from_numpy(x) for x in [base, *tensors]],
        "model_stock",
        base_index=0,
        parameters={"filter_wise": filter_wise},
    )
    np.testing.assert_allclose(ours, in_float32.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("filter_wise", [True, False])
@pytest.mark.parametrize("shape", [*SHAPES, *EMPTY])
def test_model_stock_of_equal_models_is_that_model_and_of_the_base_is_the_base(
    shape: tuple[int, ...], *, filter_wise: bool
) -> None:
    base, x = normal(shape, seed=1), normal(shape, seed=2)
    stack = stack_of([x] * 3, base=base)
    assert same_bits(apply(stack, model_stock(stack, filter_wise=filter_wise)), x)
    stack = stack_of([base] * 3, base=base)
    assert same_bits(apply(stack, model_stock(stack, filter_wise=filter_wise)), base)


def test_model_stock_keeps_the_base_where_updates_oppose_and_mergekit_runs_away() -> None:
    base = np.zeros(2, np.float32)
    tensors = [np.array([1.0, 0.05], np.float32), np.array([-1.0, 0.05], np.float32)]
    assert np.abs(oracle("model_stock", tensors, base)).max() > 9  # from updates of length 1
    stack = stack_of(tensors, base=base)
    rule = model_stock(stack)
    assert same_bits(apply(stack, rule), base)
    assert rule.facts["t"] == 0
    rows = stack_of([np.stack([x, [1, 1]]) for x in tensors], base=np.zeros((2, 2)))
    rule = model_stock(rows, filter_wise=True)
    assert apply(rows, rule).tolist() == [[0, 0], [1, 1]]
    assert rule.facts["rows_kept"] == 1


def test_model_stock_does_not_depend_on_the_updates_length_as_mergekit_does() -> None:
    base = np.zeros(2, np.float32)
    tensors = [np.array(x, np.float32) * np.float32(1e-4) for x in ([1, 0], [1, 0.2])]
    stack = stack_of(tensors, base=base)
    assert model_stock(stack).facts["cosine"] == pytest.approx(1 / np.sqrt(1.04))
    ratio = oracle("model_stock", tensors, base)[0] / 1e-4
    assert ratio < 0.05  # mergekit: cosine 0.01


def test_one_or_two_threads_give_the_same_bytes() -> None:
    base = normal(BIG, seed=1)
    tensors = updates(base, 3)
    with open_threads(2) as two:
        for filter_wise in (True, False):
            results = []
            for threads in (ONE_THREAD, two):
                stack = stack_of(tensors, base=base, threads=threads)
                results.append(apply(stack, model_stock(stack, filter_wise=filter_wise)))
            assert same_bits(*results)
