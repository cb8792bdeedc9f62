"""Filters of what the reasoning says: hand-worked shares, wordings that count and that do not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.select.prose import (
    answers_early,
    copied,
    copied_share,
    foreign,
    gives_up,
    script_share,
)

from .conftest import a_trace, reason

TEXTS = st.text(max_size=200) | st.text("ab我们 \\boxed{}`$\n", max_size=200)


@pytest.mark.parametrize(
    ("text", "language", "share"),
    [
        ("so it is", "en", 1.0),
        ("so it 我们", "en", 0.5),
        ("so it 我们", "zh", 0.5),
        ("das heißt für uns", "en", 1.0),
        ("это", "en", 0.0),
        ("한국", "en", 0.0),
        ("12 + 30 = 42", "en", None),
        ("", "zh", None),
        ("设 x = 3，则 y 为 a", "zh", 1.0),
        ("设 $x = \\frac{1}{2}$，则 `len(x)` 为\\alpha", "zh", 1.0),
        ("so α + β ≤ 𝑥 ∈ ℝ holds", "en", 1.0),
        ("cⁿ > aⁿ + b², so", "en", 1.0),
        ("```python\nfor x in range(3): pass\n```\n我们", "zh", 1.0),
    ],
)
def test_the_share_of_a_script_is_of_words_of_prose(
    text: str, language: str, share: float | None
) -> None:
    assert script_share(text, language) == share


def test_a_paragraph_in_another_language_is_not_hidden_by_its_few_characters() -> None:
    english = "Let us now compute the remaining area step by step. " * 20  # 200 words
    chinese = "我们先仔细读一遍题目" * 5  # 50 words, a twentieth of the letters
    assert script_share(english + chinese, "en") == pytest.approx(200 / 250)


def test_a_second_language_is_objected_to_beyond_the_share() -> None:
    mixed = a_trace(reasoning="two words 我们")
    assert foreign(mixed, language="en", least=0.5) is None
    found = foreign(mixed, language="en", least=0.51)
    assert found is not None
    assert (found.reason, found.detail) == ("language", "0.50 of the words are en, 0.51 wanted")
    assert foreign(mixed, language="any", least=1.0) is None


def test_the_answer_may_be_in_any_language() -> None:
    assert foreign(a_trace(answer="答案是 22"), language="en", least=1.0) is None


def test_copying_is_the_share_of_grams_that_are_the_question_s() -> None:
    question = "one two three four five six seven eight nine"  # 2 grams
    assert copied_share(question, question) == 1.0
    assert copied_share("ONE two three four five six seven eight", question) == 1.0
    # 16 words, 9 grams, of which 2 are the question's.
    assert copied_share(f"{question} a b c d e f g", question) == pytest.approx(2 / 9)
    assert copied_share("too short to say", question) == 0.0
    assert copied_share(question, "short") == 0.0
    trace = a_trace(reasoning=question)
    assert reason(copied(trace, question, most=0.99)) == "copied"
    assert copied(trace, question, most=1.0) is None


@pytest.mark.parametrize(
    "end",
    [
        "I give up.",
        "Then I'll just guess 5.",
        "I'm just guessing here.",
        "So my best guess is 5.",
        "I still don't know how to go on, so 5.",
        "I was unable to determine x.",
        "we cannot determine f(0).",
        "这道题我不会做，只能猜 5。",
    ],
)
def test_giving_up_at_the_end_is_objected_to(end: str) -> None:
    assert reason(gives_up(a_trace(reasoning=f"Let x be 3. {end}"))) == "gives_up"
    assert reason(gives_up(a_trace(answer=f"{end} \\boxed{{5}}"))) == "gives_up"
    overcome = f"{end} Wait: " + "and so on, step by step; " * 20
    assert gives_up(a_trace(reasoning=overcome)) is None


@pytest.mark.parametrize(
    "honest",
    [
        "The original 5 children then give up and leave, so 3 are left.",
        "Their average guess is 51.",
        "If he gave up $10 for each orange, he gave up $240.",
        "The sign cannot be determined from this, so both are possible.",
        "I'm stuck. Let me try to structure it: 4 + 5 = 9.",
        "I do not know x yet, so let it be a variable.",
    ],
)
def test_what_others_do_and_what_is_overcome_is_not_giving_up(honest: str) -> None:
    assert gives_up(a_trace(reasoning=honest, answer=honest)) is None


@pytest.mark.parametrize(
    ("reasoning", "share"),
    [
        ("\\boxed{5}" + "x" * 91, 0.0),
        ("x" * 50 + "\\boxed {5}" + "x" * 40, 0.5),
        ("x" * 50 + "\\fbox{a}" + "x" * 42, 0.5),
        ("\\boxed{}, \\boxed{...}, \\boxed{your answer}, \\boxed{\\text{yes}} x", None),
        ("\\boxed{\\phantom{2}} x", None),
        ("no box", None),
    ],
)
def test_an_early_answer_is_a_box_with_something_in_it(reasoning: str, share: float | None) -> None:
    trace = a_trace(reasoning=reasoning)
    assert reason(answers_early(trace, "?", least=0.6)) == (
        None if share is None else "answers_early"
    )
    assert answers_early(trace, "?", least=share or 0.0) is None


def test_boxes_of_the_question_are_not_answers() -> None:
    trace = a_trace(reasoning="\\boxed{3}x + 2")
    assert answers_early(trace, "Fill in: $\\boxed{\\phantom{2}}x$", least=0.5) is None


@given(TEXTS, TEXTS)
def test_shares_are_shares_whatever_the_text(text: str, question: str) -> None:
    for language in ("en", "zh"):
        share = script_share(text, language)
        assert share is None or 0 <= share <= 1
    assert 0 <= copied_share(text, question) <= 1
    trace = a_trace(reasoning=text, answer=question)
    assert copied(trace, question, most=1.0) is None
    assert answers_early(trace, question, least=0.0) is None
