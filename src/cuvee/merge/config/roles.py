"""Who is what in a merge: the models in their order, the base, and whose files are copied.

The models of a config and its `base_model`, `order` and `anchor` in, roles out; what does not
fit the method is added to a list of problems. Opens no file.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from cuvee.merge.config.entries import ARCEE_FUSION, ModelSpec, parse_model, same_model
from cuvee.merge.config.settings import Setting
from cuvee.merge.methods.spec import Method


@dataclasses.dataclass(frozen=True)
class Roles:
    """The models of a merge by what they are in it."""

    models: tuple[ModelSpec, ...]
    """Without the base; for arcee_fusion in the order they are fused."""
    base: ModelSpec | None = None
    files_from: ModelSpec | None = None
    """The `base_model` of a method that has no base: only its small files count."""


def assign_roles(
    method: Method,
    listed: Sequence[ModelSpec],
    *,
    base: ModelSpec | None,
    problems: list[str],
) -> Roles:
    """Return the roles of the listed models and of `base`, the config's `base_model`."""
    if base is None and method.base == "required":
        problems.append(f"base_model: missing; {method.name} needs the model to start from")
    if base is not None and method.base == "refused":
        _require_listed(method, listed, base, problems)
        roles = Roles(tuple(listed), None, base)
    else:
        roles = Roles(tuple(listed) if base is None else _others(listed, base, problems), base)
    _require_count(method, roles, problems)
    return roles


def fusion_roles(
    method: Method,
    listed: Sequence[ModelSpec],
    *,
    base: ModelSpec | None,
    order: Any,
    anchored: bool,
    problems: list[str],
) -> Roles:
    """Return the models of arcee_fusion in the order they are fused.

    By `base_model`, as mergekit has it: the other model, then the base, which as the later one
    is the anchor. Or by `order` (the config's value, None where it gives none) and `anchor`
    (`anchored`: whether it gives one).
    """
    if base is None:
        roles = Roles(_ordered(order, listed, problems))
        _require_count(method, roles, problems)
        return roles
    if order is not None or anchored:
        problems.append(
            "base_model: order and anchor say the same in another way; with two models give "
            "base_model (the anchor), with any number order and anchor"
        )
    return Roles(_pair(listed, base, problems))


def _require_listed(
    method: Method, listed: Sequence[ModelSpec], base: ModelSpec, problems: list[str]
) -> None:
    if not any(same_model(base, model) for model in listed):
        problems.append(
            f"base_model: {base.name}: {method.name} has no base; list it under `models` to merge "
            "it as one of them, or leave it out"
        )


def _require_count(method: Method, roles: Roles, problems: list[str]) -> None:
    fewest, most = method.models
    count = len(roles.models)
    if count >= fewest and (most is None or count <= most):
        return
    allowed = f"{fewest} or more" if most is None else f"{fewest} to {most}"
    allowed = f"exactly {fewest}" if most == fewest else allowed
    beside = " beside the base" if roles.base else ""
    problems.append(f"models: {method.name} takes {allowed}{beside}, got {count}")


def _others(
    listed: Sequence[ModelSpec], base: ModelSpec, problems: list[str]
) -> tuple[ModelSpec, ...]:
    """Return the models without the base, where it is listed as well: its delta is zero.

    Listed more than once, it is dropped once: who lists it again means it as a model.
    """
    for number, model in enumerate(listed):
        if same_model(base, model):
            if model.parameters:
                problems.append(
                    f"models[{number}].parameters: {model.name} is the base, to which they do not "
                    "apply (mergekit ignores them); remove them"
                )
            return (*listed[:number], *listed[number + 1 :])
    return tuple(listed)


def _pair(
    listed: Sequence[ModelSpec], base: ModelSpec, problems: list[str]
) -> tuple[ModelSpec, ...]:
    """Return the other model and the base, which is the anchor: mergekit's arcee_fusion."""
    others = _others(listed, base, problems)
    if len(others) != 1:
        problems.append(
            f"models: {ARCEE_FUSION} with base_model takes exactly 1 beside it, got {len(others)}; "
            "for a chain give `order` and `anchor` instead of base_model"
        )
    return (*others, base)


def _ordered(order: Any, listed: Sequence[ModelSpec], problems: list[str]) -> tuple[ModelSpec, ...]:
    """Return the models in the order in which `order` names them; None: as listed."""
    if order is None:
        return tuple(listed)
    left, found = list(listed), []
    for number, value in enumerate(order if isinstance(order, list) else [order]):
        wanted = parse_model(value, key=f"order[{number}]", problems=problems)
        match = next((m for m in left if wanted is not None and same_model(m, wanted)), None)
        if match is None:
            names = ", ".join(model.name for model in left) or "none"
            problems.append(f"order[{number}]: {value!r}; models not yet named are: {names}")
        else:
            left.remove(match)
            found.append(match)
    if left:
        problems.append(f"order: does not name {', '.join(model.name for model in left)}")
    return tuple(found)


def missing_parameters(
    method: Method, models: Sequence[ModelSpec], parameters: Mapping[str, Setting]
) -> list[str]:
    """Return a problem for each parameter without a default that the config does not give."""
    problems = []
    for parameter in method.parameters:
        name = parameter.name
        if parameter.default is not None or name in parameters:
            continue
        if not parameter.each_model:
            problems.append(f"parameters.{name}: missing; {method.name} has no default for it")
        elif without := [model.name for model in models if name not in model.parameters]:
            named = ", ".join(without)
            problems.append(f"parameters.{name}: missing for {named}; {method.name} has no default")
    return problems
