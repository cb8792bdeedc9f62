"""Who is asked again, and each reason why nobody is."""

import dataclasses
import random
import re
from typing import Any

import pytest

from cuvee.rounds.decide import Aim, Price, Tried, decide

AIM = Aim(
    per_problem=2,
    enough=2,
    target=None,
    usd_per_example=None,
    min_examples=1,
    rounds_left=2,
    seed=0,
)
PRICE = Price(requests=4, usd=0.4, tokens=1000)


def aim(**changes: Any) -> Aim:
    return dataclasses.replace(AIM, **changes)


def a_problem(name: str, right: int, tried: int = 4, *, published: int = 0) -> Tried:
    return Tried(name, tried, right, right + published)


PROBLEMS = [a_problem("none", 0), a_problem("one", 1), a_problem("two", 2), a_problem("all", 4)]


def test_full_asks_those_that_lack_an_example_the_likeliest_first() -> None:
    found = decide(PROBLEMS, AIM, PRICE)
    assert found.asked == ("one", "none")
    assert found.stop == ""
    assert (found.requests, found.usd, found.tokens) == (8, 0.8, 2000)
    assert 1 < found.expected < 3


def test_solved_asks_only_those_with_nothing_fit() -> None:
    assert decide(PROBLEMS, aim(enough=1, min_examples=0.1), PRICE).asked == ("none",)


def test_a_published_trace_that_is_fit_counts_though_it_says_nothing_of_the_teachers() -> None:
    problems = [a_problem("given", 0, published=1), a_problem("none", 0), a_problem("one", 1)]
    assert decide(problems, aim(enough=1, min_examples=0.1), PRICE).asked == ("none",)


def test_the_order_of_problems_does_not_count() -> None:
    problems = [a_problem(f"p{number}", number % 3) for number in range(30)]
    mixed = random.Random(1).sample(problems, len(problems))
    assert decide(mixed, AIM, PRICE) == decide(problems, AIM, PRICE)
    assert decide(problems, aim(seed=1), PRICE).asked != decide(problems, AIM, PRICE).asked


def test_a_target_asks_no_more_problems_than_are_expected_to_fill_it() -> None:
    problems = [a_problem(f"p{number}", number % 2, 4) for number in range(200)]
    everyone = decide(problems, aim(per_problem=1, enough=1), PRICE)
    assert len(everyone.asked) == 100
    some = decide(problems, aim(per_problem=1, enough=1, target=105), PRICE)
    assert 5 <= len(some.asked) < 100
    assert 5 <= some.expected < 6  # each of them is worth less than one
    assert some.asked == everyone.asked[: len(some.asked)]


def test_only_problems_whose_next_example_is_cheap_enough_are_asked() -> None:
    problems = [a_problem(f"hard{n}", 0, 40) for n in range(20)]
    problems += [a_problem(f"near{n}", 1, 4) for n in range(20)]
    limited = decide(problems, aim(usd_per_example=1.0), PRICE)
    assert {name[:4] for name in limited.asked} == {"near"}
    assert limited.usd is not None
    assert limited.usd / limited.expected < 1.0
    assert len(decide(problems, AIM, PRICE).asked) == 40


REFUSED = Tried("refused", 0, 0, 0, refused=True)

STOPS: dict[str, tuple[list[Tried], dict[str, Any], Price, str]] = {
    "target": (PROBLEMS, {"target": 5}, PRICE, "target of 5 examples is reached"),
    "done": ([a_problem("a", 2), a_problem("b", 3)], {}, PRICE, r"every problem is full \(2"),
    "nobody": (PROBLEMS, {}, Price(0, None, None), "published"),
    "too_dear": (PROBLEMS, {"usd_per_example": 0.01}, PRICE, r"would cost \$0\.\d+, more than"),
    "no_cost": (PROBLEMS, {"usd_per_example": 1}, Price(4, None, None), "cost is unknown"),
    "refused": ([a_problem("a", 2), REFUSED], {}, PRICE, r"every other .*; not asked: 1 problems"),
    "too_few": (PROBLEMS, {"min_examples": 4}, PRICE, "fewer than 4"),
    "most": (PROBLEMS, {"rounds_left": 0}, PRICE, "used up; 2 problems are left"),
}


@pytest.mark.parametrize("stop", STOPS)
def test_nobody_is_asked_for_this_reason_and_it_is_said(stop: str) -> None:
    problems, changes, price, why = STOPS[stop]
    found = decide(problems, aim(**changes), price)
    assert (found.stop, found.asked) == (stop, ())
    assert re.search(why, found.why), found.why


def test_the_target_counts_no_more_than_per_problem_of_a_problem() -> None:
    # 1 + 2 + 2 examples, though 7 traces are fit.
    assert decide(PROBLEMS, aim(target=6), PRICE).stop == ""
    assert decide(PROBLEMS, aim(target=5), PRICE).stop == "target"


def test_a_local_teacher_is_told_by_its_tokens() -> None:
    found = decide(PROBLEMS, AIM, Price(4, None, 1000))
    assert found.usd is None
    assert "(8 requests, 2000 tokens)" in found.why


def test_a_problem_that_nobody_answered_is_asked_again() -> None:
    assert "lost" in decide([*PROBLEMS, a_problem("lost", 0, 0)], AIM, PRICE).asked


def test_a_problem_that_is_refused_for_good_is_left_out_with_its_count() -> None:
    without = decide(PROBLEMS, AIM, PRICE)
    found = decide([*PROBLEMS, REFUSED], AIM, PRICE)
    assert found.asked == without.asked
    assert (found.expected, found.refused, without.refused) == (without.expected, 1, 0)
    refused = "1 problems of which every request was refused for good"
    assert found.why == f"{without.why}; not asked: {refused}"


def test_a_published_example_of_a_refused_problem_counts() -> None:
    given = dataclasses.replace(REFUSED, have=2)
    assert decide([a_problem("a", 2), given], AIM, PRICE).stop == "done"
