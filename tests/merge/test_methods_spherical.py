"""slerp, nuslerp, multislerp, karcher: identities, hand-worked values, mergekit as oracle."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mergekit.merge_methods import merge_tensors
from numpy.typing import NDArray

from cuvee.errors import MergeError
from cuvee.merge.blocks import Rule, Stack, apply, stack_of
from cuvee.merge.kernels import Array
from cuvee.merge.methods.gram import column_grams, cosines, row_grams, tensor_gram
from cuvee.merge.methods.means import karcher, multislerp
from cuvee.merge.methods.spherical import nuslerp, slerp
from cuvee.merge.threads import ONE_THREAD, open_threads

SHAPES: list[tuple[int, ...]] = [(), (1,), (99,), (100,), (7, 5), (5, 5), (3, 4, 6)]
EMPTY: list[tuple[int, ...]] = [(0,), (0, 4), (4, 0)]
BIG = (40, 8192)  # three blocks


def normal(shape: tuple[int, ...], *, seed: int, scale: float = 1.0) -> Array:
    drawn = scale * np.random.default_rng(seed).standard_normal(shape)
    return np.asarray(drawn, np.float32).reshape(shape)


def related(shape: tuple[int, ...], models: int) -> list[Array]:
    """Tensors at angles of some 60 degrees, of different norms."""
    shared = normal(shape, seed=50)
    return [(shared + normal(shape, seed=i)) * np.float32(1 + i) for i in range(models)]


def same_bits(left: NDArray[np.float32], right: NDArray[np.float32]) -> bool:
    assert left.dtype == right.dtype == np.float32
    return left.tobytes() == right.tobytes()


def merged(method: Callable[..., Rule], stack: Stack, **parameters: object) -> Array:
    return apply(stack, method(stack, **parameters))


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


ROWS = {"nuslerp_flatten": False}
COLUMNS = {"nuslerp_flatten": False, "nuslerp_row_wise": True}
OF_TWO: list[tuple[Callable[..., Rule], dict[str, object]]] = [
    (nuslerp, {"weight": [0.4, 0.8]}),
    (nuslerp, {"weight": [0.4, 0.8], **ROWS}),
    (nuslerp, {"weight": [0.4, 0.8], **COLUMNS}),
    (multislerp, {"weight": [0.4, 0.8]}),
    (karcher, {}),
]
WITH_BASE = OF_TWO[:-1]


@pytest.mark.parametrize("shape", [*SHAPES, *EMPTY, BIG])
@pytest.mark.parametrize(("method", "parameters"), OF_TWO)
def test_equal_models_give_that_model_bit_for_bit(
    method: Callable[..., Rule], parameters: dict[str, object], shape: tuple[int, ...]
) -> None:
    x = normal(shape, seed=1)
    x.reshape(-1)[::7] = -0.0
    assert same_bits(merged(method, stack_of([x, x]), **parameters), x)


@pytest.mark.parametrize("shape", [*SHAPES, *EMPTY, BIG])
@pytest.mark.parametrize(("method", "parameters"), WITH_BASE)
def test_equal_models_on_another_base_give_that_model_bit_for_bit(
    method: Callable[..., Rule], parameters: dict[str, object], shape: tuple[int, ...]
) -> None:
    x, base = normal(shape, seed=1), normal(shape, seed=2)
    x.reshape(-1)[::7] = -0.0
    assert same_bits(merged(method, stack_of([x, x], base=base), **parameters), x)
    assert same_bits(merged(method, stack_of([base, base], base=base), **parameters), base)


@pytest.mark.parametrize("shape", [*SHAPES, *EMPTY, BIG])
@pytest.mark.parametrize("t", [0.0, 0.3, 0.5, 1.0])
def test_slerp_of_equal_tensors_is_that_tensor_bit_for_bit(
    shape: tuple[int, ...], t: float
) -> None:
    x = normal(shape, seed=1)
    x.reshape(-1)[::7] = -0.0
    assert same_bits(merged(slerp, stack_of([x], base=x), t=t), x)


@pytest.mark.parametrize("value", [0.0, -0.0, 0.1, -3e4, 1e-30])
@pytest.mark.parametrize(("method", "parameters"), OF_TWO)
def test_a_tensor_of_one_repeated_value_stays_as_it_is(
    method: Callable[..., Rule], parameters: dict[str, object], value: float
) -> None:
    x = np.full((20, 30), value, np.float32)
    assert same_bits(merged(method, stack_of([x, x]), **parameters), x)
    assert same_bits(merged(slerp, stack_of([x], base=x), t=0.4), x)


def test_slerp_by_hand() -> None:
    # Orthogonal vectors of lengths 1 and 2: weights sin 30° and sin 60° at t = 2/3.
    base, x = np.array([1.0, 0.0], np.float32), np.array([0.0, 2.0], np.float32)
    stack = stack_of([x], base=base)
    rule = slerp(stack, t=2 / 3)
    np.testing.assert_allclose(apply(stack, rule)[0], [0.5, np.sqrt(3)], rtol=1e-6)
    assert rule.facts["cosine"] == 0
    assert rule.facts["linear"] is False


@pytest.mark.parametrize("shape", [*SHAPES, BIG])
@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 1.0])
def test_slerp_is_mergekits(shape: tuple[int, ...], t: float) -> None:
    base, x = related(shape, 2)
    ours = merged(slerp, stack_of([x], base=base), t=t).reshape(shape)
    np.testing.assert_allclose(ours, oracle("slerp", [x], base, t=t), rtol=1e-6, atol=1e-6)
    in_float32 = merge_tensors(
        [torch.from_numpy(np.array(base)), torch.from_numpy(np.array(x))],
        "slerp",
        base_index=0,
        parameters={"t": t},
    )
    np.testing.assert_allclose(ours, in_float32.numpy(), rtol=1e-5, atol=1e-5)


def test_slerp_at_0_and_1_is_the_base_and_the_model_bit_for_bit() -> None:
    base, x = related((30, 40), 2)
    assert same_bits(merged(slerp, stack_of([x], base=base), t=0.0), base)
    assert same_bits(merged(slerp, stack_of([x], base=base), t=1.0), x)


@pytest.mark.parametrize("factor", [1.001, 3.0, -1.0])
def test_slerp_is_linear_for_vectors_on_one_line_like_mergekits(factor: float) -> None:
    base = normal((30, 40), seed=1)
    x = base * np.float32(factor) + normal((30, 40), seed=2, scale=1e-3)
    stack = stack_of([x], base=base)
    rule = slerp(stack, t=0.25)
    assert rule.facts["linear"] is True
    assert rule.facts["weights"] == [0.75, 0.25]
    np.testing.assert_allclose(
        apply(stack, rule), oracle("slerp", [x], base, t=0.25), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("parameters", [{}, ROWS, COLUMNS])
def test_beside_a_zero_tensor_slerp_is_linear_where_mergekit_lengthens_the_other(
    parameters: dict[str, object],
) -> None:
    x, zero = normal((7, 5), seed=1), np.zeros((7, 5), np.float32)
    theirs = oracle("slerp", [x], zero, t=0.5)
    np.testing.assert_allclose(theirs, np.sqrt(0.5) * x, rtol=1e-6, atol=1e-6)
    assert same_bits(merged(slerp, stack_of([x], base=zero), t=0.5), np.float32(0.5) * x)
    ours = merged(nuslerp, stack_of([zero, x]), weight=[1, 1], **parameters)
    assert same_bits(ours, np.float32(0.5) * x)


@pytest.mark.parametrize("shape", [*SHAPES, BIG])
@pytest.mark.parametrize("with_base", [True, False])
@pytest.mark.parametrize("parameters", [{}, ROWS, COLUMNS])
def test_nuslerp_is_mergekits(
    shape: tuple[int, ...], parameters: dict[str, object], *, with_base: bool
) -> None:
    if parameters == COLUMNS and len(shape) > 2:  # mergekit: vectors along the first alone
        shape = (12, 6)
    tensors = related(shape, 2)
    base = normal(shape, seed=60) if with_base else None
    stack = stack_of(tensors, base=base)
    ours = merged(nuslerp, stack, weight=[0.5, 1.1], **parameters).reshape(shape)
    theirs = oracle("nuslerp", tensors, base, weight=[0.5, 1.1], **parameters)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_leading_dimensions_count_as_one_in_column_wise_nuslerp() -> None:
    tensors = related((3, 4, 6), 2)
    flat = [x.reshape(12, 6) for x in tensors]
    ours = merged(nuslerp, stack_of(tensors), weight=[1, 2], **COLUMNS)
    assert same_bits(ours, merged(nuslerp, stack_of(flat), weight=[1, 2], **COLUMNS))


def test_nuslerp_without_effect_or_with_weights_of_sum_zero_is_an_error() -> None:
    stack = stack_of(related((3, 4), 2))
    with pytest.raises(MergeError, match="nuslerp_row_wise: true has no effect"):
        nuslerp(stack, weight=[1, 1], nuslerp_row_wise=True)
    for weight in ([0, 0], [1, -1]):  # mergekit: t = 0.5
        with pytest.raises(MergeError, match="sum to zero"):
            nuslerp(stack, weight=weight)


@pytest.mark.parametrize("shape", [*SHAPES, BIG])
@pytest.mark.parametrize("with_base", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
def test_multislerp_is_mergekits(
    shape: tuple[int, ...], *, with_base: bool, normalize: bool
) -> None:
    tensors = related(shape, 3)
    base = normal(shape, seed=60) if with_base else None
    given_ = {"weight": [0.2, 0.9, 0.4], "normalize_weights": normalize}
    ours = merged(multislerp, stack_of(tensors, base=base), **given_).reshape(shape)
    theirs = oracle("multislerp", tensors, base, **given_)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_multislerp_by_hand() -> None:
    # Directions (1, 0) and (0, 1), lengths 1 and 3: mean direction (1, 1) / sqrt 2, length 2.
    stack = stack_of([np.array([1.0, 0.0]), np.array([0.0, 3.0])])
    found = merged(multislerp, stack, weight=[1, 1])
    np.testing.assert_allclose(found, [[np.sqrt(2), np.sqrt(2)]], rtol=1e-6)


def test_multislerp_of_opposite_vectors_is_linear_like_mergekits_of_two() -> None:
    x = normal((20,), seed=1)
    stack = stack_of([x, -x, np.zeros_like(x)])
    rule = multislerp(stack, weight=[1, 1, 1])
    assert rule.facts["linear"] is True
    np.testing.assert_allclose(apply(stack, rule)[0], np.zeros(20), atol=1e-7)
    with pytest.raises(ValueError, match="weighted sum of the input tensors is zero"):
        oracle("multislerp", [x, -x, np.zeros_like(x)], weight=[1, 1, 1])


def test_multislerp_keeps_a_tensor_that_no_model_changed_where_mergekit_stops() -> None:
    base = normal((9, 9), seed=1)
    with pytest.raises(ValueError, match="weighted sum of the input tensors is zero"):
        oracle("multislerp", [base] * 3, base, weight=[1, 1, 1])
    found = merged(multislerp, stack_of([base] * 3, base=base), weight=[1, 1, 1])
    assert same_bits(found, base)


@pytest.mark.parametrize("shape", [*SHAPES[2:], BIG])
@pytest.mark.parametrize("models", [2, 3, 5])
def test_karcher_iterates_on_the_gram_matrix_to_mergekits_result(
    shape: tuple[int, ...], models: int
) -> None:
    tensors = related(shape, models)
    for given_ in ({"max_iter": 1}, {"max_iter": 3}, {"max_iter": 50, "tol": 1e-9}):
        ours = merged(karcher, stack_of(tensors), **given_).reshape(shape)
        np.testing.assert_allclose(ours, oracle("karcher", tensors, **given_), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-4, 1e-3, 1e-2])
def test_karcher_resolves_models_as_near_as_fine_tuned_ones_are(scale: float) -> None:
    shared = normal((50, 60), seed=1)
    tensors = [shared + normal((50, 60), seed=2 + i, scale=scale) for i in range(3)]
    ours = merged(karcher, stack_of(tensors)).reshape(50, 60)
    np.testing.assert_allclose(ours, oracle("karcher", tensors), rtol=1e-6, atol=1e-6)


def test_karcher_of_two_is_half_way_along_the_arc() -> None:
    stack = stack_of([np.array([1.0, 0.0]), np.array([0.0, 3.0])])
    rule = karcher(stack)
    np.testing.assert_allclose(apply(stack, rule), [[np.sqrt(2), np.sqrt(2)]], rtol=1e-6)
    assert rule.facts["converged"] is True


def test_karcher_keeps_small_tensors_where_mergekit_writes_zeros() -> None:
    tensors = [np.array(x, np.float32) * np.float32(1e-6) for x in ([1, 0], [0, 1])]
    assert not oracle("karcher", tensors).any()
    found = merged(karcher, stack_of(tensors))
    np.testing.assert_allclose(found, [[np.sqrt(0.5) * 1e-6] * 2], rtol=1e-6)


def test_karcher_of_opposite_vectors_is_linear_where_mergekits_depends_on_the_order() -> None:
    x = normal((20,), seed=1)
    left, right = oracle("karcher", [x, -x]), oracle("karcher", [-x, x])
    assert np.abs(left - right).max() > 1
    for pair in ([x, -x], [-x, x]):
        stack = stack_of(pair)
        rule = karcher(stack)
        assert rule.facts["linear"] is True
        assert not apply(stack, rule).any()


def test_karcher_leaves_out_a_vector_opposite_to_the_mean() -> None:
    x = normal((20,), seed=1)
    np.testing.assert_allclose(merged(karcher, stack_of([x, x, -x])), [x], rtol=1e-6, atol=1e-6)


def test_karcher_counts_a_zero_tensor_in_the_norm_alone_like_mergekits() -> None:
    tensors = [*related((4, 5), 2), np.zeros((4, 5), np.float32)]
    found = merged(karcher, stack_of(tensors))
    np.testing.assert_allclose(found, oracle("karcher", tensors), rtol=1e-6, atol=1e-6)


def test_karcher_says_when_it_has_not_converged() -> None:
    facts = karcher(stack_of(related((4, 5), 3)), max_iter=1, tol=1e-12).facts
    assert facts["converged"] is False
    assert facts["step"] > 1e-12


@given(seed=st.integers(0, 1000), turn=st.permutations(range(4)))
@settings(max_examples=30, deadline=None)
def test_the_order_of_models_moves_no_element_by_more_than_one_rounding(
    seed: int, turn: list[int]
) -> None:
    tensors = [normal((6, 7), seed=seed + i) + 1 for i in range(4)]
    turned = [tensors[i] for i in turn]
    weight = np.array([0.2, 1.0, 0.5, 0.7])
    straight, other = stack_of(tensors), stack_of(turned)
    left, right = merged(karcher, straight), merged(karcher, other)
    np.testing.assert_array_max_ulp(left, right, 1)
    left = merged(multislerp, straight, weight=weight.tolist())
    right = merged(multislerp, other, weight=weight[turn].tolist())
    # Where the sum nearly cancels, a last bit of the weights is more than one of the sum.
    np.testing.assert_allclose(left, right, rtol=2e-7, atol=1e-12)


@pytest.mark.parametrize("with_base", [True, False])
@pytest.mark.parametrize(("method", "parameters"), OF_TWO)
def test_mergekit_in_float32_differs_by_its_own_rounding(
    method: Callable[..., Rule], parameters: dict[str, object], *, with_base: bool
) -> None:
    tensors = related((30, 40), 2)
    base = normal((30, 40), seed=60) if with_base and method is not karcher else None
    inputs = [torch.from_numpy(x) for x in ([] if base is None else [base]) + tensors]
    theirs = merge_tensors(
        inputs,
        method.__name__,
        base_index=None if base is None else 0,
        parameters=parameters,
    )
    ours = merged(method, stack_of(tensors, base=base), **parameters)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-5)


def test_slerp_from_a_to_b_is_slerp_from_b_to_a_at_the_other_end_bit_for_bit() -> None:
    a, b = related((30, 40), 2)
    left = merged(slerp, stack_of([b], base=a), t=0.25)
    assert same_bits(left, merged(slerp, stack_of([a], base=b), t=0.75))


@pytest.mark.parametrize(("method", "parameters"), OF_TWO)
def test_one_or_two_threads_give_the_same_bytes(
    method: Callable[..., Rule], parameters: dict[str, object]
) -> None:
    tensors = related(BIG, 2)
    with open_threads(2) as two:
        one = merged(method, stack_of(tensors, threads=ONE_THREAD), **parameters)
        assert same_bits(one, merged(method, stack_of(tensors, threads=two), **parameters))
        base = stack_of(tensors[1:], base=tensors[0], threads=ONE_THREAD)
        shared = stack_of(tensors[1:], base=tensors[0], threads=two)
        assert same_bits(merged(slerp, base, t=0.3), merged(slerp, shared, t=0.3))


@pytest.mark.parametrize("models", [2, 3])
def test_gram_matrices_are_those_of_float64(models: int) -> None:
    tensors = related((40, 5000), models)
    base = normal((40, 5000), seed=70)
    vectors = np.stack([x - base for x in tensors]).astype(np.float64)
    stack = stack_of(tensors, base=base)
    np.testing.assert_allclose(
        tensor_gram(stack), np.einsum("ird,jrd->ij", vectors, vectors), rtol=1e-12
    )
    np.testing.assert_allclose(
        row_grams(stack), np.einsum("ird,jrd->rij", vectors, vectors), rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(
        column_grams(stack), np.einsum("ird,jrd->dij", vectors, vectors), rtol=1e-9, atol=1e-9
    )


def test_equal_vectors_have_the_cosine_1_exactly() -> None:
    for models in (2, 3):
        for size in (1, 3, 100, 5000):
            x = normal((size,), seed=size)
            assert (cosines(tensor_gram(stack_of([x] * models))) == 1).all()
