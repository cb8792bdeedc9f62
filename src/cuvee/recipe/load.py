"""Reads a recipe: YAML file + ``--set key=value`` -> a checked `Recipe`, or RecipeError.

Errors name the key with its path (`train.epochs`), the value and what is allowed; an unknown
key comes with the nearest known one. Relative paths in a recipe are kept as written and mean
the folder one stands in.
"""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from cuvee.errors import RecipeError
from cuvee.recipe.evaluation import Declaration, Evaluate
from cuvee.recipe.root import Recipe, Verify
from cuvee.recipe.serving import unaddressed
from cuvee.recipe.training import Train


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Return the recipe of a YAML file with `key.path=value` overrides applied.

    Values of overrides are read as YAML (`train.epochs=2`, `merge.order=[math, code]`).
    Raises RecipeError for a file that cannot be read and for anything not allowed in it.
    """
    data = _read_mapping(path, "recipe")
    for override in overrides or []:
        _apply(data, override)
    return parse_recipe(data, where=str(path))


def load_declaration(path: Path) -> Declaration:
    """Return the benchmark that a YAML file declares, named as the file is.

    Raises RecipeError for a file that cannot be read and for anything not allowed in it.
    """
    data = _read_mapping(path, "benchmark")
    if "name" in data:
        raise RecipeError(f"{path}: name: a benchmark is named as its file is; take it out")
    try:
        return Declaration.model_validate({**data, "name": path.stem})
    except ValidationError as error:
        lines = [_explain(detail, Declaration) for detail in error.errors()]
        raise RecipeError(f"{path}:\n  " + "\n  ".join(dict.fromkeys(lines))) from error


def _read_mapping(path: Path, kind: str) -> dict[str, Any]:
    """Return the mapping that a YAML file holds; `kind` says of what it should be one."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot read the {kind}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not YAML: {error}") from error
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: a {kind} is a mapping, this is {type(data).__name__}")
    return data


def parse_recipe(data: dict[str, Any], *, where: str) -> Recipe:
    """Return `data` as a checked recipe; `where` names its origin in errors."""
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        lines = [_explain(detail) for detail in error.errors()]
        raise RecipeError(f"{where}:\n  " + "\n  ".join(dict.fromkeys(lines))) from error


def load_train(overrides: list[str]) -> Train:
    """Return the section `train` alone: its defaults with `train.key=value` overrides applied.

    For commands that work on files, without a recipe. Raises RecipeError for a key of another
    section and for anything not allowed.
    """
    train: Train = _sections(overrides, {"train": Train})[0]
    return train


def load_evaluate(overrides: list[str]) -> tuple[Evaluate, Verify]:
    """Return the sections `evaluate` and `verify` alone, as `load_train` does its own."""
    evaluate, verify = _sections(overrides, {"evaluate": Evaluate, "verify": Verify})
    return evaluate, verify


def _sections(overrides: list[str], sections: Mapping[str, type[BaseModel]]) -> list[Any]:
    """Return sections by name: their defaults with `name.key=value` overrides applied."""
    data: dict[str, Any] = {}
    for override in overrides:
        _apply(data, override)
    if others := sorted(set(data) - set(sections)):
        allowed = " and ".join(f"{name}.KEY=VALUE" for name in sections)
        raise RecipeError(f"--set {others[0]}: without a recipe there is only {allowed}")
    return [_section(name, kind, data.get(name, {})) for name, kind in sections.items()]


def _section(name: str, kind: type[BaseModel], data: Any) -> BaseModel:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        details = [{**detail, "loc": (name, *detail["loc"])} for detail in error.errors()]
        lines = dict.fromkeys(_explain(detail) for detail in details)
        raise RecipeError("--set:\n  " + "\n  ".join(lines)) from error


def dump_recipe(recipe: Recipe) -> str:
    """Return the resolved recipe as YAML: every key, defaults included, inherited addresses not."""
    data = unaddressed(json.loads(recipe.model_dump_json()))
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def recipe_schema() -> str:
    """Return the JSON schema of a recipe, for editors."""
    return json.dumps(Recipe.model_json_schema(), indent=2, ensure_ascii=False)


def _apply(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {override!r}: write key=value, e.g. train.epochs=2")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {override!r}: the value is not YAML: {error}") from error
    place: Any = data
    *parents, last = key.split(".")
    for depth, part in enumerate(parents):
        place = _step(place, part, ".".join(parents[: depth + 1]), create=True)
    if isinstance(place, list):
        _step(place, last, key, create=False)
        place[int(last)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise RecipeError(f"--set {key}: {'.'.join(parents)} is a single value, not a section")


def _step(place: Any, part: str, path: str, *, create: bool) -> Any:
    """Return the section `part` of `place`; a list is entered by number."""
    if isinstance(place, dict):
        if create and place.get(part) is None:
            place[part] = {}
        return place[part]
    if isinstance(place, list):
        if not part.isdigit() or int(part) >= len(place):
            raise RecipeError(f"--set {path}: a number from 0 to {len(place) - 1} selects an entry")
        return place[int(part)]
    raise RecipeError(f"--set {path}: the key above it is a single value, not a section")


def _explain(detail: Any, section: type[BaseModel] = Recipe) -> str:
    location = [str(part) for part in detail["loc"]]
    path = ".".join(location) or "recipe"
    if detail["type"] == "extra_forbidden":
        known = _known_keys(location[:-1], section)
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(known))}"
        return f"{path}: unknown key; {hint}"
    if detail["type"] == "missing":
        return f"{path}: missing, and it has no default"
    message = str(detail["msg"]).removeprefix("Value error, ")
    given = detail.get("input")
    shown = "" if isinstance(given, dict) else f" (got {given!r})"
    return f"{path}: {message[0].lower()}{message[1:]}{shown}"


def _known_keys(location: list[str], section: type[BaseModel]) -> list[str]:
    """Return the keys of the section at a path, following models through dicts and lists."""
    models: list[type[BaseModel]] = [section]
    for part in location:
        following: list[type[BaseModel]] = []
        for model in models:
            if part in model.model_fields:
                following += _models_in(model.model_fields[part].annotation)
        models = following or models  # a dict key, list index or union tag keeps the section
    return sorted({name for model in models for name in model.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]
