"""Generator `arithmetic`: sums and differences of small whole numbers, with their steps.

Out: items such as "What is 17 + 5 - 9?" with the gold "13" and, in `meta`, the numbers and
operators, from which `steps` gives the running results. No running result is ever negative.
One expression has one wording, so that equal expressions are equal questions whatever the
seed. Not here: word problems, division, brackets.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from cuvee.errors import RecipeError
from cuvee.problems.items import Item, check_names, check_range, check_whole
from cuvee.records import content_hash

DEFAULTS: dict[str, Any] = {"terms": [2, 3], "largest": 40, "operations": ["+", "-"]}
"""`terms`: fewest and most numbers; `largest` of them; `operations` among + - *."""

WORDINGS = ("What is {}?", "Compute {}.", "Calculate {}.", "Work out {}.", "Find {}.")
PATIENCE = 2000
"""Tries in a row that gave nothing new, after which the space counts as used up."""

Step = tuple[int, str, int, int]
"""One operation with its result: (left, operator, right, result)."""


def generate(count: int, *, seed: int, args: Mapping[str, Any]) -> list[Item]:
    """Return `count` distinct items; the first n of any count are those of count n.

    Raises RecipeError for unknown or impossible `args`, and where there are fewer than
    `count` distinct expressions.
    """
    check_names("arithmetic", args, DEFAULTS)
    given = {**DEFAULTS, **args}
    terms = check_range("arithmetic", "terms", given["terms"], lowest=2)
    largest = check_whole("arithmetic", "largest", given["largest"], lowest=1)
    operations = _operations(given["operations"])
    found = list(islice(_distinct(random.Random(seed), terms, largest, operations), count))
    if len(found) < count:
        raise RecipeError(
            f"generator:arithmetic: only {len(found)} distinct problems with {given}, "
            f"{count} wanted; lower `count` or widen `terms`, `largest` or `operations`"
        )
    return found


def steps(numbers: Sequence[int], operators: Sequence[str]) -> list[Step]:
    """Return the operations in the order they are done: products first, then left to right.

    `operators[i]` stands between `numbers[i]` and `numbers[i + 1]`.
    """
    values, waiting, done = list(numbers), list(operators), []
    while waiting:
        at = waiting.index("*") if "*" in waiting else 0
        left, operator, right = values[at], waiting.pop(at), values.pop(at + 1)
        values[at] = apply(left, operator, right)
        done.append((left, operator, right, values[at]))
    return done


def apply(left: int, operator: str, right: int) -> int:
    """Return `left operator right` for + - *."""
    if operator == "+":
        return left + right
    return left - right if operator == "-" else left * right


def _operations(value: Any) -> list[str]:
    if not isinstance(value, list | tuple) or not value or not set(value) <= {"+", "-", "*"}:
        raise RecipeError(
            f"generator:arithmetic: args.operations must be some of + - *, got {value!r}"
        )
    return sorted(set(value))


def _distinct(
    rng: random.Random, terms: tuple[int, int], largest: int, operations: Sequence[str]
) -> Iterator[Item]:
    """Yield items with new expressions until `PATIENCE` tries in a row gave none."""
    seen: set[str] = set()
    idle = 0
    while idle < PATIENCE:
        idle += 1
        length = rng.randint(*terms)
        numbers = [rng.randint(1, largest) for _ in range(length)]
        operators = [rng.choice(operations) for _ in range(length - 1)]
        done = steps(numbers, operators)
        expression = _expression(numbers, operators)
        if expression in seen or any(result < 0 for *_, result in done):
            continue
        seen.add(expression)
        idle = 0
        yield _item(expression, numbers, operators, done[-1][3])


def _expression(numbers: Sequence[int], operators: Sequence[str]) -> str:
    rest = "".join(f" {o} {n}" for o, n in zip(operators, numbers[1:], strict=True))
    return f"{numbers[0]}{rest}"


def _item(expression: str, numbers: list[int], operators: list[str], result: int) -> Item:
    wording = WORDINGS[int(content_hash(expression), 16) % len(WORDINGS)]
    meta = {"generator": "arithmetic", "numbers": numbers, "operators": operators}
    return Item(wording.format(expression), str(result), None, meta)
