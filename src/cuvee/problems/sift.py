"""How a task's problems are sifted: found as they pass by here, or on a cluster before.

What was read in; out, a `Sieve`: the problems that stay but for their golds, and the check of
these. With `workers: ray` everything is found by `cuvee.problems.clustered` when the sieve is
made, and recalled as the problems pass by. They pass in the same batches either way, so the
same rows are written in the same order.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from cuvee.problems import clustered, decontaminate, dedup, sieve
from cuvee.problems.loading import Scratch
from cuvee.problems.sieve import Drop, Fault, GoldCheck
from cuvee.problems.wording import in_batches
from cuvee.progress import Tick
from cuvee.recipe import Recipe
from cuvee.records import Problem, iter_values, read_rows


@dataclasses.dataclass(frozen=True)
class Sieve:
    """What problems stay of those that were read."""

    keep: Callable[[Drop], Iterator[Problem]]
    """Yields those without repeats and overlaps; the others are dropped."""
    check: GoldCheck
    """Tells what is wrong with the golds of these, asked in their order."""


def of_domain(
    recipe: Recipe,
    scratch: Scratch,
    benchmarks: Mapping[str, Path],
    *,
    label: str,
    connect: Callable[[], None],
) -> Sieve:
    """Return the sieve of a domain, without repeats and what overlaps `benchmarks` (files).

    `connect` opens the cluster, where there is to be one. Raises as `cuvee.problems.clustered`
    does, where the recipe says `workers: ray`.
    """
    if recipe.workers == "ray":
        connect()
        return _of_domain_on_ray(recipe, scratch, benchmarks, label=label)

    def keep(drop: Drop) -> Iterator[Problem]:
        held_out = {name: read_rows(path, Problem) for name, path in benchmarks.items()}
        repeats = dedup.find_repeats(scratch.problems())
        new = sieve.without_repeats(scratch.problems(), repeats, drop=drop)
        found = decontaminate.find_overlaps(new, decontaminate.build_index(held_out))
        return sieve.without_overlaps(found, drop=drop)

    return Sieve(keep, _here(recipe))


def of_benchmark(
    recipe: Recipe, scratch: Scratch, *, label: str, connect: Callable[[], None]
) -> Sieve:
    """Return the sieve of a benchmark, without copies; as `of_domain`."""

    def keep(drop: Drop) -> Iterator[Problem]:
        return sieve.without_copies(scratch.problems(), drop=drop)

    if recipe.workers != "ray":
        return Sieve(keep, _here(recipe))
    connect()
    seen: set[str] = set()
    left: list[bool] = []
    for values in iter_values(scratch.path, ["id"]):
        left.append(values["id"] not in seen)
        seen.add(values["id"])
    return Sieve(keep, _recalled(_golds_on_ray(recipe, scratch, left, label=label)))


def _here(recipe: Recipe) -> GoldCheck:
    return functools.partial(sieve.check_golds, limits=recipe.verify, sandbox=recipe.sandbox)


def _of_domain_on_ray(
    recipe: Recipe, scratch: Scratch, benchmarks: Mapping[str, Path], *, label: str
) -> Sieve:
    at_once = recipe.verify.processes
    repeats = clustered.find_repeats(
        scratch.path,
        count=scratch.count,
        folder=scratch.folder / "repeats",
        at_once=at_once,
        label=label,
    )
    new = [repeat is None for repeat in repeats]
    overlaps = clustered.find_overlaps(scratch.path, new, benchmarks, at_once=at_once, label=label)
    rest = iter(overlaps)
    left = [is_new and next(rest) is None for is_new in new]
    golds = _golds_on_ray(recipe, scratch, left, label=label)

    def keep(drop: Drop) -> Iterator[Problem]:
        stay = sieve.without_repeats(scratch.problems(), repeats, drop=drop)
        # In the batches of `find_overlaps`, which reads ahead: what is dropped has an order too.
        passing = (problem for batch in in_batches(stay) for problem in batch)
        return sieve.without_overlaps(zip(passing, overlaps, strict=True), drop=drop)

    return Sieve(keep, _recalled(golds))


def _golds_on_ray(
    recipe: Recipe, scratch: Scratch, left: Sequence[bool], *, label: str
) -> list[Fault | None]:
    return clustered.find_faults(
        scratch.path, left, limits=recipe.verify, sandbox=recipe.sandbox, label=label
    )


def _recalled(faults: Iterable[Fault | None]) -> GoldCheck:
    """Return a check that tells, in order, what was found before."""
    rest = iter(faults)

    def check(problems: Sequence[Problem], tick: Tick) -> list[Fault | None]:
        tick(len(problems))
        return list(islice(rest, len(problems)))

    return check
