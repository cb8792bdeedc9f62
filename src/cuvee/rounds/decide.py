"""Who is asked again in a domain, what that may bring and cost, and why nobody is.

In: what came of each problem so far (`Tried`), what is wanted (`Aim`), and what a problem costs
in the next round. Out: one `Decision`. Pure. Asked are problems that are not done (solved or
full), those of which the most is expected first, each only where one more example of it costs
no more than `usd_per_example`, and with a target only as many as are expected to fill it. Not
here: where the numbers come from (`cuvee.rounds.stage`), what an answer may bring
(`cuvee.rounds.beta`).
"""

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

from cuvee.records import content_hash
from cuvee.rounds.beta import Beta, expected_new, fit_beta

Stop = Literal["", "nobody", "target", "done", "refused", "too_dear", "no_cost", "too_few", "most"]
"""Why no further round is begun; empty where one is. `nobody`: all teachers are published;
`target`, `done`: the set, or every problem, is filled; `refused`: all others were refused for
good; `too_dear`: no problem's next example
costs so little as `usd_per_example`; `no_cost`: what one costs is not known; `too_few`: less is
expected than `min_examples`; `most`: the rounds are used up."""


@dataclasses.dataclass(frozen=True)
class Tried:
    """What came of one problem in all rounds so far."""

    problem_id: str
    tried: int
    """Answers of teachers that can be asked again; failed requests are none."""
    right: int
    """Of them: fit to be an example, each text once. In [0, tried]."""
    have: int
    """Fit texts of all teachers, published ones too."""
    refused: bool = False
    """Every request to teachers that can be asked again was refused for good."""


@dataclasses.dataclass(frozen=True)
class Aim:
    """What is wanted of a domain."""

    per_problem: int
    """Examples of a problem at most."""
    enough: int
    """Fit texts with which a problem is not asked again: 1, or `per_problem`."""
    target: int | None
    usd_per_example: float | None
    min_examples: float
    rounds_left: int
    """Rounds that there may still be."""
    seed: int


@dataclasses.dataclass(frozen=True)
class Price:
    """What one problem takes in the next round, of all teachers together."""

    requests: int
    """0 where nobody can be asked."""
    usd: float | None
    """None: nobody has a price, or what requests cost is not known."""
    tokens: float | None
    """None where servers do not count."""


@dataclasses.dataclass(frozen=True)
class Decision:
    """What is done next in a domain."""

    asked: tuple[str, ...]
    """Ids of the problems that are asked again, the likeliest first; none where `stop`."""
    stop: Stop
    why: str
    """In words, for people."""
    expected: float
    """New examples that asking these brings, or would have brought."""
    requests: int
    usd: float | None
    tokens: float | None
    refused: int = 0
    """Problems that are not done, and are left out as servers refuse them for good."""


def decide(problems: Sequence[Tried], aim: Aim, price: Price) -> Decision:
    """Decide of a domain's next round; see the module. The order of `problems` does not count."""
    open_ones = [problem for problem in problems if problem.have < aim.enough]
    waiting = [problem for problem in open_ones if not problem.refused]
    left_out = len(open_ones) - len(waiting)
    found = _decided(problems, waiting, aim, price, refused=left_out)
    if not left_out:
        return found
    why = f"{found.why}; not asked: {left_out} problems of which every request was refused for good"
    return dataclasses.replace(found, why=why, refused=left_out)


def _decided(
    problems: Sequence[Tried], waiting: Sequence[Tried], aim: Aim, price: Price, *, refused: int
) -> Decision:
    """Decide of the `waiting` problems; `refused` more are not done."""
    have = sum(min(problem.have, aim.per_problem) for problem in problems)
    missing = None if aim.target is None else aim.target - have
    if missing is not None and missing <= 0:
        return _stopped("target", f"the target of {aim.target} examples is reached")
    if not waiting:
        state = "solved" if aim.enough == 1 else f"full ({aim.enough} fit answers)"
        if refused:
            return _stopped("refused", f"every other problem is {state}")
        return _stopped("done", f"every problem is {state}")
    if not price.requests:
        return _stopped("nobody", f"all teachers of its {len(waiting)} problems are published")
    if aim.usd_per_example is not None and price.usd is None:
        return _stopped("no_cost", "its servers count no tokens, so an example's cost is unknown")
    ranked = _ranked(problems, waiting, aim, price)
    paying = [(p, new) for p, new in ranked if _pays(new, aim, price)]
    if not paying:
        return _too_dear(ranked, aim, price)
    chosen = list(_enough(paying, missing))
    plan = _decision([problem for problem, _ in chosen], sum(new for _, new in chosen), price)
    if plan.expected < aim.min_examples:
        return _stop(plan, "too_few", f"of another round {plan.expected:.2g} new examples are "
                     f"expected, fewer than {aim.min_examples:g}")  # fmt: skip
    if not aim.rounds_left:
        rest = f"{len(waiting)} problems are left, another round would bring about"
        return _stop(plan, "most", f"the rounds are used up; {rest} {plan.expected:.1f} examples")
    return plan


def _ranked(
    problems: Sequence[Tried], waiting: Sequence[Tried], aim: Aim, price: Price
) -> list[tuple[Tried, float]]:
    """Return who may be asked with what is expected of each, the likeliest first."""
    beta = fit_beta(Counter((p.right, p.tried) for p in problems))
    expect = functools.cache(functools.partial(_expect, beta, price.requests))
    with_new = [(p, expect(p.right, p.tried, aim.per_problem - p.have)) for p in waiting]
    # What is alike comes in a seeded order: that of the file may go by subject or difficulty.
    return sorted(with_new, key=lambda it: (-it[1], content_hash(aim.seed, it[0].problem_id)))


def _expect(beta: Beta, more: int, right: int, tried: int, places: int) -> float:
    return expected_new(beta, right=right, tried=tried, more=more, places=places)


def _pays(new: float, aim: Aim, price: Price) -> bool:
    return aim.usd_per_example is None or (price.usd or 0) <= new * aim.usd_per_example


def _enough(
    ranked: Sequence[tuple[Tried, float]], missing: int | None
) -> Iterator[tuple[Tried, float]]:
    """Yield the first problems until as much is expected of them as is missing."""
    before = itertools.accumulate((new for _, new in ranked), initial=0.0)
    for found, expected in zip(ranked, before, strict=False):
        if missing is not None and expected >= missing:
            return
        yield found


def _too_dear(ranked: Sequence[tuple[Tried, float]], aim: Aim, price: Price) -> Decision:
    """Return the decision where no problem pays; `ranked` has at least one."""
    _, best = ranked[0]
    each = f"${(price.usd or 0) / best:.3g}" if best else "without end"
    plan = _decision([p for p, _ in ranked], sum(new for _, new in ranked), price)
    why = f"the next example of the likeliest problem would cost {each}"
    return _stop(plan, "too_dear", f"{why}, more than ${aim.usd_per_example:g}")


def _decision(asked: Sequence[Tried], expected: float, price: Price) -> Decision:
    count = len(asked)
    usd = None if price.usd is None else price.usd * count
    tokens = None if price.tokens is None else price.tokens * count
    each = "" if usd is None or not expected else f", ${usd:.4g} (${usd / expected:.3g} an example)"
    known = "" if tokens is None or usd is not None else f", {tokens:.0f} tokens"
    requests = price.requests * count
    return Decision(
        asked=tuple(problem.problem_id for problem in asked),
        stop="",
        why=f"asks {count} problems again ({requests} requests{each}{known}); about "
        f"{expected:.1f} new examples are expected",
        expected=expected,
        requests=requests,
        usd=usd,
        tokens=tokens,
    )


def _stop(plan: Decision, stop: Stop, why: str) -> Decision:
    """Return the plan of a round as one that is not begun; it keeps what it would have brought."""
    return dataclasses.replace(plan, asked=(), stop=stop, why=why)


def _stopped(stop: Stop, why: str) -> Decision:
    return Decision((), stop, why, expected=0.0, requests=0, usd=None, tokens=None)
