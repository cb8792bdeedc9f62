"""What every part of a plan is made from, and the numbers that several parts need.

Recipe, measurements, assumptions and machine in; how many problems there are, how long
prompts and answers are, and how many examples come of them, out.
"""

import dataclasses
import math
from collections.abc import Mapping

from cuvee.errors import DataError
from cuvee.plan.assumptions import Assumptions
from cuvee.plan.engines import Engine
from cuvee.plan.figures import Figure, known, mean_of, measured, share_of
from cuvee.plan.machine import Machine
from cuvee.plan.measured import Measured
from cuvee.plan.sizes import Sized
from cuvee.problems.benchmarks import ResolvedBenchmark
from cuvee.problems.files import count_rows, is_file, local_paths
from cuvee.recipe import Recipe, Source

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
            return mean_of(answers.prompt, of=_whole(case, domain, len(answers.prompt)))
    return case.assumptions.figure("prompt_tokens", domain)


def answer_tokens(case: Case, domain: str, teacher: str) -> Figure:
    """Return tokens of an answer of a teacher in a domain, reasoning included."""
    seen = case.measured.teach.get((domain, teacher))
    if (
        seen is not None
        and seen.completion
        and case.assumptions.wish("answer_tokens", domain) is None
    ):
        return mean_of(seen.completion, of=_whole(case, domain, len(seen.completion)))
    asked = next(t for t in case.recipe.teachers if t.name == teacher)
    if asked.scripted is not None:
        why, default = "scripted answers are short", SCRIPTED_TOKENS
    else:
        why, default = _window(case, domain, asked.sampling.max_tokens)
    return case.assumptions.figure("answer_tokens", domain, default=default, why=why)


def _window(case: Case, domain: str, most: int) -> tuple[str, tuple[float, float, float]]:
    """Return what the selection window and `max_tokens` say of an answer's length."""
    low, high = case.recipe.domains[domain].select.tokens
    middle = (min(low, most) + min(high, most)) / 2
    why = f"the middle of select.tokens {low}-{high} and max_tokens {most}, half to twice of it"
    return why, (middle, middle / 2, min(most, middle * 2))


def example_tokens(case: Case, domain: str) -> Figure:
    """Return tokens of an example as it is trained, its prompt included."""
    seen = case.measured.selected.get(domain)
    if seen is not None and seen.tokens:
        examples = expected_examples(case, domain)
        of = math.inf if examples is None else max(examples.value, 1)
        answer = mean_of(seen.tokens, of=of)
    else:
        teacher = case.recipe.teachers_of(domain)[0]
        low, high = case.recipe.domains[domain].select.tokens
        found = answer_tokens(case, domain, teacher.name)
        ends = [min(max(end, low), high) for end in (found.value, found.low, found.high)]
        answer = Figure(ends[0], ends[1], ends[2], found.origin)
    return answer + prompt_tokens(case, domain)


def answers_a_problem(case: Case, domain: str) -> int:
    """Return how many answers each problem gets; a published teacher counts as one."""
    teachers = case.recipe.teachers_of(domain)
    return sum(1 if teacher.published else teacher.samples for teacher in teachers)


def pass_rate(case: Case, domain: str) -> Figure:
    """Return the share of a domain's answers that are correct; 1 where nothing is checked."""
    if case.recipe.domains[domain].verifier == "none":
        return known(1.0)  # not_checked is what select is told to accept
    wish = case.assumptions.wish("pass_rate", domain)
    seen = case.measured.selected.get(domain)
    if wish is None and seen is not None and seen.right:
        of = _whole(case, domain, len(seen.right))
        return share_of(seen.right, samples=seen.answers, of=of)
    return case.assumptions.figure("pass_rate", domain)


def examples_a_problem(case: Case, domain: str) -> Figure:
    """Return how many examples a problem gives on average, before `target` cuts them.

    Measured: the mean over the pilot's problems. Assumed: of a share `alike` of the problems
    every answer fares alike, of the rest each on its own: with q the chance that one of n
    answers is usable and k = per_problem, ``alike q min(k, n) + (1 - alike) E[min(k, X)]`` with
    X binomial(n, q).
    """
    most = case.recipe.domains[domain].select.per_problem
    seen = case.measured.selected.get(domain)
    given = any(case.assumptions.wish(kind, domain) for kind in ("pass_rate", "fit_rate"))
    if seen is not None and seen.usable and not given:
        of = _whole(case, domain, len(seen.usable))
        if most == 1:
            return share_of(seen.usable, samples=len(seen.usable), of=of)
        return mean_of(seen.usable, of=of).at_most(most)
    usable = pass_rate(case, domain) * case.assumptions.figure("fit_rate", domain)
    alike = case.assumptions.figure("alike", domain)
    n = answers_a_problem(case, domain)
    return Figure(
        yield_of(usable.value, n, most, alike=alike.value),
        yield_of(usable.low, n, most, alike=alike.high),
        yield_of(usable.high, n, most, alike=alike.low),
        "assumed",
    )


def yield_of(chance: float, answers: int, most: int, *, alike: float) -> float:
    """Return the expected examples of a problem: see `examples_a_problem`."""
    apart = sum(
        math.comb(answers, k) * chance**k * (1 - chance) ** (answers - k) * min(k, most)
        for k in range(answers + 1)
    )
    return alike * chance * min(answers, most) + (1 - alike) * apart


def expected_examples(case: Case, domain: str) -> Figure | None:
    """Return how many examples a domain can give, before `target`; None where unknown."""
    problems = problems_of(case, domain)
    return None if problems is None else problems * examples_a_problem(case, domain)


def _whole(case: Case, domain: str, seen: int) -> float:
    """Return how many problems the pilot stands for; unknown counts as very many."""
    problems = problems_of(case, domain)
    return math.inf if problems is None else max(problems.value, seen)
