"""Breadcrumbs: which ranks are kept, small tensors, and the same merge as mergekit's."""

from typing import Any

import numpy as np
import pytest
import torch
from mergekit.merge_methods import merge_tensors
from numpy.typing import NDArray

from cuvee.merge.blocks import apply, stack_of
from cuvee.merge.methods.breadcrumbs import METHODS_HERE, kept_ranks

Array = NDArray[np.float32]
RULES = {method.name: method.rule for method in METHODS_HERE}
NAMES = sorted(RULES)


def merged(name: str, models: list[Array], base: Array, **given: Any) -> Array:
    settings = {"normalize": False, "rescale": False, "lambda_": 1.0, "int8_mask": False}
    k = len(models)
    shares = {"weight": [1.0] * k, "density": [0.9] * k, "gamma": [0.01] * k}
    stack = stack_of(models, base=base)
    return apply(stack, RULES[name](stack, **(shares | settings | given))).reshape(base.shape)


def mergekits(name: str, models: list[Array], base: Array, **given: Any) -> Array:
    tensors = [torch.from_numpy(np.array(array)) for array in (base, *models)]
    result: Array = merge_tensors(tensors, name, base_index=0, parameters=given).numpy()
    return result


def distinct(n: int) -> Array:
    """Return magnitudes 1..n in a mixed order with mixed signs."""
    rng = np.random.default_rng(n)
    signs = rng.choice([-1.0, 1.0], n)
    values: Array = (signs * (rng.permutation(n) + 1)).astype(np.float32)
    return values


@pytest.mark.parametrize("name", NAMES)
def test_both_ends_are_cut(name: str) -> None:
    delta = distinct(200)
    out = merged(name, [delta], np.zeros(200, np.float32), density=[0.5], gamma=[0.1])
    # Dropped: the 20 largest and, so that 100 are kept, the 80 smallest.
    np.testing.assert_array_equal(out, delta * ((abs(delta) > 80) & (abs(delta) <= 180)))


@pytest.mark.parametrize(
    ("n", "kept"), [(1, (0, 0)), (9, (1, 8)), (99, (10, 98)), (100, (9, 98)), (1000, (90, 989))]
)
def test_kept_ranks_by_hand(n: int, kept: tuple[int, int]) -> None:
    assert kept_ranks(n, density=0.9, gamma=0.01) == kept


def test_fewer_of_the_largest_are_dropped_where_density_asks_for_them() -> None:
    assert kept_ranks(100, density=0.9, gamma=0.3) == (0, 89)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [0, 1, 99, 100])
def test_a_small_tensor_is_not_lost(name: str, n: int) -> None:
    # floor(0.01 n) is 0 there: a slice that ends at -0 is empty, and the whole tensor is lost.
    delta = distinct(n)
    out = merged(name, [delta], np.zeros(n, np.float32))
    assert np.count_nonzero(out) == {0: 0, 1: 1, 99: 89, 100: 90}[n]


@pytest.mark.parametrize("name", NAMES)
def test_at_least_one_element_is_kept_where_mergekit_loses_all(name: str) -> None:
    # floor(0.9 * 1) is 0: a scalar's or a one-element bias's whole update would be lost.
    model, base = np.array([3], np.float32), np.array([1], np.float32)
    assert merged(name, [model], base).tolist() == [3.0]
    assert mergekits(name, [model], base, weight=[1.0], density=[0.9]).tolist() == [1.0]


@pytest.mark.parametrize("name", NAMES)
def test_equal_magnitudes_are_kept_together_where_mergekit_takes_some_of_them(name: str) -> None:
    # Which of them its sort puts first is arbitrary; see the same test of TIES.
    model, base = np.ones(100, np.float32), np.zeros(100, np.float32)
    given: dict[str, Any] = {"density": [0.5], "gamma": [0.1]}
    assert np.count_nonzero(merged(name, [model], base, **given)) == 100
    assert np.count_nonzero(mergekits(name, [model], base, weight=[1.0], **given)) == 50


@pytest.mark.parametrize("name", NAMES)
def test_a_density_of_one_keeps_the_largest_too_as_mergekit_does(name: str) -> None:
    delta = distinct(200)
    base = np.zeros(200, np.float32)
    np.testing.assert_array_equal(merged(name, [delta], base, density=[1.0], gamma=[0.5]), delta)
    np.testing.assert_array_equal(merged(name, [delta], base, density=[0.0], gamma=[0.5]), base)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(2,), (99,), (100,), (13, 17), (3, 4, 25)])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("rescale", [False, True])
def test_equals_mergekit_to_rounding(
    name: str, shape: tuple[int, ...], *, normalize: bool, rescale: bool
) -> None:
    rng = np.random.default_rng(3)
    base = rng.normal(0, 0.02, shape).astype(np.float32)
    models = [(base + rng.normal(0, 1e-2, shape)).astype(np.float32) for _ in range(3)]
    given: dict[str, Any] = {
        "weight": [0.3, 0.9, 0.2],
        "density": [0.5, 0.7, 1.0],
        "gamma": [0.02, 0.5, 0.1],
        "normalize": normalize,
        "rescale": rescale,
    }
    expected = mergekits(name, models, base, **given, **{"lambda": 1.3})
    ours = merged(name, models, base, **given, lambda_=1.3)
    np.testing.assert_allclose(ours, expected, rtol=3e-6, atol=1e-8)
