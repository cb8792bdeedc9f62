"""What every part of a plan is made from, and the numbers that several parts need.

Recipe, measurements, assumptions and machine in; how many problems there are, and how long
prompts and answers are, out. Not here: how many examples come of them (`cuvee.plan.yields`).
"""

import dataclasses
import math
from collections.abc import Mapping

from cuvee.errors import DataError
from cuvee.plan.assumptions import Assumptions
from cuvee.plan.engines import Engine
from cuvee.plan.figures import NOTHING, Figure, known, mean_of, measured, total
from cuvee.plan.machine import Machine
from cuvee.plan.measured import Measured
from cuvee.plan.sizes import Sized
from cuvee.problems.benchmarks import ResolvedBenchmark
from cuvee.problems.files import count_rows, is_file, local_paths
from cuvee.recipe import Recipe, Source, Teacher

SCRIPTED_TOKENS = (50.0, 20.0, 150.0)


@dataclasses.dataclass(frozen=True)
class Case:
    """A plan's question."""

    recipe: Recipe
    """With `limit` as it is planned."""
    measured: Measured
    assumptions: Assumptions
    machine: Machine
    base: Sized
    benchmarks: tuple[ResolvedBenchmark, ...]
    engines: Mapping[str, Engine]
    """Those in RAM, by the key of their section; see `cuvee.plan.engines`."""


def problems_of(case: Case, domain: str) -> Figure | None:
    """Return how many problems a domain will have; None where that is unknown until loaded."""
    return _count(case, domain, case.recipe.domains[domain].problems, published=None)


def problems_of_benchmark(case: Case, benchmark: ResolvedBenchmark) -> Figure | None:
    """Return how many problems a benchmark has; None where that is unknown until loaded."""
    from cuvee.problems.benchmarks import known as known_benchmarks

    declared = known_benchmarks().get(benchmark.name)
    published = None
    if declared is not None and declared.source == benchmark.source.source:
        published = declared.problems
    return _count(case, benchmark.name, [benchmark.source], published=published)


def _count(case: Case, name: str, sources: list[Source], *, published: int | None) -> Figure | None:
    limit = case.recipe.limit
    wish = case.assumptions.wish("problems", name)
    seen = case.measured.problems.get(name)
    if wish is not None:
        return wish if limit is None else wish.at_most(limit)
    if seen is not None and case.measured.limit in (None, limit):
        return measured(seen if limit is None else min(seen, limit))
    if published is not None:
        found: list[Figure | None] = [known(published)]
    else:
        found = [_of_source(source) for source in sources]
    if any(figure is None for figure in found):
        return None if limit is None else at_most(limit)
    summed = known(0)
    for figure in found:
        summed = summed + figure if figure is not None else summed
    return summed if limit is None else summed.at_most(limit)


def _of_source(source: Source) -> Figure | None:
    """Return how many problems a source gives at most, where that can be told unopened."""
    if source.source.startswith(("generator:", "gym:")):
        return None if source.count is None else known(source.count)
    if is_file(source.source):
        try:
            rows = sum(count_rows(path) for path in local_paths(source.source))
        except (DataError, OSError):
            return _cap(
                source
            )  # the file comes later: what is said of a missing one, `problems` says
        rows = rows if source.count is None else min(rows, source.count)
        filtered = bool(source.where) or source.window is not None
        return at_most(rows) if filtered else known(rows)
    return _cap(source)


def _cap(source: Source) -> Figure | None:
    """Return the recipe's `count`: the source may have fewer, how many is not known."""
    return None if source.count is None else at_most(source.count)


def at_most(problems: int) -> Figure:
    """Return a number of problems of which it is only known that there are no more."""
    return Figure(problems, problems, problems, "assumed")


def prompt_tokens(case: Case, domain: str) -> Figure:
    """Return tokens of a prompt of a domain, of whichever teacher was measured first."""
    for (name, _), answers in case.measured.teach.items():
        if name == domain and answers.prompt:
            return mean_of(answers.prompt, of=whole(case, domain, len(answers.prompt)))
    return case.assumptions.figure("prompt_tokens", domain)


def answer_tokens(case: Case, domain: str, teacher: str) -> Figure:
    """Return tokens of an answer of a teacher in a domain, reasoning included."""
    seen = case.measured.teach.get((domain, teacher))
    if (
        seen is not None
        and seen.completion
        and case.assumptions.wish("answer_tokens", domain) is None
    ):
        return mean_of(seen.completion, of=whole(case, domain, len(seen.completion)))
    asked = teacher_of(case, teacher)
    if asked.scripted is not None:
        why, default = "scripted answers are short", SCRIPTED_TOKENS
    else:
        why, default = _window(case, domain, asked.sampling.max_tokens)
    return case.assumptions.figure("answer_tokens", domain, default=default, why=why)


def teacher_of(case: Case, name: str) -> Teacher:
    """Return a teacher of the recipe by its name."""
    return next(teacher for teacher in case.recipe.teachers if teacher.name == name)


def _window(case: Case, domain: str, most: int) -> tuple[str, tuple[float, float, float]]:
    """Return what the selection window and `max_tokens` say of an answer's length."""
    low, high = case.recipe.domains[domain].select.tokens
    middle = (min(low, most) + min(high, most)) / 2
    why = f"the middle of select.tokens {low}-{high} and max_tokens {most}, half to twice of it"
    return why, (middle, middle / 2, min(most, middle * 2))


def answers_a_problem(case: Case, domain: str, *, in_round: int = 1) -> int:
    """Return how many answers a problem gets in a round that it is asked in.

    A published teacher counts as one in the first round, and for nothing in the others.
    """
    teachers = case.recipe.teachers_of(domain)
    return sum(samples_in(case.recipe, teacher, in_round=in_round) for teacher in teachers)


def samples_in(recipe: Recipe, teacher: Teacher, *, in_round: int) -> int:
    """Return how many answers a teacher gives to a problem in a round."""
    if teacher.published:
        return 1 if in_round == 1 else 0
    if recipe.rounds is None:
        return teacher.samples
    return recipe.rounds.samples_in(in_round, teacher.samples)


def mean_answer_tokens(case: Case, domain: str) -> Figure:
    """Return tokens of an answer of a domain's teachers, each as often as it answers."""
    teachers = case.recipe.teachers_of(domain)
    figures = [
        answer_tokens(case, domain, t.name).scaled(samples_in(case.recipe, t, in_round=1))
        for t in teachers
    ]
    return (total(figures) or NOTHING).scaled(1 / answers_a_problem(case, domain))


def whole(case: Case, domain: str, seen: int) -> float:
    """Return how many problems the pilot stands for; unknown counts as very many."""
    problems = problems_of(case, domain)
    return math.inf if problems is None else max(problems.value, seen)
