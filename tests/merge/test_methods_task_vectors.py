"""Task arithmetic and TIES against hand-worked values and mergekit; what all of them hold to.

The invariants run over every method of `task_vectors`, `breadcrumbs`, `drops`, `sce`, `ram`.
"""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mergekit.merge_methods import merge_tensors
from numpy.typing import NDArray

from cuvee.errors import MergeError
from cuvee.merge.blocks import apply, stack_of
from cuvee.merge.methods import breadcrumbs, drops, ram, sce, task_vectors
from cuvee.merge.methods.spec import Method
from cuvee.merge.threads import ONE_THREAD, Threads, open_threads

Array = NDArray[np.float32]

ALL = {
    method.name: method
    for module in (task_vectors, breadcrumbs, drops, sce, ram)
    for method in module.METHODS_HERE
}
SYMMETRIC = sorted(name for name, method in ALL.items() if not method.random)
SPARSE: dict[str, float] = {"density": 0.6, "gamma": 0.1, "epsilon": 0.2, "select_topk": 0.5}


def settings_of(method: Method, models: int, given: dict[str, Any]) -> dict[str, Any]:
    """Fill in a method's defaults (weight 1), one value a model where it takes that."""
    found: dict[str, Any] = {"seed": 7} if method.random else {}
    for parameter in method.parameters:
        default = 1.0 if parameter.default is None else parameter.default
        value = given.get(parameter.name, default)
        if parameter.each_model and not isinstance(value, list):
            value = [value] * models
        found["lambda_" if parameter.name == "lambda" else parameter.name] = value
    return found


def merged(
    name: str, models: list[Array], base: Array, *, threads: Threads = ONE_THREAD, **given: Any
) -> Array:
    stack = stack_of(models, base=base, threads=threads)
    rule = ALL[name].rule(stack, **settings_of(ALL[name], len(models), given))
    return apply(stack, rule).reshape(base.shape)


def sparse(name: str) -> dict[str, Any]:
    """Settings under which a method does thin out: RAM's epsilon is another thing."""
    return {} if name.startswith("ram") else SPARSE


def mergekits(name: str, models: list[Array], base: Array, **given: Any) -> Array:
    tensors = [torch.from_numpy(np.array(array)) for array in (base, *models)]
    result: Array = merge_tensors(tensors, name, base_index=0, parameters=given).numpy()
    return result


def tensors(shape: tuple[int, ...], k: int, seed: int = 0) -> tuple[list[Array], Array]:
    rng = np.random.default_rng(seed)
    base = rng.normal(0, 0.02, shape).astype(np.float32)
    moved = [(base + rng.normal(0, 1e-2, shape)).astype(np.float32) for _ in range(k)]
    return moved, base


def same(a: Array, b: Array) -> bool:
    """Bit for bit, -0 and +0 apart."""
    return a.shape == b.shape and a.tobytes() == b.tobytes()


def f32(*values: float) -> Array:
    return np.array(values, np.float32)


# --- hand-worked values


def test_task_arithmetic_adds_weighted_differences_to_the_base() -> None:
    models, base = [f32(2, 0, 1), f32(1, 4, 1)], f32(1, 2, 1)
    out = merged("task_arithmetic", models, base, weight=[0.5, 1.0])
    assert out.tolist() == [1.5, 3.0, 1.0]
    out = merged("task_arithmetic", models, base, weight=[0.5, 1.5], normalize=True)
    assert out.tolist() == [1.25, 3.0, 1.0]
    twice: dict[str, Any] = {"weight": [0.5, 1.0], "lambda": 2.0}
    out = merged("task_arithmetic", models, base, **twice)
    assert out.tolist() == [2.0, 4.0, 1.0]


def test_ties_trims_elects_and_averages_those_who_agree() -> None:
    # Kept halves: {0: 4, 1: -3}, {0: 2, 2: -5}, {1: 1, 3: 2}; signs elected: +, -, -, +.
    models = [f32(4, -3, 0.5, 1), f32(2, -1, -5, 1), f32(0.5, 1, -0.5, 2)]
    out = merged("ties", models, f32(0, 0, 0, 0), density=0.5)
    assert out.tolist() == [3.0, -3.0, -5.0, 2.0]
    out = merged("ties", models, f32(0, 0, 0, 0), density=0.5, normalize=False)
    assert out.tolist() == [6.0, -3.0, -5.0, 2.0]


def test_ties_a_weight_votes_and_a_tied_vote_elects_plus() -> None:
    models, base = [f32(1, 1), f32(-1, -2)], f32(0, 0)
    assert merged("ties", models, base, weight=[1.0, 1.0]).tolist() == [1.0, -2.0]
    assert merged("ties", models, base, weight=[3.0, 1.0]).tolist() == [1.0, 1.0]


def test_ties_rescale_restores_the_l1_norm() -> None:
    out = merged("ties", [f32(3, 1, 0, 0)], f32(0, 0, 0, 0), density=0.25, rescale=True)
    assert out.tolist() == [4.0, 0.0, 0.0, 0.0]


def test_ties_thresholds_are_recorded() -> None:
    stack = stack_of([f32(3, 1, 2, 5)], base=f32(0, 0, 0, 0))
    given = settings_of(ALL["ties"], 1, {"density": 0.5})
    assert task_vectors.ties(stack, **given).facts == {"kept_from": [3.0], "kept_to": [None]}


# --- differential


@pytest.mark.parametrize("shape", [(1,), (99,), (100,), (13, 17), (3, 4, 5), ()])
@pytest.mark.parametrize(
    "settings_given",
    [
        {"weight": [1.0, 1.0, 1.0], "density": [0.5, 0.5, 0.5]},
        {"weight": [0.3, 0.9, -0.2], "density": [0.2, 0.9, 1.0], "lambda": 0.7},
        {"weight": [0.3, 0.9, 0.2], "density": [0.3, 0.0, 0.7], "normalize": False},
        {"weight": [0.3, 0.9, 0.2], "density": [0.3, 0.6, 0.7], "rescale": True},
        {"weight": [0.3, 0.9, 0.2], "density": [0.3, 0.6, 0.7], "int8_mask": True},
    ],
)
def test_ties_equals_mergekit_to_rounding(
    shape: tuple[int, ...], settings_given: dict[str, Any]
) -> None:
    models, base = tensors(shape, 3)
    expected = mergekits("ties", models, base, **settings_given)
    np.testing.assert_allclose(
        merged("ties", models, base, **settings_given), expected, rtol=2e-6, atol=1e-8
    )


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("weight", [[0.3, 0.9, 0.2], [0.5, 0.5, -1.0]])
def test_task_arithmetic_equals_mergekit_to_rounding(
    weight: list[float], *, normalize: bool
) -> None:
    models, base = tensors((7, 11), 3)
    given: dict[str, Any] = {"weight": weight, "normalize": normalize, "lambda": 1.3}
    expected = mergekits("task_arithmetic", models, base, **given)
    np.testing.assert_allclose(
        merged("task_arithmetic", models, base, **given), expected, rtol=2e-6, atol=1e-8
    )


def test_ties_keeps_all_that_tie_with_the_last_where_mergekit_takes_some_of_them() -> None:
    # Which of the equal magnitudes mergekit keeps hangs on its sort: no one could repeat it in
    # slices, and a model merged in another layout would differ. All or none is well defined.
    models, base = [np.ones(10, np.float32)], np.zeros(10, np.float32)
    assert merged("ties", models, base, density=0.3).tolist() == [1.0] * 10
    assert np.count_nonzero(mergekits("ties", models, base, weight=[1.0], density=[0.3])) == 3


def test_ties_rescales_updates_of_any_size_where_mergekit_leaves_tiny_ones() -> None:
    # mergekit does not rescale below an L1 norm of 1e-7: a small bias would be treated apart.
    models, base = [f32(3e-9, 1e-9)], f32(0, 0)
    ours = merged("ties", models, base, density=0.5, rescale=True)
    np.testing.assert_allclose(ours, [4e-9, 0], rtol=1e-6)
    given: dict[str, Any] = {"weight": [1.0], "density": [0.5], "rescale": True}
    np.testing.assert_allclose(mergekits("ties", models, base, **given), [3e-9, 0], rtol=1e-6)


# --- invariants of every method


@pytest.mark.parametrize("name", sorted(ALL))
@pytest.mark.parametrize("shape", [(), (0,), (1,), (99,), (100,), (0, 5), (9, 11), (3, 4, 5)])
def test_where_no_model_moved_the_result_is_the_base_bit_for_bit(
    name: str, shape: tuple[int, ...]
) -> None:
    base = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    base.reshape(-1)[::7] = -0.0
    assert same(merged(name, [base, base, base], base, **sparse(name)), base)


@pytest.mark.parametrize("name", SYMMETRIC)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_permuting_the_models_changes_no_bit(name: str, data: st.DataObject) -> None:
    numbers = st.integers(-60, 60).map(lambda n: n / 64)  # a grid: many ties, as bf16 has
    values = data.draw(arrays(np.float32, (4, 3, 5), elements=numbers))
    weight = data.draw(st.lists(st.sampled_from([0.1, 0.3, 1.0, 0.7]), min_size=3, max_size=3))
    base, models = values[0], list(values[1:])
    results = [
        merged(name, [models[i] for i in p], base, **sparse(name), weight=[weight[i] for i in p])
        for p in itertools.permutations(range(3))
    ]
    assert all(same(result, results[0]) for result in results)


@pytest.mark.parametrize("name", sorted(ALL))
def test_threads_and_block_sizes_change_no_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    models, base = tensors((60, 50), 3)
    given = sparse(name) | {"rescale": not name.startswith(("sce", "ram", "task"))}
    whole = merged(name, models, base, **given)
    monkeypatch.setattr("cuvee.merge.blocks.BLOCK_ELEMENTS", 350)
    with open_threads(2) as threads:
        assert same(merged(name, models, base, threads=threads, **given), whole)
    assert same(merged(name, models, base, **given), whole)


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_tensor_of_one_repeated_value(name: str) -> None:
    # Every magnitude ties: nothing is cut, so the mean of 0.5 and 0.25 (or a random part of it).
    base = np.full((10, 13), 0.25, np.float32)
    models = [np.full((10, 13), 0.75, np.float32), np.full((10, 13), 0.5, np.float32)]
    given = sparse(name) | ({} if ALL[name].random else {"normalize": True})
    out = merged(name, models, base, **given)
    if ALL[name].random:
        assert np.isfinite(out).all() and out.min() >= 0.25
    else:
        expected = 0.25 + (0.45 if name == "sce" else 0.375)
        np.testing.assert_allclose(out, expected, rtol=1e-6)


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_method_on_task_vectors_refuses_a_stack_without_base(name: str) -> None:
    models, _ = tensors((4, 5), 2)
    stack = stack_of(models)
    with pytest.raises(MergeError, match="base_model"):
        apply(stack, ALL[name].rule(stack, **settings_of(ALL[name], 2, sparse(name))))


@pytest.mark.parametrize("name", sorted(name for name in ALL if not name.startswith("ram")))
def test_int8_mask_changes_nothing(name: str) -> None:
    models, base = tensors((8, 9), 2)
    on, off = (merged(name, models, base, **sparse(name), int8_mask=flag) for flag in (True, False))
    assert same(on, off)


@settings(max_examples=40, deadline=None)
@given(
    values=arrays(np.float32, (2, 40), elements=st.floats(-1, 1, width=32)),
    density=st.floats(0.01, 0.99),
)
def test_ties_of_one_model_keeps_exactly_its_largest_magnitudes(
    values: Array, density: float
) -> None:
    base, model = values
    out = merged("ties", [model], base, density=density, normalize=False)
    delta = np.abs(model - base)
    least = np.sort(delta)[len(delta) - max(1, int(density * len(delta)))]
    kept = delta >= least
    np.testing.assert_array_equal(out[kept], base[kept] + (model - base)[kept])
    np.testing.assert_array_equal(out[~kept], base[~kept])
