"""Repetition: shares worked by hand, loops found at the end, and both in linear time."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.select.repetition import (
    LOOP_CHARACTERS,
    LOOP_TIMES,
    loop_period,
    repeated_share,
    repetitive,
)

from .conftest import a_trace, reason

CHINESE = "我们先仔细读一遍题目，弄清楚每一步要做什么。"


def test_the_share_of_repeated_grams_worked_by_hand() -> None:
    assert repeated_share("one two three four five six seven") == 0, "no 8-gram"
    # 16 words, 9 grams; the last equals the first.
    assert repeated_share("a b c d e f g h " * 2) == pytest.approx(1 / 9)
    assert repeated_share("a b c d e f g h " * 10) == pytest.approx(1 - 8 / 73)
    assert repeated_share("一二三四五六七八" * 2) == pytest.approx(1 / 9), "characters are words"
    assert repeated_share("一二三四五六七八" + "a b") == 0


@given(st.lists(st.sampled_from(["a", "b", "ab", "我", "C"]), max_size=60))
def test_the_share_is_that_of_a_plain_count(words: list[str]) -> None:
    lowered = [word.lower() for word in words]
    grams = [tuple(lowered[start : start + 8]) for start in range(len(lowered) - 7)]
    plain = 1 - len(set(grams)) / len(grams) if grams else 0.0
    assert repeated_share(" ".join(words)) == pytest.approx(plain)


@pytest.mark.parametrize(
    ("text", "period"),
    [
        ("I wait. " * 40, 8),
        ("Well: " + "abc" * 50, 3),
        ("Well: " + "abc" * 50 + "ab", 3),
        (CHINESE * 6, len(CHINESE)),
        ("".join(f"{number} is not prime, " for number in range(150)) * 5, 2590),
        ("abc" * 20, None),
        ("I wait. " * 40 + "So the answer is 22, which I checked.", None),
        ("The same long sentence of quite a few words. " * 3, None),
        ("", None),
    ],
)
def test_a_loop_at_the_end_is_found_with_its_period(text: str, period: int | None) -> None:
    assert loop_period(text) == period


@given(st.text("abc \n", min_size=1, max_size=40), st.text("xyz ", max_size=100))
def test_whatever_repeats_long_enough_is_a_loop(unit: str, before: str) -> None:
    looped = before + unit * (2 * LOOP_CHARACTERS // len(unit) + 8)
    if len("".join(unit.split())) == len(unit):  # without spaces, so none are folded
        period = loop_period(looped)
        assert period is not None
        assert period <= len(unit)


@given(st.text("ab", max_size=20), st.text("ab", max_size=60), st.integers(1, 30))
def test_a_loop_is_what_a_plain_search_calls_one(before: str, unit: str, times: int) -> None:
    text = before + unit * times
    plain = [
        period
        for period in range(1, len(text) // LOOP_TIMES + 1)
        if (size := max(LOOP_CHARACTERS, LOOP_TIMES * period)) <= len(text)
        and text[-size:-period] == text[period - size :]
    ]
    assert loop_period(text) == min(plain, default=None)


def test_loops_and_repeated_grams_are_objected_to() -> None:
    assert repetitive(a_trace(), most=0.0) is None
    many = repetitive(a_trace(reasoning="a b c d e f g h " * 2), most=0.1)
    assert reason(many) == "repetition"
    loop = repetitive(a_trace(reasoning="abc" * 50), most=1.0)
    assert loop is not None
    assert (loop.reason, loop.detail) == ("loop", "ends in a loop of 3 characters")


@pytest.mark.parametrize(
    "text",
    [
        "ab" * 50_000 + "c",
        "".join(f"{number}" + "x" * 30 for number in range(3_000)),
        "step by step we go on; " * 4_500,
        " ".join(str(number) for number in range(17_000)),
    ],
)
def test_a_hundred_thousand_characters_take_a_fraction_of_a_second(text: str) -> None:
    begin = time.process_time()
    repetitive(a_trace(reasoning=text), most=1.0)
    assert time.process_time() - begin < 0.5, "about 0.02 s on a quiet core"
