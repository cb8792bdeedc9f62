"""DARE and DELLA: seeded masks that no slicing changes, unbiased survivors, and mergekit."""

from typing import Any

import numpy as np
import pytest
import torch
from mergekit.merge_methods import merge_tensors
from numpy.typing import NDArray

from cuvee.errors import RecipeError
from cuvee.merge.blocks import apply, stack_of
from cuvee.merge.kernels import uniform
from cuvee.merge.methods.drops import METHODS_HERE
from cuvee.merge.methods.randomness import stream_seed

Array = NDArray[np.float32]
RULES = {method.name: method.rule for method in METHODS_HERE}
NAMES = sorted(RULES)
DARE, DELLA = ["dare_linear", "dare_ties"], ["della", "della_linear"]
N = 20_000


def merged(
    name: str, models: list[Array], base: Array, *, tensor: str = "w", **given: Any
) -> Array:
    settings = {"normalize": False, "rescale": True, "lambda_": 1.0, "int8_mask": False, "seed": 1}
    k = len(models)
    shares = {"weight": [1.0] * k, "density": [0.5] * k}
    if name.startswith("della"):
        shares["epsilon"] = [0.2] * k
    stack = stack_of(models, base=base, name=tensor)
    return apply(stack, RULES[name](stack, **(shares | settings | given))).reshape(base.shape)


def mergekits(name: str, models: list[Array], base: Array, **given: Any) -> Array:
    tensors = [torch.from_numpy(np.array(array)) for array in (base, *models)]
    result: Array = merge_tensors(tensors, name, base_index=0, parameters=given).numpy()
    return result


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def zeros(*shape: int) -> Array:
    return np.zeros(shape, np.float32)


# --- seeds


def test_a_stream_seed_is_the_same_everywhere_and_differs_in_each_argument() -> None:
    assert stream_seed(1, "model.norm.weight", 0) == np.uint64(0x76761044DF0339D5)
    triples = [(s, t, m) for s in (0, 1, -1) for t in ("a", "b", "1") for m in (0, 1, 11)]
    assert len({int(stream_seed(*triple)) for triple in triples}) == len(triples)


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_repeats_a_merge_and_another_seed_or_tensor_name_does_not(name: str) -> None:
    delta, base = normal(40, 50), zeros(40, 50)
    first = merged(name, [delta], base)
    np.testing.assert_array_equal(merged(name, [delta], base), first)
    assert (merged(name, [delta], base, seed=2) != first).any()
    assert (merged(name, [delta], base, tensor="v") != first).any()


def test_models_drop_independently() -> None:
    delta = np.ones((1, N), np.float32)
    out = merged("dare_linear", [delta, delta], zeros(1, N), rescale=False)
    shares = [(out == value).mean() for value in (0, 1, 2)]
    np.testing.assert_allclose(shares, [0.25, 0.5, 0.25], atol=0.02)


# --- dare


@pytest.mark.parametrize("name", DARE)
@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_dare_each_element_is_dropped_or_divided_by_the_density(name: str, density: float) -> None:
    delta = normal(N)
    out = merged(name, [delta], zeros(N), density=[density])
    kept = out != 0
    np.testing.assert_allclose(out[kept], delta[kept] / density, rtol=1e-6)
    spread = 5 * np.sqrt(density * (1 - density) / N)
    assert abs(kept.mean() - density) < spread


def test_dare_keeps_where_the_streams_number_is_below_the_density() -> None:
    delta, random = normal(30, 70), np.empty(2100, np.float32)
    uniform(stream_seed(1, "w", 0), 0, random)
    out = merged("dare_linear", [delta], zeros(30, 70), density=[0.3])
    np.testing.assert_array_equal(out.reshape(-1) != 0, random < np.float32(0.3))


@pytest.mark.parametrize("name", NAMES)
def test_without_rescale_survivors_keep_their_value(name: str) -> None:
    delta = normal(100, 50)
    out = merged(name, [delta], zeros(100, 50), rescale=False)
    assert set(np.unique(out[out != delta])) == {0.0}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("normalize", [False, True])
def test_with_density_one_it_equals_mergekit(name: str, *, normalize: bool) -> None:
    base = normal(9, 31) * np.float32(0.02)
    models = [base + normal(9, 31, seed=s) * np.float32(0.01) for s in (1, 2, 3)]
    given: dict[str, Any] = {"weight": [0.3, 0.9, 0.2], "density": [1.0] * 3}
    given["normalize"] = normalize
    expected = mergekits(name, models, base, **given, **{"lambda": 0.7})
    ours = merged(name, models, base, **given, lambda_=0.7)
    np.testing.assert_allclose(ours, expected, rtol=2e-6, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rescale", [False, True])
def test_with_density_zero_the_base_is_left(name: str, *, rescale: bool) -> None:
    base = normal(9, 31)
    out = merged(name, [normal(9, 31, seed=1)], base, density=[0.0], rescale=rescale)
    np.testing.assert_array_equal(out, base)


@pytest.mark.parametrize("name", ["dare_linear", "della_linear"])
def test_means_over_seeds_are_the_task_vector(name: str) -> None:
    delta = normal(2, 50) + np.float32(3)
    ours = [merged(name, [delta], zeros(2, 50), seed=seed) for seed in range(400)]
    # A draw's relative deviation is sqrt(1 / p - 1), at the most 1.53 (p = 0.3); that of a
    # mean of 400 is 0.076, and five of these are 0.38.
    np.testing.assert_allclose(np.mean(ours, axis=0), delta, rtol=0.38)
    np.testing.assert_allclose(np.mean(ours), delta.mean(), rtol=0.03)


def test_dare_divides_by_the_density_where_mergekit_restores_the_l1_norm() -> None:
    # The paper's 1 / (1 - p) leaves each element's expectation alone and needs no pass over
    # the tensor. The L1 norm of what is kept is a random number: in a small tensor, the
    # factor swings with it (here a bias of 4 equal elements, 2 of them kept on average).
    torch.manual_seed(0)
    delta, base = np.ones(4, np.float32), zeros(4)
    draws = [mergekits("dare_linear", [delta], base, weight=[1.0], density=[0.5]) for _ in "x" * 40]
    assert len({round(float(draw.max()), 4) for draw in draws}) > 2
    ours = [merged("dare_linear", [delta], base, seed=seed) for seed in range(40)]
    assert {float(draw.max()) for draw in ours} <= {0.0, 2.0}


@pytest.mark.parametrize("name", DARE)
def test_with_the_l1_norm_restored_the_kept_values_are_mergekits(name: str) -> None:
    # Masks differ (another generator), what happens to kept elements must not: both are the
    # task vector times one factor, and the factors agree as the tensor grows.
    torch.manual_seed(0)
    delta, base = normal(N), zeros(N)
    theirs = mergekits(name, [delta], base, weight=[1.0], density=[0.3])
    ours = merged(name, [delta], base, density=[0.3])
    for out in (theirs, ours):
        factors = out[out != 0] / delta[out != 0]
        np.testing.assert_allclose(factors, 1 / 0.3, rtol=0.05)
        assert np.ptp(factors) < 1e-5


# --- della


def test_della_keeps_by_rank_in_the_row_from_density_minus_to_plus_epsilon() -> None:
    d = 11
    row = np.arange(1, d + 1, dtype=np.float32)
    delta = np.tile(row[::-1], (4000, 1))
    out = merged("della_linear", [delta], zeros(4000, d), density=[0.5], epsilon=[0.4])
    wanted = np.linspace(0.1, 0.9, d)[::-1]
    np.testing.assert_allclose((out != 0).mean(axis=0), wanted, atol=0.04)
    kept = out != 0
    np.testing.assert_allclose(out[kept], (delta / wanted)[kept], rtol=1e-5)


def test_della_equal_magnitudes_have_equal_chances_where_mergekit_ranks_them_by_its_sort() -> None:
    # bfloat16 updates tie often; a rank by position would favour one end of the row.
    delta = np.tile(np.array([1, -1, 1, -1, 1, 1], np.float32), (4000, 1))
    out = merged("della_linear", [delta], zeros(4000, 6), density=[0.5], epsilon=[0.4])
    np.testing.assert_allclose((out != 0).mean(axis=0), 0.5, atol=0.04)
    np.testing.assert_allclose(np.abs(out[out != 0]), 2.0, rtol=1e-6)


def test_della_rows_run_over_the_last_dimension_where_mergekit_ranks_over_the_second() -> None:
    # For a convolution [out, in, width] mergekit ranks over `in`. A row of ours is what
    # `blocks` calls one everywhere: a 1-D tensor one row, else the last dimension.
    magnitudes = np.broadcast_to(np.array([1, 2, 3], np.float32), (2000, 2, 3)).copy()
    out = merged("della_linear", [magnitudes], zeros(2000, 2, 3), epsilon=[0.4])
    np.testing.assert_allclose((out != 0).mean(axis=(0, 1)), [0.1, 0.5, 0.9], atol=0.04)


@pytest.mark.parametrize("name", DELLA)
@pytest.mark.parametrize("shape", [(), (1,), (2000, 1)])
def test_della_a_row_of_one_element_is_kept_with_the_density(
    name: str, shape: tuple[int, ...]
) -> None:
    # mergekit divides 0 by 0 here.
    out = merged(name, [np.ones(shape, np.float32)], zeros(*shape))
    assert set(np.unique(out)) <= {0.0, 2.0}
    if out.size > 1:
        assert abs((out != 0).mean() - 0.5) < 0.06


@pytest.mark.parametrize("name", DELLA)
@pytest.mark.parametrize(("density", "epsilon"), [(0.9, 0.15), (0.1, 0.1), (0.5, 0.5)])
def test_della_refuses_probabilities_outside_of_0_and_1(
    name: str, density: float, epsilon: float
) -> None:
    with pytest.raises(RecipeError, match=f"density {density} and epsilon {epsilon}"):
        merged(name, [normal(2, 3)], zeros(2, 3), density=[density], epsilon=[epsilon])
