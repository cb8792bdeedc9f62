"""Generator `functions`: small Python functions described in English, with tests.

Out: items whose question describes `solve` step by step, whose gold is a reference program
of one line a step, and whose tests are about five cases. A function is taken only if
leaving out any one of its steps, or all of them, changes the result of a case, so a program
that skips a step fails. No operation comes twice in a function. Distinct as written: no two
items have the same steps and final operation.
Not here: what the operations are (`cuvee.problems.operations`).
"""

import random
import string
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from cuvee.errors import RecipeError
from cuvee.problems import operations
from cuvee.problems.items import Item, check_names, check_range, check_whole
from cuvee.problems.operations import KINDS, Operation, Pipeline, Step
from cuvee.records import dumps

DEFAULTS: dict[str, Any] = {"steps": [2, 3], "kinds": ["list", "text", "number"], "cases": 5}
"""`steps`: fewest and most before the return; `kinds` of input; `cases` of each test."""

LONGEST = min(len(kind.steps) for kind in KINDS.values())
"""Most steps of a function, since no operation comes twice."""

PATIENCE = 5000
"""Tries in a row that gave nothing new, after which the space counts as used up."""

WORDS = "red blue stone river Apple garden moon tree seven Oslo rain sea lemon North data".split()
EDGE: dict[str, Any] = {"list": [], "text": "", "number": 0}


def generate(count: int, *, seed: int, args: Mapping[str, Any]) -> list[Item]:
    """Return `count` distinct items; the first n of any count are those of count n.

    Raises RecipeError for unknown or impossible `args`, and where fewer than `count`
    distinct functions are found.
    """
    check_names("functions", args, DEFAULTS)
    given = {**DEFAULTS, **args}
    lengths = check_range("functions", "steps", given["steps"], lowest=1)
    if lengths[1] > LONGEST:
        raise RecipeError(f"generator:functions: args.steps go up to {LONGEST}, got {lengths[1]}")
    cases = check_whole("functions", "cases", given["cases"], lowest=2)
    kinds = given["kinds"]
    if not isinstance(kinds, list | tuple) or not kinds or not set(kinds) <= set(KINDS):
        raise RecipeError(
            f"generator:functions: args.kinds must be some of {list(KINDS)}, got {kinds!r}"
        )
    rng = random.Random(seed)
    found = list(islice(_distinct(rng, lengths, sorted(set(kinds)), cases), count))
    if len(found) < count:
        raise RecipeError(
            f"generator:functions: found only {len(found)} distinct problems with {given}, "
            f"{count} wanted; lower `count` or widen `steps` or `kinds`"
        )
    return found


def question(pipeline: Pipeline) -> str:
    """Return the description: "Write a Python function `solve(xs)` that takes ..."."""
    kind = KINDS[pipeline.kind]
    done = [operations.english(kind.steps[name], k) for name, k in pipeline.steps]
    name, k = pipeline.final
    final = operations.english(kind.finals[name], k)
    return (
        f"Write a Python function `solve({kind.variable})` that takes {kind.takes}, "
        f"{', then '.join(done)}, and returns {final}."
    )


def _distinct(
    rng: random.Random, lengths: tuple[int, int], kinds: Sequence[str], cases: int
) -> Iterator[Item]:
    """Yield items with new pipelines until `PATIENCE` tries in a row gave none."""
    seen: set[Pipeline] = set()
    idle = 0
    while idle < PATIENCE:
        idle += 1
        pipeline = _pipeline(rng, rng.choice(kinds), rng.randint(*lengths))
        if pipeline in seen:
            continue
        made = _cases(rng, pipeline, cases)
        if made is None:
            continue
        seen.add(pipeline)
        idle = 0
        tests = {"kind": "function", "fn_name": "solve", "cases": made}
        meta = {"generator": "functions", **operations.as_meta(pipeline)}
        yield Item(question(pipeline), operations.source(pipeline), dumps(tests), meta)


def _pipeline(rng: random.Random, kind: str, length: int) -> Pipeline:
    names = rng.sample(list(KINDS[kind].steps), length)
    steps = tuple(_step(rng, KINDS[kind].steps, name) for name in names)
    final = rng.choice(list(KINDS[kind].finals))
    return Pipeline(kind, steps, _step(rng, KINDS[kind].finals, final))


def _step(rng: random.Random, table: Mapping[str, Operation], name: str) -> Step:
    return name, rng.choice(table[name].constants)


def _cases(rng: random.Random, pipeline: Pipeline, wanted: int) -> list[dict[str, Any]] | None:
    """Return cases that tell the function from itself with any step left out, else None.

    The empty list, the empty string and 0 are the first case where the function is defined
    there. At least three of the results differ (two of two cases).
    """
    values = [EDGE[pipeline.kind], *(_value(rng, pipeline.kind) for _ in range(2 * wanted))]
    cases: list[dict[str, Any]] = []
    for value in values:
        try:
            cases.append({"args": [value], "expected": operations.run(pipeline, value)})
        except ValueError:  # undefined here, so not a case
            continue
    cases = cases[:wanted]
    results = {repr(case["expected"]) for case in cases}
    if len(cases) < wanted or len(results) < min(3, wanted):
        return None
    shorter = [operations.without(pipeline, i) for i in range(len(pipeline.steps))]
    shorter.append(Pipeline(pipeline.kind, (), pipeline.final))
    return cases if all(differs(other, cases) for other in shorter) else None


def differs(pipeline: Pipeline, cases: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a function fails at least one case (an undefined result fails it)."""
    for case in cases:
        try:
            if operations.run(pipeline, case["args"][0]) != case["expected"]:
                return True
        except ValueError:
            return True
    return False


def _value(rng: random.Random, kind: str) -> Any:
    if kind == "list":
        return [rng.randint(-9, 20) for _ in range(rng.randint(4, 8))]
    if kind == "number":
        return rng.randint(-60, 120)
    words = [rng.choice(WORDS) for _ in range(rng.randint(1, 3))]
    return " ".join(words) + rng.choice(["", "", rng.choice(string.digits)])
