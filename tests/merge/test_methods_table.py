"""The table of methods: what is declared is what the functions take."""

import inspect
import keyword

import numpy as np
import pytest

from cuvee.merge.blocks import apply, stack_of
from cuvee.merge.methods.spec import Method
from cuvee.merge.methods.table import METHODS, by_name

ALL = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())

FROM_CONFIG: dict[str, dict[str, object]] = {"arcee_fusion": {"anchor": "later"}}
"""Arguments that are keys of the config and no parameters."""


def argument(name: str) -> str:
    return f"{name}_" if keyword.iskeyword(name) else name


def example(method: Method, models: int) -> dict[str, object]:
    """The defaults, and 0.5 for what a config must give."""
    found = dict(FROM_CONFIG.get(method.name, {})) | ({"seed": 0} if method.random else {})
    for parameter in method.parameters:
        value = 0.5 if parameter.default is None else parameter.default
        found[argument(parameter.name)] = [value] * models if parameter.each_model else value
    return found


@ALL
def test_declared_parameters_are_the_functions_keyword_only_ones(method: Method) -> None:
    first, *rest = inspect.signature(method.rule).parameters.values()
    assert first.name == "stack"
    assert all(p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD) for p in rest)
    if not any(p.kind is p.VAR_KEYWORD for p in rest):
        declared = {argument(p.name) for p in method.parameters}
        assert {p.name for p in rest} - {"seed"} == declared | set(FROM_CONFIG.get(method.name, {}))


@ALL
def test_defaults_lie_in_their_range_and_every_method_names_its_source(method: Method) -> None:
    assert method.paper
    for parameter in method.parameters:
        if parameter.default is not None:
            assert type(parameter.default) is parameter.kind
            assert parameter.low <= parameter.default <= parameter.high


@ALL
@pytest.mark.parametrize("shape", [(), (0,), (1,), (99,), (100,), (6, 5), (2, 3, 4)])
def test_every_method_merges_every_shape_into_finite_numbers(
    method: Method, shape: tuple[int, ...]
) -> None:
    models = method.models[0]
    generator = np.random.default_rng(0)
    arrays = [np.asarray(generator.standard_normal(shape), np.float32) for _ in range(models + 1)]
    base = arrays[0] if method.base == "required" else None
    stack = stack_of(arrays[1:], base=base)
    found = apply(stack, method.rule(stack, **example(method, models)))
    assert found.shape == (stack.rows, stack.d)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()


@ALL
@pytest.mark.parametrize("shape", [(), (1,), (99,), (100,), (6, 5), (2, 3, 4), (30, 8192)])
def test_every_method_merges_a_model_with_itself_into_itself_bit_for_bit(
    method: Method, shape: tuple[int, ...]
) -> None:
    x = np.asarray(np.random.default_rng(1).standard_normal(shape), np.float32)
    models = max(method.models[0], min(3, method.models[1] or 3))
    base = None if method.base == "refused" else x
    stack = stack_of([x] * models, base=base)
    found = apply(stack, method.rule(stack, **example(method, models)))
    assert found.tobytes() == x.tobytes()


def test_a_name_given_twice_is_an_error() -> None:
    method = next(iter(METHODS.values()))
    with pytest.raises(ValueError, match="two merge methods"):
        by_name([method, method])
