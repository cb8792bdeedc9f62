"""SCE: selection by variance, weights by energy, erased minorities, and mergekit."""

from typing import Any

import numpy as np
import pytest
import torch
from mergekit.merge_methods import merge_tensors
from numpy.typing import NDArray

from cuvee.merge.blocks import apply, stack_of
from cuvee.merge.methods.sce import sce

Array = NDArray[np.float32]


def merged(models: list[Array], base: Array, *, select_topk: float = 1.0) -> Array:
    stack = stack_of(models, base=base)
    return apply(stack, sce(stack, select_topk=select_topk, int8_mask=False)).reshape(base.shape)


def mergekits(models: list[Array], base: Array, **given: Any) -> Array:
    tensors = [torch.from_numpy(np.array(array)) for array in (base, *models)]
    result: Array = merge_tensors(tensors, "sce", base_index=0, parameters=given).numpy()
    return result


def f32(*values: float) -> Array:
    return np.array(values, np.float32)


def test_by_hand_models_weigh_by_energy_and_minorities_are_erased() -> None:
    # Energies 9 + 1 = 10 and 1 + 4 = 5: weights 2/3 and 1/3.
    base, deltas = f32(10, 10), [f32(3, 1), f32(1, -2)]
    out = merged([base + delta for delta in deltas], base)
    np.testing.assert_allclose(out, [10 + 7 / 3, 8], rtol=1e-6)


def test_by_hand_only_the_elements_of_the_largest_variance_are_merged() -> None:
    # Variances 1, 0.25, 4, 0: half of the three above 0 is one element.
    deltas = [f32(2, 1, 4, 5), f32(0, 0, 0, 5)]
    assert merged(deltas, f32(0, 0, 0, 0), select_topk=0.5).tolist() == [0.0, 0.0, 4.0, 0.0]
    assert merged(deltas, f32(0, 0, 0, 0), select_topk=0.0).tolist() == [0.0] * 4


def test_thresholds_and_weights_are_recorded() -> None:
    stack = stack_of([f32(2, 1, 4, 5), f32(0, 0, 0, 5)], base=f32(0, 0, 0, 0))
    facts = sce(stack, select_topk=0.5, int8_mask=False).facts
    assert facts == {"selected_from": 4.0, "weights": [1.0, 0.0]}


@pytest.mark.parametrize("shape", [(1,), (99,), (100,), (13, 17), (3, 4, 5), ()])
@pytest.mark.parametrize("select_topk", [1.0, 0.6, 0.1, 0.0])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_equals_mergekit_to_rounding(shape: tuple[int, ...], select_topk: float, k: int) -> None:
    rng = np.random.default_rng(k)
    base = rng.normal(0, 1, shape).astype(np.float32)
    models = [(base + rng.normal(0, 0.5 + i, shape)).astype(np.float32) for i in range(k)]
    expected = mergekits(models, base, select_topk=select_topk)
    ours = merged(models, base, select_topk=select_topk)
    np.testing.assert_allclose(ours, expected, rtol=3e-6, atol=1e-6)


def test_small_updates_have_weights_too_where_mergekit_makes_all_equal() -> None:
    # mergekit gives up on weights below a mean square of 1e-6: a usual update of 3e-4 is
    # always below. The formula has no such limit.
    models, base = [f32(3e-4, 3e-4), f32(1e-4, 1e-4)], f32(0, 0)
    np.testing.assert_allclose(merged(models, base), [2.8e-4] * 2, rtol=1e-5)
    np.testing.assert_allclose(mergekits(models, base), [2e-4] * 2, rtol=1e-5)


def test_equal_variances_are_selected_together_where_mergekit_takes_some_of_them() -> None:
    # Which of them its top-k takes is arbitrary; see the same test of TIES.
    models, base = [np.ones(10, np.float32), np.zeros(10, np.float32)], np.zeros(10, np.float32)
    assert np.count_nonzero(merged(models, base, select_topk=0.3)) == 10
    assert np.count_nonzero(mergekits(models, base, select_topk=0.3)) == 3
