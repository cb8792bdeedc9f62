"""Settings of a method's parameters: one value, a gradient over the layers, or by tensor name.

A setting is what a merge config writes behind a parameter's name, in mergekit's language:

- a value: `0.5`;
- a gradient: `[0, 0.5, 1]`, spread evenly over the layers and interpolated between them;
- filters: `[{filter: mlp, value: 0.3}, {filter: norm, value: [0, 1]}, {value: 0.5}]`; the
  first whose text stands in the tensor's name counts, one without `filter` (or with `*`)
  takes every tensor.

Values from YAML in, checked settings out, and the value of a setting for one tensor. Not
here: which setting counts where there are several (`cuvee.merge.config.parameters`).
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from cuvee.merge.methods.spec import Number, Parameter


@dataclasses.dataclass(frozen=True)
class Filtered:
    """A value or gradient for the tensors whose name contains `filter`."""

    filter: str | None
    """None: every tensor."""
    value: Number | tuple[Number, ...]


Setting = Number | tuple[Number, ...] | tuple[Filtered, ...]


def choices(setting: Setting) -> tuple[Filtered, ...]:
    """Return a setting of any form as filters, in order; at least one."""
    if not isinstance(setting, tuple):
        return (Filtered(None, setting),)
    filters = tuple(part for part in setting if isinstance(part, Filtered))
    gradient = tuple(part for part in setting if not isinstance(part, Filtered))
    return filters or (Filtered(None, gradient),)


def first_match(setting: Setting, tensor: str) -> Filtered | None:
    """Return the first filter of a setting that takes a tensor, None where none does."""
    for choice in choices(setting):
        if choice.filter is None or choice.filter in tensor:
            return choice
    return None


def resolve(setting: Setting, *, tensor: str, layer: int | None, layers: int) -> Number | None:
    """Return a setting's value for one tensor, None where no filter takes it.

    `layer`: 0 to `layers` - 1, None for a tensor outside the layers. A gradient v[0..n-1] is
    read at x = (n - 1)·layer / (layers - 1), linearly between its values; a boolean one takes
    v[⌊x⌋]. Outside the layers x = 0, and in a model of one layer x = n - 1 (mergekit's rule).
    """
    choice = first_match(setting, tensor)
    if choice is None:
        return None
    value = choice.value
    if not isinstance(value, tuple):
        return value
    at = 0.0 if layer is None else layer / (layers - 1) if layers > 1 else 1.0
    scaled = at * (len(value) - 1)
    low = int(scaled)
    if isinstance(value[low], bool):
        return value[low]
    high = min(len(value) - 1, low + 1)
    share = scaled - low
    return (1 - share) * value[low] + share * value[high]


def setting_json(setting: Setting) -> Any:
    """Return a setting as plain JSON values, in the config's own language."""
    if not isinstance(setting, tuple):
        return setting
    return [
        {"filter": part.filter or "*", "value": _plain(part.value)}
        if isinstance(part, Filtered)
        else part
        for part in setting
    ]


def _plain(value: Number | tuple[Number, ...]) -> Any:
    return list(value) if isinstance(value, tuple) else value


def parse_setting(
    value: Any, parameter: Parameter, *, key: str, problems: list[str]
) -> Setting | None:
    """Return a value read from YAML as a setting of `parameter`, every number in it checked.

    What is wrong is added to `problems`, each naming `key`, the value and what is allowed;
    the result is then None.
    """
    known = len(problems)
    if isinstance(value, dict):
        value = [value]
    setting: Setting | None
    if isinstance(value, list) and any(isinstance(part, dict) for part in value):
        setting = _filters(value, parameter, key=key, problems=problems)
    else:
        setting = _values(value, parameter, key=key, problems=problems)
    return setting if len(problems) == known else None


def _filters(
    parts: Sequence[Any], parameter: Parameter, *, key: str, problems: list[str]
) -> tuple[Filtered, ...]:
    found = []
    for number, part in enumerate(parts):
        place = f"{key}[{number}]"
        if not isinstance(part, dict):
            problems.append(f"{place}: {part!r} among filters; write {{value: {part}}}")
            continue
        if unknown := sorted(str(name) for name in set(part) - {"filter", "value"}):
            names = ", ".join(unknown)
            problems.append(f"{place}.{names}: unknown key; known keys: filter, value")
        if "value" not in part:
            problems.append(f"{place}: no value")
            continue
        text = part.get("filter")
        if text is not None and (not isinstance(text, str) or not text):
            problems.append(f"{place}.filter: {text!r}; it is a part of tensor names, or '*'")
            continue
        value = _values(part["value"], parameter, key=f"{place}.value", problems=problems)
        if value is not None:
            found.append(Filtered(None if text == "*" else text, value))
    for number, choice in enumerate(found[:-1]):
        if choice.filter is None:
            problems.append(f"{key}[{number}]: takes every tensor, so none reaches what follows")
            break
    return tuple(found)


def _values(
    value: Any, parameter: Parameter, *, key: str, problems: list[str]
) -> Number | tuple[Number, ...] | None:
    """Return one value or a gradient; None and a problem where it is not allowed."""
    if not isinstance(value, list):
        return _number(value, parameter, key=key, problems=problems)
    if not value:
        problems.append(f"{key}: an empty list; give a value or a gradient over the layers")
        return None
    if parameter.kind is int and len(value) > 1:
        problems.append(f"{key}: {value}; a whole number has no gradient, give one value")
        return None
    numbers = [
        _number(part, parameter, key=f"{key}[{number}]", problems=problems)
        for number, part in enumerate(value)
    ]
    return tuple(number for number in numbers if number is not None)


def _number(value: Any, parameter: Parameter, *, key: str, problems: list[str]) -> Number | None:
    """Return one value of the parameter's kind, in its range; None and a problem otherwise."""
    if parameter.kind is bool:
        if not isinstance(value, bool):
            problems.append(f"{key}: {value!r}; write true or false")
            return None
        return value
    number = _float(value)
    whole = parameter.kind is int
    if (
        number is None
        or not parameter.low <= number <= parameter.high
        or (whole and not number.is_integer())
    ):
        problems.append(f"{key}: {value!r}; allowed is {_range(parameter)}")
        return None
    return int(number) if whole else number


def _float(value: Any) -> float | None:
    """Return a finite number; YAML reads `1e-5`, without a point, as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _range(parameter: Parameter) -> str:
    kind = "a whole number" if parameter.kind is int else "a number"
    low, high = parameter.low, parameter.high
    if math.isfinite(low) and math.isfinite(high):
        return f"{kind} from {low:g} to {high:g}"
    if math.isfinite(low):
        return f"{kind} from {low:g} up"
    return f"{kind} up to {high:g}" if math.isfinite(high) else kind
