"""What is counted of a round's traces, and what a problem costs in the next one."""

import dataclasses
from typing import Any

import pytest

from cuvee.records import Trace, Verdict
from cuvee.rounds.count import attempts, price, tried
from cuvee.rounds.decide import Price, Tried
from cuvee.rounds.record import Attempt
from cuvee.select.choose import Candidate
from cuvee.select.sift import judged

TRACE = Trace(
    id="t",
    problem_id="p",
    domain="math",
    model="ann",
    sample=0,
    reasoning="hm",
    answer="7",
    finish_reason="stop",
    prompt_tokens=10,
    completion_tokens=90,
    seconds=0.1,
    request="r",
    fingerprint=None,
    error=None,
    usd=0.5,
)
ATTEMPT = Attempt("t", "p", "ann", True, True, False, None, 0.5, 100)


OWN = frozenset({"ann"})


def an_attempt(**changes: Any) -> Attempt:
    return dataclasses.replace(ATTEMPT, **changes)


def a_verdict(trace: Trace, name: Any, reason: str = "") -> Verdict:
    return Verdict(trace.id, trace.problem_id, "math", name, reason, None, None, None, "-", 0.0)


def test_fit_is_what_the_filters_make_a_candidate_of() -> None:
    right = dataclasses.replace(TRACE, id="right")
    long = dataclasses.replace(TRACE, id="long", usd=None, completion_tokens=None)
    lost = dataclasses.replace(TRACE, id="lost", error="HTTP 500", usd=None)
    said = judged(
        [
            a_verdict(right, "correct"),
            a_verdict(long, "correct"),
            a_verdict(lost, "no_answer", "request_failed"),
        ]
    )
    sifted = [Candidate("right", "p", "ann", 9, "text")]
    judging = {"right": 0.25, "long": 0.125}
    rows = list(attempts([right, long, lost], said, sifted, judging, priced=OWN))
    assert [row.text for row in rows] == ["text", None, None]
    assert [row.right for row in rows] == [True, True, False]
    assert [row.answered for row in rows] == [True, True, False]
    assert [row.checked for row in rows] == [True, True, False]
    assert [row.usd for row in rows] == [0.75, 0.125, None], "with what the judge took"
    assert [row.tokens for row in rows] == [100, None, 100]
    assert [row.refused for row in rows] == [False, False, False], "HTTP 500 may pass"
    assert [row.usd for row in attempts([long], said, sifted, None, priced=OWN)] == [None]


def test_a_judge_that_was_not_asked_cost_nothing_but_tells_nothing_of_the_teacher() -> None:
    uncounted = dataclasses.replace(TRACE, usd=None)
    said = judged([a_verdict(TRACE, "wrong")])
    for priced, usd in ((frozenset[str](), 0.0), (OWN, None)):
        (row,) = attempts([uncounted], said, [], {}, priced=priced)
        assert row.usd == usd
    found = [an_attempt(usd=0.0), an_attempt(teacher="bo", usd=0.0)]
    assert the_price(found).usd == 0.0


def test_a_text_counts_once_and_a_published_one_is_no_try() -> None:
    found = [
        an_attempt(text="one"),
        an_attempt(text="one"),
        an_attempt(),
        an_attempt(answered=False),
        an_attempt(text="other", teacher="r1"),
        an_attempt(problem_id="q", teacher="r1"),
    ]
    assert tried(["p", "q", "r"], found, askable=frozenset({"ann"})) == [
        Tried("p", tried=3, right=1, have=2),
        Tried("q", tried=0, right=0, have=0),
        Tried("r", tried=0, right=0, have=0),
    ]


def test_refused_is_what_every_teacher_that_can_be_asked_refused() -> None:
    no, lost = {"answered": False, "refused": True}, {"answered": False}
    found = [
        an_attempt(problem_id="all", **no),
        an_attempt(problem_id="all", teacher="bo", **no),
        an_attempt(problem_id="all", teacher="r1", text="published"),
        an_attempt(problem_id="one", **no),
        an_attempt(problem_id="one", teacher="bo", **lost),
        an_attempt(problem_id="answered"),
        an_attempt(problem_id="answered", **no),
    ]
    rows = tried(["all", "one", "answered", "none"], found, askable=frozenset({"ann", "bo"}))
    assert [row.problem_id for row in rows if row.refused] == ["all"]


def the_price(found: list[Attempt], **changes: Any) -> Price:
    keys: dict[str, Any] = {
        "waiting": frozenset({"p"}),
        "samples": {"ann": 2, "bo": 3},
        "priced": frozenset({"ann", "bo"}),
    }
    return price(lambda: found, **(keys | changes))


def test_a_request_costs_what_those_about_waiting_problems_did() -> None:
    found = [
        an_attempt(usd=0.5, tokens=100),
        an_attempt(usd=0.25, tokens=50),
        an_attempt(problem_id="solved", usd=0.01, tokens=1),
        an_attempt(teacher="bo", problem_id="solved", usd=0.1, tokens=10),
    ]
    # ann: 2 x 0.375 of p; bo was not heard of p, so the mean of all of its own.
    found_price = the_price(found)
    assert found_price.requests == 5
    assert found_price.usd == pytest.approx(2 * 0.375 + 3 * 0.1)
    assert found_price.tokens == pytest.approx(2 * 75 + 3 * 10)


def test_what_is_not_known_is_not_made_up() -> None:
    found = [an_attempt(), an_attempt(teacher="bo", usd=None, tokens=None)]
    assert the_price(found) == Price(5, None, None)
    local = the_price(found, priced=frozenset({"ann"}))
    assert local.usd == pytest.approx(1.0), "bo costs nothing"
    assert the_price(found, priced=frozenset()).usd is None
    assert the_price(found, samples={}) == Price(0, None, 0.0)
