import pytest

from cuvee.verify.answers import choice_letter
from cuvee.verify.choice import check_choice


@pytest.mark.parametrize(
    ("gold", "stated", "verdict"),
    [
        ("B", "B", "correct"),
        ("B", "b", "correct"),
        ("(B)", r"\text{B}", "correct"),
        ("B", "Ｂ", "correct"),
        ("B", r"\textbf{(B)}\ 12", "correct"),
        ("B. Paris", "B", "correct"),
        ("B", "C", "wrong"),
        ("B", "12", "wrong"),
        ("B", "", "wrong"),
        ("Paris", "B", "not_checked"),
        ("", "B", "not_checked"),
    ],
)
def test_letters_are_compared(gold: str, stated: str, verdict: str) -> None:
    assert check_choice(gold, stated).verdict == verdict


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        (r"\boxed{A}? No: \boxed{B}", "B"),
        ("The answer is (B).", "B"),
        ("The correct answer is option C", "C"),
        ("**Answer: C) Paris**", "C"),
        ("The answer is B because", "B"),
        ("答案是Ｂ。", "B"),
        ("故选：D", "D"),
        ("So:\n\n**(E)**", "E"),
        ("The answer is a matter of taste.", None),
        ("The answer is A man a plan", None),
        (r"\boxed{d = 5}", None),
        (r"\boxed{12}", None),
        ("<think>The answer is B.</think>I am not sure.", None),
        ("Options (A) and (B) are both plausible.", None),
        ("", None),
    ],
)
def test_the_chosen_letter_of_a_reply(text: str, letter: str | None) -> None:
    assert choice_letter(text) == letter
