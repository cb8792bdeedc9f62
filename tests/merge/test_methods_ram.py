"""RAM: unique changes in full, shared ones averaged, and the same merge as mergekit's."""

from typing import Any

import numpy as np
import pytest
import torch
from mergekit.merge_methods import merge_tensors
from numpy.typing import NDArray

from cuvee.merge.blocks import apply, stack_of
from cuvee.merge.methods.ram import ram, ramplus_tl

Array = NDArray[np.float32]


def f32(*values: float) -> Array:
    return np.array(values, np.float32)


def mergekits(name: str, models: list[Array], base: Array, **given: Any) -> Array:
    tensors = [torch.from_numpy(np.array(array)) for array in (base, *models)]
    result: Array = merge_tensors(tensors, name, base_index=0, parameters=given).numpy()
    return result


def overlapping(shape: tuple[int, ...]) -> tuple[list[Array], Array]:
    rng = np.random.default_rng(5)
    base = rng.normal(0, 0.02, shape).astype(np.float32)
    moves = [rng.normal(0, 1e-2, shape) * (rng.random(shape) < 0.4) for _ in range(3)]
    return [(base + move).astype(np.float32) for move in moves], base


def test_ram_by_hand() -> None:
    stack = stack_of([f32(4, 1, 0, 0.25), f32(2, 0, 0, 0.25)], base=f32(0, 0, 0, 0))
    assert apply(stack, ram(stack, epsilon=0.5)).tolist() == [[3.0, 1.0, 0.0, 0.0]]


def test_ramplus_by_hand() -> None:
    # Model 0 shares 1 element and has 2 alone: rho 0.5, lambda 1.05. Model 1 shares 1 and has
    # 1 alone: rho 1, cut to alpha 0.8, lambda 1.08.
    stack = stack_of([f32(4, 1, 1, 0), f32(2, 0, 0, 1)], base=f32(0, 0, 0, 0))
    rule = ramplus_tl(stack, r=0.1, alpha=0.8, epsilon=1e-5)
    np.testing.assert_allclose(apply(stack, rule), [[3, 1.05, 1.05, 1.08]], rtol=1e-6)
    np.testing.assert_allclose(rule.facts["unique_scales"], [1.05, 1.08])


@pytest.mark.parametrize("shape", [(1,), (99,), (100,), (13, 17), (3, 4, 5), ()])
@pytest.mark.parametrize("epsilon", [0.0, 1e-5, 3e-3])
def test_ram_equals_mergekit_to_rounding(shape: tuple[int, ...], epsilon: float) -> None:
    models, base = overlapping(shape)
    stack = stack_of(models, base=base)
    ours = apply(stack, ram(stack, epsilon=epsilon)).reshape(shape)
    expected = mergekits("ram", models, base, epsilon=epsilon)
    np.testing.assert_allclose(ours, expected, rtol=2e-6, atol=1e-8)


@pytest.mark.parametrize("shape", [(1,), (99,), (100,), (13, 17), (3, 4, 5)])
@pytest.mark.parametrize(("r", "alpha"), [(0.1, 0.2), (0.5, 3.0), (0.0, 0.2)])
def test_ramplus_equals_mergekit_to_rounding(
    shape: tuple[int, ...], r: float, alpha: float
) -> None:
    models, base = overlapping(shape)
    stack = stack_of(models, base=base)
    rule = ramplus_tl(stack, r=r, alpha=alpha, epsilon=1e-5)
    expected = mergekits("ramplus_tl", models, base, r=r, alpha=alpha, epsilon=1e-5)
    np.testing.assert_allclose(apply(stack, rule).reshape(shape), expected, rtol=2e-6, atol=1e-8)
