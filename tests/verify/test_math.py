import json
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.recipe import Verify
from cuvee.verify.answers import final_answer
from cuvee.verify.judgement import Judgement
from cuvee.verify.math import check_math, compare

SLOW = "10^{10^{10}}"
"""What math-verify does not finish with in any time."""


def check(*pairs: tuple[str, str], math_seconds: float = 20) -> list[Judgement]:
    limits = Verify(math_seconds=math_seconds, processes=1)
    return check_math(pairs, limits=limits, tick=lambda _: None)


TABLE = [
    # gold, answer, reason: each false friend beside its true one
    (r"3\sqrt{13}", "3", "different"),
    (r"3\sqrt{13}", r"\sqrt{117}", "equal"),
    (r"12\pi", "12", "different"),
    (r"1 \pm \sqrt{19}", "1", "different"),
    ("3, 5, 7", "7", "different"),
    ("3, 5, 7", "7, 5, 3", "equal"),
    ("1/2", "0.5", "equal"),
    ("1/2", "0.4", "different"),
    (r"\frac{1}{3}", "0.33", "different"),
    ("33", "033", "equal"),
    ("033", "33", "equal"),
    ("33", "33.0", "equal"),
    ("1000", "1,000", "equal"),
    (r"\text{even}", "even", "equal"),
    (r"\text{even}", r"\text{odd}", "different"),
    ("5", "x=5", "equal"),
    (r"90^\circ", "90", "equal"),
    ("(1,2)", "(2,1)", "different"),
    (r"\{1,2\}", r"\{2,1\}", "equal"),
    ("5", "", "different"),
    ("", "5", "unusable_gold"),
    (r"\frac", "5", "unusable_gold"),
]


@pytest.fixture(scope="module")
def judged() -> list[Judgement]:
    return check(*((gold, answer) for gold, answer, _ in TABLE))


@pytest.mark.parametrize("row", range(len(TABLE)), ids=lambda i: f"{TABLE[i][0]} {TABLE[i][1]}")
def test_answers_are_compared_as_mathematics(row: int, judged: list[Judgement]) -> None:
    gold, answer, reason = TABLE[row]
    verdict = {"equal": "correct", "different": "wrong"}.get(reason, "not_checked")
    judgement = judged[row]
    assert (judgement.verdict, judgement.reason) == (verdict, reason)
    assert (judgement.expected, judgement.extracted) == (gold, answer)


def test_in_a_thread_a_pair_that_never_ends_costs_its_own_row_alone() -> None:
    pairs = [("1/2", "0.5"), ("3", SLOW), ("x+1", "1+x"), ("x", "y")]
    found: list[Judgement] = []
    thread = threading.Thread(target=lambda: found.extend(check(*pairs, math_seconds=3)))
    thread.start()
    thread.join()
    assert [j.reason for j in found] == ["equal", "math_timeout", "equal", "different"]
    assert found[1].verdict == "not_checked"
    assert 3 <= found[1].seconds < 10


def test_equal_pairs_are_compared_once_and_counted_each() -> None:
    ticks: list[int] = []
    pairs = [("1", "1"), ("1/2", "0.5"), ("1/2", "0.5"), ("2", "3")]
    judged = check_math(pairs, limits=Verify(processes=1), tick=ticks.append)
    assert sum(ticks) == len(pairs)
    assert judged[1] is judged[2]  # compared once


number = st.from_regex(r"\A[+-]?[0-9]{1,9}(\.[0-9]{1,6})?\Z")


@settings(max_examples=30, deadline=None)
@given(number, number)
def test_plain_numbers_are_judged_as_math_verify_does(gold: str, answer: str) -> None:
    pairs = [(gold, answer), (gold, gold)]
    quick = check_math(pairs, limits=Verify(), tick=lambda _: None)
    assert [j.checker for j in quick] == ["number", "number"]
    assert [j.reason for j in quick] == [compare(*pair)["reason"] for pair in pairs]


def stated_in(solution: str) -> str | None:
    return final_answer(solution.replace("\nA: ", "\n#### "))  # as this data set writes it


def test_a_sample_of_published_labels_is_reproduced(data: Path) -> None:
    path = data / "outputs_gsm8k_openai_models" / "example_model_solutions.jsonl"
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for _, line in zip(range(200), file, strict=False)]
    pairs, labels = [], []
    for row in rows:
        gold = stated_in(row["ground_truth"])
        for name in ("175b_verification", "6b_finetuning"):
            stated = stated_in(row[name]["solution"])
            if gold is not None and stated is not None:
                pairs.append((gold, stated))
                labels.append(row[name]["is_correct"])
    assert len(pairs) > 300
    judged = check(*pairs)
    differing = [
        (pair, label)
        for pair, label, judgement in zip(pairs, labels, judged, strict=True)
        if (judgement.verdict == "correct") != label
    ]
    assert differing == []
