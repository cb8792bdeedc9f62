"""Benchmarks of which another number of problems was scored than was published.

Scores and the recipe in; a sentence for each such benchmark out. A score of 1,316 of 1,319
problems is not the published test: a source that lost rows, or a changed set, shows here. Where
the recipe itself chooses problems nothing is compared.
"""

from collections.abc import Iterable

from cuvee.problems.benchmarks import declaration, known
from cuvee.recipe import Benchmark, Recipe
from cuvee.records import Score

CHOOSING = ("problems", "config", "split", "where", "window", "count")
"""Keys of an entry that mean other problems than the published ones; a file of the same may not."""


def published_problems(recipe: Recipe, name: str) -> int | None:
    """Return how many problems a benchmark of the recipe was published with.

    None where nobody says, and where the recipe chooses some. Raises RecipeError where a
    declaration of the recipe's cannot be read.
    """
    entry = recipe.evaluate.benchmarks[name]
    if recipe.limit is not None:
        return None
    if isinstance(entry, Benchmark) and any(getattr(entry, key) is not None for key in CHOOSING):
        return None
    found = declaration(entry) if isinstance(entry, str) else known().get(name)
    return None if found is None or found.count is not None else found.problems


def miscounted(recipe: Recipe, scores: Iterable[Score]) -> tuple[str, ...]:
    """Return a sentence for each benchmark whose scores are of another number of problems."""
    counts: dict[str, set[int]] = {}
    for score in scores:
        counts.setdefault(score.benchmark, set()).add(score.n_problems)
    said = []
    for name in (name for name in counts if name in recipe.evaluate.benchmarks):
        published = published_problems(recipe, name)
        if published is not None and counts[name] != {published}:
            taken = " or ".join(f"{count:,}" for count in sorted(counts[name]))
            said.append(
                f"{name}: scored on {taken} problems, and published with {published:,}: these "
                "scores are of another set than the published one"
            )
    return tuple(said)
