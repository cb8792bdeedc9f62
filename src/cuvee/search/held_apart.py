"""The problems that ways to merge are tried on: the run's own, held apart from its training.

In: `01_problems`, `04_examples` and the benchmarks of a run folder. Out: for each domain some
problems that no example of any domain was chosen from, and that overlap no benchmark. Which
of them is a matter of the seed and the problem's id alone: a smaller number is a part of a
larger one. Nothing is asked here.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from cuvee.errors import DataError, RecipeError
from cuvee.problems.decontaminate import build_index, find_overlaps
from cuvee.records import Problem, content_hash, iter_values, read_rows
from cuvee.runfolder import Run
from cuvee.verify.check import TESTED

WANTED = 100
"""Problems of each domain, where nobody says."""
MINIMUM = 30
"""Fewer of a domain tell hardly anything; a smaller `--problems` is taken at its word."""
UNSCORED = ("judge", "none")
"""Verifiers that cannot take a score."""


@dataclasses.dataclass(frozen=True)
class HeldApart:
    """The problems of one domain."""

    domain: str
    problems: tuple[Problem, ...]
    chosen_from: int
    """Problems of the domain that examples were chosen from: left out."""
    without_gold: int
    """Left out because nothing could check an answer: neither a gold nor tests."""
    remaining: int
    """What was left to draw from."""

    @property
    def told(self) -> str:
        """Return a line for people."""
        unusable = f", {self.without_gold} cannot be checked" if self.without_gold else ""
        return (
            f"{self.domain}: {len(self.problems)} of the {self.remaining} problems that no example "
            f"was chosen from ({self.chosen_from} have one{unusable})"
        )


def hold_apart(run: Run, *, wanted: int | None) -> list[HeldApart]:
    """Return the problems to try on, of every domain whose answers can be scored.

    `wanted`: how many of each domain, >= 1; None: `WANTED`, and at least `MINIMUM`.

    Raises RecipeError where too few remain or no domain can be scored; DataError where a file
    of the run is missing or unreadable, and where one of the problems overlaps a benchmark:
    the run's problems were then loaded without it.
    """
    recipe = run.recipe
    scored = [name for name, domain in recipe.domains.items() if domain.verifier not in UNSCORED]
    if not scored:
        raise RecipeError(
            "no domain can be scored: a verifier of judge or none gives no scores; merge-search "
            "needs one of math, code, choice or instructions"
        )
    examples = {
        row["problem_id"]
        for domain in recipe.domains
        for row in iter_values(run.examples(domain), ["problem_id"])
    }
    benchmarks = _benchmarks(run)
    most = WANTED if wanted is None else wanted
    found = [_of_domain(run, domain, examples, most) for domain in scored]
    refuse_benchmarks([p for held in found for p in held.problems], benchmarks)
    least = MINIMUM if wanted is None else min(MINIMUM, wanted)
    if few := [held for held in found if len(held.problems) < least]:
        told = "; ".join(held.told for held in few)
        raise RecipeError(
            f"too few problems to try merges on: {told}. At least {least} are needed: load more "
            "problems or choose fewer examples (select.target), or take what there is with "
            f"--problems {max(1, min(len(held.problems) for held in few))}"
        )
    return found


def refuse_benchmarks(
    problems: Sequence[Problem], benchmarks: Mapping[str, Sequence[Problem]]
) -> None:
    """Raise DataError where a problem is, or overlaps, a benchmark's: by id or by its text."""
    ids = {problem.id: name for name, held in benchmarks.items() for problem in held}
    for problem in problems:
        if problem.id in ids:
            raise DataError(_overlapping(problem, f"is a problem of benchmark {ids[problem.id]}"))
    for problem, overlap in find_overlaps(problems, build_index(benchmarks)):
        if overlap is not None:
            raise DataError(_overlapping(problem, f"{overlap.reason}: {overlap.detail}"))


def _overlapping(problem: Problem, why: str) -> str:
    return (
        f"problem {problem.id} of {problem.domain} {why}. Merges are never tried on benchmarks: "
        "run `cuvee problems` again, which drops what overlaps one, and the stages after it"
    )


def _benchmarks(run: Run) -> dict[str, list[Problem]]:
    """Return the problems of the recipe's benchmarks, and of any other the run has loaded."""
    folder = run.benchmark("any").parent
    names = {*run.recipe.evaluate.benchmarks, *(file.stem for file in folder.glob("*.parquet"))}
    missing = sorted(name for name in names if not run.benchmark(name).exists())
    if missing:
        raise DataError(f"{run.benchmark(missing[0])}: missing; `cuvee problems` writes it")
    return {name: read_rows(run.benchmark(name), Problem) for name in sorted(names)}


def _of_domain(run: Run, domain: str, examples: set[str], wanted: int) -> HeldApart:
    problems = read_rows(run.problems(domain), Problem)
    free = [problem for problem in problems if problem.id not in examples]
    usable = [p for p in free if (p.tests if p.verifier in TESTED else p.gold) is not None]
    drawn = sorted(usable, key=lambda p: content_hash("merge-search", run.recipe.seed, p.id))
    return HeldApart(
        domain=domain,
        problems=tuple(drawn[:wanted]),
        chosen_from=len(problems) - len(free),
        without_gold=len(free) - len(usable),
        remaining=len(usable),
    )
