"""The ways to merge that are tried: the recipe's own, the field's usual ones, or a user's list.

A recipe (and a YAML file) in, candidates out: recipes that differ in their `merge:` section
alone, checked as any recipe. No weights and no problems here.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cuvee.errors import RecipeError
from cuvee.merge.methods.table import METHODS
from cuvee.recipe import Merge, Recipe, parse_recipe
from cuvee.records import content_hash

FUSION = "arcee_fusion"
EVERY = "every"
"""As `order` in a grid: all orders of the domains."""
MOST_ORDERED = 5
"""Domains of which every order is tried; of more, those that go round from the recipe's."""
MOST_IN_FILE = 1000
"""Candidates of one file."""
KEYS = ("candidates", "grid")

USUAL: tuple[tuple[str, dict[str, Sequence[float]]], ...] = (
    ("linear", {"weight": (1.0,)}),
    ("task_arithmetic", {"weight": (0.5, 1.0)}),
    ("ties", {"weight": (1.0,), "density": (0.2, 0.5)}),
    ("dare_ties", {"weight": (1.0,), "density": (0.2, 0.5)}),
    ("dare_linear", {"weight": (0.5,), "density": (0.5,)}),
    ("della", {"weight": (1.0,), "density": (0.5,)}),
    ("breadcrumbs_ties", {"weight": (1.0,), "density": (0.9,)}),
    ("sce", {"select_topk": (0.1, 1.0)}),
    ("model_stock", {}),
    ("karcher", {}),
    ("ramplus_tl", {}),
)
"""Methods and the values of their parameters that are tried, every combination."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One way to merge the specialists of a run."""

    recipe: Recipe
    """The run's, with this candidate's `merge`."""

    @property
    def section(self) -> dict[str, Any]:
        """Return the `merge:` section to paste into a recipe, as JSON values."""
        return section_of(self.recipe.merge, self.recipe.merge_order())

    @property
    def name(self) -> str:
        """Return a name for files: the method, and what tells its settings apart."""
        key = content_hash(_same(self.section), self.recipe.seed)
        return f"{self.recipe.merge.method}-{key[:8]}"

    @property
    def label(self) -> str:
        """Return the settings in a line for people."""
        return label_of(self.section)


def section_of(merge: Merge, order: Sequence[str]) -> dict[str, Any]:
    """Return what a `merge:` section must say for a recipe to merge like that."""
    fused = merge.method == FUSION
    kept: dict[str, Any] = {"method": merge.method}
    if merge.parameters:
        kept["parameters"] = merge.parameters
    if merge.specialists:
        kept["specialists"] = merge.specialists
    kept["order"] = list(order)
    if fused or merge.anchor != "later":
        kept["anchor"] = merge.anchor
    if merge.mode != "exact":
        kept["mode"] = merge.mode
    return kept | {"out_dtype": merge.out_dtype}


def label_of(section: Mapping[str, Any]) -> str:
    """Return a section in a line for people: `ties density=0.5 weight=1.0`."""
    words = [str(section["method"])]
    if section["method"] == FUSION:
        words.append(f"{' > '.join(section['order'])}, anchor {section['anchor']}")
    words += [f"{key}={value}" for key, value in sorted(section.get("parameters", {}).items())]
    for domain, own in section.get("specialists", {}).items():
        words += [f"{domain}.{key}={value}" for key, value in sorted(own.items())]
    if "mode" in section:
        words.append(f"mode={section['mode']}")
    return " ".join(words)


def candidates(recipe: Recipe, file: Path | None) -> tuple[list[dict[str, Any]], int]:
    """Return the sections to try, the recipe's own first, and how many repeated another.

    Raises RecipeError for a file that cannot be read or holds anything that is not allowed.
    """
    wanted = usual(recipe) if file is None else read_candidates(file, recipe)
    own = section_of(recipe.merge, recipe.merge_order())
    found: dict[str, dict[str, Any]] = {}
    every = [own, *wanted]
    for section in every:
        found.setdefault(content_hash(_same(section)), section)
    return list(found.values()), len(every) - len(found)


def candidate(recipe: Recipe, section: Mapping[str, Any], *, where: str) -> Candidate:
    """Return a section as a candidate, checked as a recipe's. Raises RecipeError."""
    data = recipe.model_dump(mode="json") | {"merge": dict(section)}
    return Candidate(parse_recipe(data, where=where))


def usual(recipe: Recipe) -> list[dict[str, Any]]:
    """Return the field's usual ways, methods in turn, so that a cap leaves some of each."""
    domains = recipe.merge_order()
    rows = [[{"method": FUSION, **fused} for fused in _fusions(domains)]]
    for method, values in USUAL:
        least, most = METHODS[method].models
        if least <= len(domains) <= (most or len(domains)):
            rows.append([_with(method, chosen) for chosen in expand(dict(values))])
            if method == "linear" and len(domains) > 1:
                rows[-1] += [_leaning(method, domains, to=domain) for domain in domains]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*rows))
    return [_completed(section, recipe) for section in turns if section is not None]


def read_candidates(file: Path, recipe: Recipe) -> list[dict[str, Any]]:
    """Return the sections of a user's file: `candidates:` one by one, `grid:` multiplied out.

    Raises RecipeError as `candidates` does.
    """
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{file}: cannot read the candidates: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file}: not YAML: {error}") from error
    if not isinstance(data, dict) or not data or set(data) - set(KEYS):
        raise RecipeError(f"{file}: a mapping with {' or '.join(KEYS)} (or both), no other key")
    if wrong := [key for key, value in data.items() if not _is_list_of_mappings(value)]:
        raise RecipeError(f"{file}: {wrong[0]}: a list of `merge:` sections")
    grids = [_with_orders(grid, recipe) for grid in data.get("grid", [])]
    count = len(data.get("candidates", [])) + sum(map(_size, grids))
    if count > MOST_IN_FILE:
        raise RecipeError(
            f"{file}: {count} candidates; at most {MOST_IN_FILE} are allowed: leave values out"
        )
    sections = [*data.get("candidates", []), *itertools.chain(*map(expand, grids))]
    found = []
    for number, section in enumerate(sections, 1):
        completed = _completed(section, recipe)
        checked = candidate(recipe, completed, where=f"{file}: candidate {number}")
        found.append(checked.section)
    return found


def expand(grid: Any) -> Iterator[Any]:
    """Yield every choice of a grid: each list stands for its entries, one of them at a time.

    Entries are taken as they are, so a list that is itself a value is written in a list.
    """
    if isinstance(grid, Mapping):
        for values in itertools.product(*(list(expand(value)) for value in grid.values())):
            yield dict(zip(grid, values, strict=True))
    elif isinstance(grid, list | tuple):
        yield from grid
    else:
        yield grid


def _size(grid: Any) -> int:
    if isinstance(grid, Mapping):
        return math.prod(_size(value) for value in grid.values())
    return len(grid) if isinstance(grid, list | tuple) else 1


def _is_list_of_mappings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def _with_orders(grid: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    if grid.get("order") != EVERY:
        return dict(grid)
    return {**grid, "order": orders(recipe.merge_order())}


def orders(domains: Sequence[str]) -> list[list[str]]:
    """Return every order of up to `MOST_ORDERED` domains; of more, those that go round."""
    if len(domains) <= MOST_ORDERED:
        return [list(order) for order in itertools.permutations(domains)]
    return [[*domains[start:], *domains[:start]] for start in range(len(domains))]


def _fusions(domains: Sequence[str]) -> Iterator[dict[str, Any]]:
    for order in orders(domains):
        for anchor in ("later", "earlier"):
            yield {"order": order, "anchor": anchor}


def _with(method: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {"method": method} | ({"parameters": dict(parameters)} if parameters else {})


def _leaning(method: str, domains: Sequence[str], *, to: str) -> dict[str, Any]:
    """Return a weighted mean in which one domain counts twice."""
    weights = {domain: {"weight": 2.0 if domain == to else 1.0} for domain in domains}
    return {"method": method, "specialists": weights}


def _completed(section: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Return a section with the recipe's own order and dtype where it says none."""
    own: dict[str, Any] = {"order": recipe.merge_order(), "out_dtype": recipe.merge.out_dtype}
    if section.get("method", FUSION) == FUSION:
        own |= {"method": FUSION, "anchor": "later"}
        own |= {"mode": recipe.merge.mode} if recipe.merge.mode != "exact" else {}
    return own | dict(section)


def _same(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tells merges apart: two models fused the other way round are the same."""
    if section["method"] == FUSION and section["anchor"] == "earlier" and len(section["order"]) < 3:
        return {**section, "order": section["order"][::-1], "anchor": "later"}
    return dict(section)
