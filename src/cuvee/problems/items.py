"""`Item`: a question with its gold, tests and published answers, before it has a domain.

Generators and readers of published files make items; `cuvee.problems.sources` turns an item
into a `Problem` with a domain's name, prompt and verifier. Also here: how the arguments of a
generator are checked. No files are read or written.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from cuvee.errors import RecipeError


@dataclasses.dataclass(frozen=True)
class Answered:
    """One published answer to a problem."""

    reasoning: str
    answer: str
    finish_reason: str
    """`stop`, `length`, or the word that was published."""


@dataclasses.dataclass(frozen=True)
class Item:
    """What a source says of one problem."""

    question: str
    gold: str | None
    tests: str | None
    """JSON tests of a code problem, in the forms of `Problem.tests`."""
    meta: Mapping[str, Any]
    answers: tuple[Answered, ...] = ()
    later_turns: int = 0
    """Turns of a conversation after the first exchange: they are not read."""
    reason: str | None = None
    """Why this is no problem, where the row itself says so."""


def check_names(generator: str, args: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Refuse arguments that a generator does not have; `known` holds those it has.

    Raises RecipeError with the unknown names and the known ones.
    """
    if unknown := sorted(set(args) - set(known)):
        raise RecipeError(
            f"generator:{generator}: unknown args {unknown}; known: {', '.join(sorted(known))}"
        )


def check_range(generator: str, name: str, value: Any, *, lowest: int) -> tuple[int, int]:
    """Return an argument `[low, high]` as two whole numbers, `lowest <= low <= high`.

    Raises RecipeError where it is anything else.
    """
    whole = isinstance(value, list | tuple) and all(type(v) is int for v in value)
    if not whole or len(value) != 2 or not lowest <= value[0] <= value[1]:
        raise RecipeError(
            f"generator:{generator}: args.{name} must be [low, high] with "
            f"{lowest} <= low <= high, got {value!r}"
        )
    return value[0], value[1]


def check_whole(generator: str, name: str, value: Any, *, lowest: int) -> int:
    """Return an argument as a whole number of at least `lowest`; raises RecipeError."""
    if type(value) is not int or value < lowest:
        raise RecipeError(
            f"generator:{generator}: args.{name} must be a whole number of at least "
            f"{lowest}, got {value!r}"
        )
    return value
