"""How many examples come of a domain's problems, and how often those are asked for that.

Measured by a pilot, or from assumed rates; with `rounds:` those that are asked again as well.
Not here: what asking takes (`cuvee.plan.asking`).
"""

import dataclasses
import math
from collections.abc import Sequence

from cuvee.plan.case import (
    Case,
    answer_tokens,
    answers_a_problem,
    problems_of,
    prompt_tokens,
    samples_in,
    whole,
)
from cuvee.plan.figures import Figure, known, mean_of, share_of, total
from cuvee.plan.prices import usd_of
from cuvee.plan.rounds import Course, Round, Step, foretell
from cuvee.recipe import MIXTURE


@dataclasses.dataclass(frozen=True)
class Again:
    """A round from the second on, of one domain."""

    number: int
    asked: Figure
    """Share of the problems."""
    new: Figure
    """Examples, by the problem."""
    usable: Figure
    """Answers that could be examples, by the problem."""


def chosen_tokens(case: Case, domain: str) -> Figure:
    """Return tokens of a chosen trace, reasoning and answer, before anything refines it."""
    seen = case.measured.selected.get(domain)
    if seen is not None and seen.chosen:
        return mean_of(seen.chosen, of=_examples_in(case, domain))
    teacher = case.recipe.teachers_of(domain)[0]
    low, high = case.recipe.domains[domain].select.tokens
    found = answer_tokens(case, domain, teacher.name)
    ends = [min(max(end, low), high) for end in (found.value, found.low, found.high)]
    return Figure(ends[0], ends[1], ends[2], found.origin)


def example_tokens(case: Case, domain: str) -> Figure:
    """Return tokens of an example as it is trained, its prompt included."""
    seen = case.measured.selected.get(domain)
    if seen is not None and seen.trained:
        answer = mean_of(seen.trained, of=_examples_in(case, domain))
    else:
        answer = chosen_tokens(case, domain)
        refine = case.recipe.domains[domain].refine
        if refine is not None and refine.teacher is not None:
            # What it writes at most stands in; where it does not hold up the original stays.
            share = case.assumptions.figure("refine_share", domain).at_most(1.0)
            answer = Figure((answer * share).value, (answer * share).low, answer.high, "assumed")
    return answer + prompt_tokens(case, domain)


def _examples_in(case: Case, domain: str) -> float:
    examples = expected_examples(case, domain)
    return math.inf if examples is None else max(examples.value, 1)


def pass_rate(case: Case, domain: str) -> Figure:
    """Return the share of a domain's answers that are correct; 1 where nothing is checked."""
    if case.recipe.domains[domain].verifier == "none":
        return known(1.0)  # not_checked is what select is told to accept
    wish = case.assumptions.wish("pass_rate", domain)
    seen = case.measured.selected.get(domain)
    if wish is None and seen is not None and seen.right:
        of = whole(case, domain, len(seen.right))
        return share_of(seen.right, samples=seen.answers, of=of)
    return case.assumptions.figure("pass_rate", domain)


def examples_a_problem(case: Case, domain: str) -> Figure:
    """Return how many examples a problem gives on average, before `target` cuts them.

    Of the first round and of those that follow it, where the recipe has `rounds`.
    """
    found = _of_first_round(case, domain)
    for again in rounds_of(case, domain):
        found = found + again.new
    return found.at_most(case.recipe.domains[domain].select.per_problem)


def _of_first_round(case: Case, domain: str) -> Figure:
    """Return the examples of a problem after one round.

    Measured: the mean over the pilot's problems. Assumed: of a share `alike` of the problems
    every answer fares alike, of the rest each on its own: with q the chance that one of n
    answers is usable and k = per_problem, ``alike q min(k, n) + (1 - alike) E[min(k, X)]`` with
    X binomial(n, q).
    """
    most = case.recipe.domains[domain].select.per_problem
    seen = _usable(case, domain)
    if seen:
        of = whole(case, domain, len(seen[0]))
        if most == 1:
            return share_of(seen[0], samples=len(seen[0]), of=of)
        return mean_of(seen[0], of=of).at_most(most)
    chance, alike = _chance(case, domain), case.assumptions.figure("alike", domain)
    n = answers_a_problem(case, domain)
    return Figure(
        yield_of(chance.value, n, most, alike=alike.value),
        yield_of(chance.low, n, most, alike=alike.high),
        yield_of(chance.high, n, most, alike=alike.low),
        "assumed",
    )


def _usable(case: Case, domain: str) -> tuple[tuple[float, ...], ...]:
    """Return what a pilot's problems could give after each round; nothing where rates are given."""
    seen = case.measured.selected.get(domain)
    given = any(case.assumptions.wish(kind, domain) for kind in ("pass_rate", "fit_rate"))
    return () if seen is None or given else seen.usable


def _chance(case: Case, domain: str) -> Figure:
    """Return the chance that an answer can become an example."""
    return pass_rate(case, domain) * case.assumptions.figure("fit_rate", domain)


def yield_of(chance: float, answers: int, most: int, *, alike: float) -> float:
    """Return the expected examples of a problem: see `_of_first_round`."""
    apart = sum(
        math.comb(answers, k) * chance**k * (1 - chance) ** (answers - k) * min(k, most)
        for k in range(answers + 1)
    )
    return alike * chance * min(answers, most) + (1 - alike) * apart


def expected_examples(case: Case, domain: str) -> Figure | None:
    """Return how many examples a domain can give, before `target`; None where unknown."""
    problems = problems_of(case, domain)
    return None if problems is None else problems * examples_a_problem(case, domain)


def rounds_of(case: Case, domain: str) -> tuple[Again, ...]:
    """Return the rounds from the second on that are expected to be begun; see `foretell`.

    Ends are those of the assumed rates: with the lowest chance fewer problems are done, and
    more of them asked again.
    """
    if case.recipe.rounds is None:
        return ()
    course = _course(case, domain)
    chance, alike = _chance(case, domain), case.assumptions.figure("alike", domain)
    runs = [
        foretell(course, chance=c, alike=a)
        for c, a in (
            (chance.value, alike.value),
            (chance.low, alike.high),
            (chance.high, alike.low),
        )
    ]
    found = []
    for number in range(len(runs[0])):
        each = [run[number] if number < len(run) else Round(0.0, 0.0, 0.0) for run in runs]
        found.append(
            Again(
                number + 2,
                asked=_spread([one.asked for one in each]),
                new=_spread([one.new for one in each]),
                usable=_spread([one.usable for one in each]),
            )
        )
    return tuple(found)


def _spread(values: Sequence[float]) -> Figure:
    return Figure(values[0], min(values), max(values), "assumed")


def _course(case: Case, domain: str) -> Course:
    rounds, select = case.recipe.rounds, case.recipe.domains[domain].select
    assert rounds is not None  # asked by `rounds_of`
    problems = problems_of(case, domain)
    count = None if problems is None else max(problems.value, 1)
    return Course(
        first=answers_a_problem(case, domain),
        steps=tuple(_step(case, domain, number) for number in range(2, rounds.most + 1)),
        places=select.per_problem,
        enough=1 if rounds.until == "solved" else select.per_problem,
        target=None if select.target is None or count is None else select.target / count,
        least=0.0 if count is None else rounds.min_examples / count,
        usd_per_example=rounds.usd_per_example,
        seen=_usable(case, domain),
    )


def _step(case: Case, domain: str, number: int) -> Step:
    teachers = [t for t in case.recipe.teachers_of(domain) if not t.published]
    prompt, usd = prompt_tokens(case, domain), known(0.0)
    for teacher in teachers:
        samples = samples_in(case.recipe, teacher, in_round=number)
        cost = usd_of(teacher, prompt, answer_tokens(case, domain, teacher.name))
        usd = usd + cost.scaled(samples) if cost is not None else usd
    return Step(answers_a_problem(case, domain, in_round=number), usd.value)


def all_answers_a_problem(case: Case, domain: str) -> Figure:
    """Return how many answers a problem gets on average, all rounds together."""
    found = known(answers_a_problem(case, domain))
    for again in rounds_of(case, domain):
        each = answers_a_problem(case, domain, in_round=again.number)
        found = found + again.asked.scaled(each)
    return found


def right_answers(case: Case, domain: str) -> Figure:
    """Return how many answers to a problem are right on average, all rounds together."""
    found = pass_rate(case, domain).scaled(answers_a_problem(case, domain))
    for again in rounds_of(case, domain):
        fit = case.assumptions.figure("fit_rate", domain).value
        found = found + again.usable.scaled(1 / fit if fit else 0.0)
    return found


def examples_of(case: Case, name: str) -> Figure | None:
    """Return how many examples a model is trained on; of the mixture those of all domains.

    Where problems are unknown, as many as `select.target` asks; None without one.
    """
    if name == MIXTURE:
        return total(examples_of(case, domain) for domain in case.recipe.domains)
    target = case.recipe.domains[name].select.target
    expected = expected_examples(case, name)
    if expected is None:
        return None if target is None else Figure(target, 0, target, "assumed")
    return expected if target is None else expected.at_most(target)
