"""The measures of a merge: hand-worked values, numpy's answers, and what has no value."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cuvee.merge.diagnostics import measures
from cuvee.merge.diagnostics.measures import describe, measure, sums_length

F32 = np.float32
Floats = NDArray[np.float32]


def small(seed: int, *shape: int) -> Floats:
    """Weights in which ties, zeros and equal elements are common."""
    return (np.random.default_rng(seed).integers(-3, 4, shape) / 8).astype(F32)


def by_numpy(models: Floats, base: Floats | None, result: Floats) -> list[float]:
    """The sums as they are defined, one numpy pass each, in float64."""
    k = len(models)
    zero = np.zeros_like(result) if base is None else base
    moved = (models - zero).astype(np.float64).reshape(k, -1)
    own = (result - zero).astype(np.float64)
    bits = models.view(np.int32).reshape(k, -1) == result.view(np.int32).reshape(1, -1)
    pairs = [(i, j) for i in range(k) for j in range(i + 1, k)]
    flat = models.reshape(k, -1).astype(np.float64)
    return [
        result.size, float((zero.astype(np.float64) ** 2).sum()), float((own**2).sum()),
        int((own != 0).sum()), int(((moved > 0).any(0) & (moved < 0).any(0)).sum()),
        *(moved**2).sum(1), *(moved != 0).sum(1), *bits.sum(1),
        *(((flat[i] - flat[j]) ** 2).sum() for i, j in pairs),
        *((flat[i] != flat[j]).sum() for i, j in pairs),
    ]  # fmt: skip


@pytest.mark.parametrize("has_base", [True, False])
@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize("shape", [(1, 1), (1, 99), (3, 2048), (7, 701), (2, 5000)])
def test_the_sums_are_those_of_their_definition(
    k: int, shape: tuple[int, int], *, has_base: bool
) -> None:
    models, base = small(k, k, *shape), small(9, *shape) if has_base else None
    result = np.where(small(8, *shape) > 0, models[0], models[-1])
    found = measure(models, base, result)
    assert len(found) == sums_length(k)
    np.testing.assert_allclose(found, by_numpy(models, base, result), rtol=1e-6)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 5000), has_base=st.booleans())
def test_the_loop_for_two_models_and_the_general_one_agree(
    *, seed: int, n: int, has_base: bool
) -> None:
    models, result = small(seed, 2, n), small(seed + 1, n)
    base, step = (small(seed + 2, n), 1) if has_base else (measures.ZEROS, 0)
    pair, general = np.zeros(sums_length(2)), np.zeros(sums_length(2))
    measures.add_pair(models, base, result, step, pair)
    measures.add_any(models, base, result, step, general)
    np.testing.assert_allclose(pair, general, rtol=1e-6)


def test_the_sums_of_blocks_add_up_to_those_of_the_whole() -> None:
    models, base, result = small(0, 3, 10, 400), small(1, 10, 400), small(2, 10, 400)
    parts = [measure(models[:, r : r + 3], base[r : r + 3], result[r : r + 3])
             for r in range(0, 10, 3)]  # fmt: skip
    np.testing.assert_allclose(sum(parts), measure(models, base, result), rtol=1e-6)


def test_measures_with_a_base_by_hand() -> None:
    base = np.array([[1, 2, 2, 0]], F32)
    models = np.array([[[1, 5, 2, 4]], [[1, 2, 8, -8]]], F32)  # deltas (0 3 0 4), (0 0 6 -8)
    result = np.array([[1, 5, 8, -8]], F32)
    found = describe(measure(models, base, result), models=2, has_base=True)
    assert found == {
        "elements": 4,
        "base": {"norm": 3.0},
        "models": [
            {"delta_norm": 5.0, "share_moved": 0.5, "share_equal": 0.5},
            {"delta_norm": 10.0, "share_moved": 0.5, "share_equal": 0.75},
        ],
        "result": {"delta_norm": pytest.approx(math.sqrt(9 + 36 + 64)), "share_moved": 0.75},
        "pairs": [
            {
                "models": [0, 1],
                "difference_norm": pytest.approx(math.sqrt(9 + 36 + 144)),
                "share_differing": 0.75,
                "cosine_deltas": pytest.approx(-32 / 50),
            }
        ],
        "share_conflicting": 0.25,
    }


def test_measures_without_a_base_by_hand() -> None:
    models = np.array([[[3, 4]], [[4, -3]]], F32)
    found = describe(measure(models, None, models[0]), models=2, has_base=False)
    assert found["models"] == [{"norm": 5.0, "share_equal": 1.0}, {"norm": 5.0, "share_equal": 0.0}]
    assert found["result"] == {"norm": 5.0}
    (pair,) = found["pairs"]
    assert pair["cosine_weights"] == pytest.approx(0, abs=1e-7)
    assert pair["relative_difference"] == pytest.approx(math.sqrt(2))
    assert "base" not in found
    assert "share_conflicting" not in found


@pytest.mark.parametrize("has_base", [True, False])
def test_what_has_no_value_is_none_and_never_nan(*, has_base: bool) -> None:
    empty = describe(np.zeros(sums_length(2)), models=2, has_base=has_base)
    still = np.zeros((2, 1, 5), F32)
    zero = describe(
        measure(still, still[0] if has_base else None, still[0]), models=2, has_base=has_base
    )
    for found in (empty, zero):
        (pair,) = found["pairs"]
        assert pair["cosine_deltas" if has_base else "cosine_weights"] is None
        json.dumps(found, allow_nan=False)
    assert empty["models"][0]["share_equal"] is None
    assert zero["models"][0]["share_equal"] == 1.0


def test_sums_out_of_range_have_no_measure() -> None:
    huge = np.full((2, 1, 4), 3e38, F32)
    huge[1] *= -1
    found = describe(measure(huge, None, huge[0]), models=2, has_base=False)
    json.dumps(found, allow_nan=False)
    assert found["models"][0]["norm"] is None
    assert found["pairs"][0]["cosine_weights"] is None


def test_a_cosine_of_equal_changes_is_one_and_of_opposite_ones_minus_one() -> None:
    base = small(0, 4, 300)
    delta = np.full_like(base, 2**-10)
    for sign in (1, -1):
        models = np.stack([base + delta, base + sign * delta])
        found = describe(measure(models, base, base), models=2, has_base=True)
        assert found["pairs"][0]["cosine_deltas"] == sign
        assert found["share_conflicting"] == (0.0 if sign == 1 else 1.0)


def test_equal_is_bit_for_bit_and_moved_is_by_value() -> None:
    models = np.array([[[0.0, 1.0]], [[-0.0, 1.0]]], F32)
    found = describe(measure(models, models[0], models[1]), models=2, has_base=True)
    assert [model["share_equal"] for model in found["models"]] == [0.5, 1.0]
    assert [model["share_moved"] for model in found["models"]] == [0.0, 0.0]
    assert found["pairs"][0]["share_differing"] == 0.0


def test_small_changes_of_opposite_sign_conflict_though_their_product_is_zero() -> None:
    tiny = np.array([[[1e-30]], [[-1e-30]]], F32)
    found = describe(measure(tiny, np.zeros((1, 1), F32), tiny[0]), models=2, has_base=True)
    assert found["share_conflicting"] == 1.0


def test_norms_of_many_elements_keep_six_digits() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(0, 0.02, (100, 3000)).astype(F32)
    models = (base + rng.normal(0, 3e-4, (2, 100, 3000))).astype(F32)
    found = measure(models, base, models[1])
    np.testing.assert_allclose(found, by_numpy(models, base, models[1]), rtol=1e-6)
