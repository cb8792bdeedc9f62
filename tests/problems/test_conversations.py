"""Instructions, turns and replies, by hand and by chance."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.problems.conversations import (
    INSTRUCTIONS,
    MARKERS,
    first_exchange,
    split_reply,
    without_instruction,
)
from cuvee.problems.items import Answered

PIECES = st.sampled_from(
    [mark for marks in MARKERS for mark in marks]
    + ["<think>", "</think>", "<answer>", "</answer>", "a", " ", "\n", "\\boxed{1}"]
)


@pytest.mark.parametrize("instruction", INSTRUCTIONS)
@pytest.mark.parametrize("form", ["{} {}", "{}{}", "{}\n\n{}"])
def test_every_instruction_is_taken_off_at_both_ends(instruction: str, form: str) -> None:
    assert without_instruction(form.format(instruction, "What is 6 times 7?")) == (
        "What is 6 times 7?"
    )
    assert without_instruction(form.format("What is 6 times 7?", instruction)) == (
        "What is 6 times 7?"
    )


def test_an_instruction_alone_or_within_a_question_stays() -> None:
    for instruction in INSTRUCTIONS:
        assert without_instruction(instruction) == instruction
        inside = f"The text '{instruction}' has how many words?"
        assert without_instruction(inside) == inside


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>\na\n</think>\n\nb", Answered("a", "b", "stop")),
        ("a</think>b", Answered("a", "b", "stop")),
        ("<think>\na", Answered("a", "", "length")),
        ("b", Answered("", "b", "stop")),
        ("", Answered("", "", "stop")),
        ("<think>a</think>", Answered("a", "", "stop")),
        ("<think>a</think> <answer> b </answer>", Answered("a", "b", "stop")),
        ("<|begin_of_thought|>a", Answered("a", "", "length")),
        ("<|begin_of_thought|>a<|end_of_thought|>b", Answered("a", "b", "stop")),
        ("x<Thought>a</Thought><Output>b</Output>", Answered("a", "b", "stop")),
    ],
)
def test_a_reply_is_split_into_reasoning_and_answer(text: str, expected: Answered) -> None:
    assert split_reply(text) == expected


@given(st.lists(PIECES, max_size=12).map("".join))
def test_any_reply_is_split_and_only_an_open_one_is_cut(text: str) -> None:
    answered = split_reply(text)
    assert answered.reasoning == answered.reasoning.strip()
    assert answered.answer == answered.answer.strip()
    if answered.finish_reason == "length":
        assert answered.answer == ""


def test_a_reply_counts_only_where_it_follows_the_question_at_once() -> None:
    turns = [
        {"role": "assistant", "content": "Hi, I am ..."},
        {"role": "user", "content": "Q"},
        {"role": "tool", "content": "42"},
        {"role": "assistant", "content": "A"},
    ]
    exchange = first_exchange(turns, "x")
    assert (exchange.question, exchange.reply, exchange.later) == ("Q", None, 2)
