"""Which value each parameter of a method has for one tensor, and whether settings fit a model.

A config and a method's declaration in, keyword arguments for its function out. A model's own
settings count before the config's, and those before the method's default (mergekit's order);
a setting whose filters take a tensor not at all leaves it to the next. Reads no weights.
"""

import keyword
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cuvee.errors import RecipeError
from cuvee.merge.config.read import MergeConfig
from cuvee.merge.config.settings import Setting, choices, first_match, resolve
from cuvee.merge.methods.spec import Method, Number, Parameter

Settings = Mapping[str, Setting]
SHOWN = 3
"""Tensors that a message names before it counts the rest."""


def method_parameters(
    config: MergeConfig, method: Method, *, tensor: str, layer: int | None, layers: int
) -> dict[str, Any]:
    """Return the keyword arguments of `method.rule` for one tensor.

    One value for each parameter of the method, a tuple in the models' order where it has one
    a model; `seed` as well for a random method. `layer`: 0 to `layers` - 1 (`layers`: how many
    the model has), None for a tensor outside them.
    Raises RecipeError where a parameter without a default has no value for this tensor.
    """
    found: dict[str, Any] = {"seed": config.seed} if method.random else {}
    for parameter in method.parameters:
        values = []
        for of, scopes in _readers(config, parameter):
            value = _value(parameter, scopes, tensor=tensor, layer=layer, layers=layers)
            if value is None:
                raise RecipeError(_no_value(parameter, of, [tensor]))
            values.append(value)
        name = f"{parameter.name}_" if keyword.iskeyword(parameter.name) else parameter.name
        found[name] = tuple(values) if parameter.each_model else values[0]
    return found


def unused_filters(config: MergeConfig, tensor_names: Iterable[str]) -> list[str]:
    """Return a problem for every filter that decides nothing for these tensors.

    Either no name contains its text, or each that does is taken by an earlier filter.
    """
    names = list(tensor_names)
    problems = []
    for of, settings in _scopes(config):
        for parameter, setting in settings.items():
            used = {id(first_match(setting, name)) for name in names}
            for choice in choices(setting):
                if choice.filter is None or id(choice) in used:
                    continue
                shadowed = any(choice.filter in name for name in names)
                why = "earlier filters take all its tensors" if shadowed else "no tensor has it"
                problems.append(f"parameters.{parameter}{of}: filter {choice.filter!r}: {why}")
    return problems


def missing_values(config: MergeConfig, method: Method, tensor_names: Iterable[str]) -> list[str]:
    """Return a problem for every parameter that has no value for some of these tensors."""
    names = list(tensor_names)
    problems = []
    for parameter in method.parameters:
        for of, scopes in _readers(config, parameter):
            without = [
                name
                for name in names
                if _value(parameter, scopes, tensor=name, layer=None, layers=1) is None
            ]
            if without:
                problems.append(_no_value(parameter, of, without))
    return list(dict.fromkeys(problems))


def _scopes(config: MergeConfig) -> Iterator[tuple[str, Settings]]:
    """Yield all settings of a config, each with whose they are (nothing: the config's own)."""
    yield "", config.parameters
    for model in config.models:
        yield f" of {model.name}", model.parameters


def _readers(config: MergeConfig, parameter: Parameter) -> list[tuple[str, tuple[Settings, ...]]]:
    """Return who needs a value of a parameter, with the settings in order of precedence."""
    if not parameter.each_model:
        return [("", (config.parameters,))]
    return [(f" of {model.name}", (model.parameters, config.parameters)) for model in config.models]


def _value(
    parameter: Parameter,
    scopes: Sequence[Settings],
    *,
    tensor: str,
    layer: int | None,
    layers: int,
) -> Number | None:
    for settings in scopes:
        if parameter.name in settings:
            setting = settings[parameter.name]
            value = resolve(setting, tensor=tensor, layer=layer, layers=layers)
            if value is not None:
                return value
    return parameter.default


def _no_value(parameter: Parameter, of: str, tensors: Sequence[str]) -> str:
    shown = ", ".join(tensors[:SHOWN])
    more = f" and {len(tensors) - SHOWN} more" if len(tensors) > SHOWN else ""
    return (
        f"parameters.{parameter.name}{of}: no filter takes {shown}{more}; add a last entry with a "
        "value and no filter"
    )
