"""Majority votes: equal answers count together, and no vote is won that is not clear."""

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.recipe import Verify
from cuvee.records import Verdict
from cuvee.select.vote import Vote, hold_votes, judge_by_votes, unvoted
from cuvee.verify.answers import final_answer
from cuvee.verify.math.compare import check_math

from .conftest import a_trace, a_verdict, json_lines, reason


def a_ballot(problem: str, *stated: str | None) -> list[Verdict]:
    """Return verdicts of traces that state these answers; None states none."""
    return [
        Verdict(
            trace_id=f"{problem}/{number}",
            problem_id=problem,
            domain="math",
            verdict="no_answer" if answer is None else "not_checked",
            reason="no_final_answer" if answer is None else "no_gold",
            extracted=answer,
            expected=None,
            detail=None,
            checker="-",
            seconds=0.0,
        )
        for number, answer in enumerate(stated)
    ]


def the_vote(
    *stated: str | None, agreement: float = 0.6, votes: int = 3, verifier: str = "math"
) -> Vote:
    (vote,) = hold_votes(
        a_ballot("p", *stated),
        verifier=verifier,
        agreement=agreement,
        votes=votes,
        limits=Verify(processes=1),
    )
    return vote


def test_equal_answers_count_together_whatever_they_look_like() -> None:
    vote = the_vote("1/2", "0.5", "\\frac{1}{2}", "\\frac12", "2", "0.5")
    assert (vote.outcome, vote.answer, vote.agree, vote.traces) == ("voted", "0.5", 5, 6)
    assert set(vote.equal) == {"1/2", "0.5", "\\frac{1}{2}", "\\frac12"}
    assert vote.share == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("stated", "outcome"),
    [
        (("7", "7", "7"), "voted"),
        (("7", "7", "8"), "voted"),
        (("7", "7", "8", "8"), "tied_vote"),
        (("7", "8", "9"), "tied_vote"),
        (("7", "7", "8", "9"), "no_agreement"),
        (("7", "7"), "too_few_votes"),
        (("7", "7", None, None), "too_few_votes"),
        (("7", "7", "7", None, None), "voted"),
        (("7", "7", "7", None, None, None), "no_agreement"),
    ],
)
def test_a_vote_needs_enough_who_agree(stated: tuple[str | None, ...], outcome: str) -> None:
    assert the_vote(*stated).outcome == outcome


def test_the_least_agreement_is_enough() -> None:
    assert the_vote("7", "7", "7", "8", agreement=0.75).outcome == "voted"
    assert the_vote("7", "7", "7", "8", agreement=0.76).outcome == "no_agreement"


def test_choices_are_compared_as_letters() -> None:
    vote = the_vote("B", "(B)", "b", "C", verifier="choice")
    assert (vote.outcome, vote.agree) == ("voted", 3)


def test_failed_requests_have_no_part() -> None:
    failed = a_ballot("p", None)[0]
    rows = [*a_ballot("p", "7", "7", "7"), *[failed.__class__(**{
        **vars(failed), "trace_id": f"f{number}", "reason": "request_failed"
    }) for number in range(9)]]  # fmt: skip
    (vote,) = hold_votes(rows, verifier="math", agreement=0.9, votes=3, limits=Verify())
    assert (vote.outcome, vote.traces) == ("voted", 3)


def test_the_voted_answer_judges_the_traces_and_says_how_it_went() -> None:
    ballot = a_ballot("p", "1/2", "0.5", "0.5", "3", None)
    checked = a_verdict(a_trace(id="other", problem_id="q"))
    votes = hold_votes([*ballot, checked], verifier="math", agreement=0.6, votes=3, limits=Verify())
    judged = judge_by_votes([*ballot, checked], votes)
    assert [v.verdict for v in judged] == ["correct"] * 3 + ["wrong", "no_answer", "correct"]
    assert judged[-1] == checked
    assert judged[3].expected == "0.5"
    found = unvoted(judged[3])
    assert found is not None
    assert (found.reason, found.detail) == ("outvoted", "3 of 5 traces (0.60) state '0.5'")
    assert [reason(unvoted(v)) for v in (judged[0], judged[4], checked)] == [None, None, None]


def test_a_vote_that_fails_leaves_its_traces_unchecked_with_its_reason() -> None:
    ballot = a_ballot("p", "7", "7", "8", "8")
    votes = hold_votes(ballot, verifier="math", agreement=0.6, votes=3, limits=Verify())
    judged = judge_by_votes(ballot, votes)
    assert {v.verdict for v in judged} == {"not_checked"}
    assert {reason(unvoted(v)) for v in judged} == {"tied_vote"}


@given(st.lists(st.sampled_from(["7", "7.0", "14/2", "8", "9", None]), max_size=9), st.integers())
def test_the_order_of_the_traces_changes_nothing(stated: list[str | None], shuffle: int) -> None:
    def outcome(answers: list[str | None]) -> list[object]:
        votes = hold_votes(
            a_ballot("p", *answers), verifier="math", agreement=0.6, votes=3, limits=Verify()
        )
        return [(v.outcome, v.answer, v.agree, v.equal) for v in votes]

    assert outcome(random.Random(shuffle).sample(stated, len(stated))) == outcome(stated)


def test_votes_on_real_samples_are_nearly_always_right(data: Path) -> None:
    rows = json_lines(data / "outputs_qwen25math_rm_maj" / "math_cot_100.jsonl")
    ballots = [
        verdict
        for row in rows
        for verdict in a_ballot(str(row["idx"]), *map(final_answer, row["code"]))
    ]
    votes = hold_votes(ballots, verifier="math", agreement=0.75, votes=3, limits=Verify())
    assert Counter(vote.outcome for vote in votes) == {
        "voted": 91,
        "no_agreement": 5,
        "tied_vote": 4,
    }
    gold = {str(row["idx"]): row["gt"] for row in rows}
    pairs = [(gold[vote.problem_id], vote.answer) for vote in votes if vote.outcome == "voted"]
    right = check_math(pairs, limits=Verify(), tick=lambda _: None)
    assert sum(judgement.verdict == "correct" for judgement in right) == 89
