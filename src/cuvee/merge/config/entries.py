"""The models of a merge config: how one is named, and the parameters it may bring.

Values from YAML in, `ModelSpec`s out; what is wrong is added to a list of problems, each
naming its key. Not here: which of them is the base or the anchor (`cuvee.merge.config.roles`).
"""

import dataclasses
import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from cuvee.merge.config.settings import Setting, parse_setting
from cuvee.merge.methods.table import METHODS

ARCEE_FUSION = "arcee_fusion"
"""The method that fuses pairs in a chain: its models have an order, and no base."""
REVISION = re.compile(r"^[\w.-]+/[\w.-]+@[\w./-]+$")


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """One model of a merge."""

    spec: str
    """A hub id or a folder, as the config names it."""
    adapter: str | None = None
    """A PEFT folder or hub id whose delta is added to it."""
    parameters: Mapping[str, Setting] = dataclasses.field(default_factory=dict)
    """Its own settings, which count before the config's."""

    @property
    def name(self) -> str:
        """The model as mergekit writes it: `spec` or `spec+adapter`."""
        return f"{self.spec}+{self.adapter}" if self.adapter else self.spec


def same_model(one: ModelSpec, other: ModelSpec) -> bool:
    """Say whether two specs name the same model (`a/b`, `./a/b` and `a/b/` do)."""
    return _places(one) == _places(other)


def _places(model: ModelSpec) -> tuple[str, str]:
    return os.path.normpath(model.spec), os.path.normpath(model.adapter or "")


def parse_model(value: Any, *, key: str, problems: list[str]) -> ModelSpec | None:
    """Return a model given as `PATH`, `PATH+ADAPTER` or `{model: PATH, adapter: ADAPTER}`.

    Where `adapter` is given both are taken as they are, so that a folder's name may hold a `+`.
    """
    text, adapter, separate = value, None, False
    if isinstance(value, dict):
        problems += unknown_keys(value, ("model", "adapter"), within=f"{key}.")
        text, adapter, separate = value.get("model"), value.get("adapter"), "adapter" in value
    if isinstance(text, str) and "+" in text and not separate:
        text, _, adapter = text.partition("+")
    if not _is_name(text) or (adapter is not None and not _is_name(adapter)):
        problems.append(f"{key}: {value!r}; a model is PATH, PATH+ADAPTER or {{model:, adapter:}}")
        return None
    for name in (text, adapter):
        if name and REVISION.match(name) and not Path(name).exists():
            problems.append(
                f"{key}: {name}: revisions are not supported; download it and name its folder"
            )
    return ModelSpec(text, adapter)


def _is_name(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value.strip())


def parse_models(value: Any, method: str | None, *, problems: list[str]) -> tuple[ModelSpec, ...]:
    """Return the models of `models:`, each a name or a mapping that may have `parameters`.

    `method`: a known name; None leaves the parameters unchecked and out.
    """
    if not isinstance(value, list) or not value:
        problems.append(f"models: {value!r}; a list of the models to merge is needed")
        return ()
    found = []
    for number, entry in enumerate(value):
        key, settings = f"models[{number}]", None
        if isinstance(entry, dict):
            settings = entry.get("parameters")
            known = ("model", "adapter", "parameters")
            problems += unknown_keys(entry, known, within=f"{key}.")
            entry = {name: entry[name] for name in known[:2] if name in entry}
        model = parse_model(entry, key=key, problems=problems)
        parameters = parse_parameters(
            settings, method, key=f"{key}.parameters", of_model=True, problems=problems
        )
        if model is not None:
            found.append(dataclasses.replace(model, parameters=parameters))
    return tuple(found)


def parse_parameters(
    value: Any, method: str | None, *, key: str, of_model: bool, problems: list[str]
) -> dict[str, Setting]:
    """Return the settings of one `parameters:`; `of_model`: that of a model, not the config's.

    `method`: a known name; None leaves them unchecked and out.
    """
    if value is None or method is None:
        return {}
    if not isinstance(value, dict):
        problems.append(f"{key}: {value!r}; a mapping of names to values is needed")
        return {}
    known = {parameter.name: parameter for parameter in METHODS[method].parameters}
    if not known and value:
        problems.append(f"{key}: {method} has no parameters, got {', '.join(map(str, value))}")
        return {}
    problems += unknown_keys(value, sorted(known), within=f"{key}.")
    found: dict[str, Setting] = {}
    for name, parameter in known.items():
        place = f"{key}.{name}"
        if name not in value:
            continue
        if of_model and not parameter.each_model:
            problems.append(
                f"{place}: one for the whole merge; write it under the top `parameters`"
            )
            continue
        setting = parse_setting(value[name], parameter, key=place, problems=problems)
        found[name] = 0.0 if setting is None else setting  # wrong, but not missing as well
    return found


def unknown_keys(keys: Iterable[Any], known: Sequence[str], *, within: str) -> list[str]:
    """Return a problem for each key that is not known, with the nearest known one."""
    problems = []
    for key in keys:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            problems.append(f"{within}{key}: unknown key; {hint}")
    return problems
