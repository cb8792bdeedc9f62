"""What the times of answers say, worked out by hand."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.serve.bench.asking import Answer
from cuvee.serve.bench.figures import Spread, cell, figures, percentile, spread, unusable


def answer(
    sent: float, pieces: list[float], *, tokens: int | None = None, prompt: int = 100
) -> Answer:
    made = len(pieces) if tokens is None else tokens
    return Answer(sent, tuple(pieces), prompt_tokens=prompt, tokens=made, finish_reason="length")


def test_one_answer_by_hand() -> None:
    # 100 tokens read in 2 s; then 4 more tokens in 2 s.
    found = figures([answer(10.0, [12.0, 12.5, 13.0, 13.5, 14.0])])
    assert found.prompt_per_second == 50
    assert found.each_per_second == 2
    assert found.all_per_second == 2
    assert found.overall_per_second == 5 / 4
    assert found.first_seconds == (2.0,)
    assert found.gap_seconds == (0.5,) * 4
    assert found.tokens_a_piece == 1


def test_two_answers_of_which_one_begins_later_by_hand() -> None:
    early = answer(0.0, [1.0, 2.0, 3.0, 4.0, 5.0])
    late = answer(0.0, [2.5, 3.5, 4.5, 5.5, 6.5])
    found = figures([early, late])
    assert found.prompt_per_second == 200 / 2.5
    assert found.each_per_second == 1
    # Both are generated from 2.5 to 5: 3, 4, 5 of the early and 3.5, 4.5 of the late one.
    assert found.all_per_second == 5 / 2.5
    assert found.overall_per_second == 10 / 6.5


def test_answers_one_after_the_other_have_no_speed_together() -> None:
    found = figures([answer(0, [1.0, 2.0, 3.0]), answer(0, [4.0, 5.0, 6.0])])
    assert found.all_per_second is None
    assert cell([found]).all_per_second is None


def test_a_piece_of_several_tokens_counts_as_so_many() -> None:
    found = figures([answer(0, [1.0, 2.0, 3.0, 4.0], tokens=12)])
    assert found.tokens_a_piece == 3
    assert found.each_per_second == 3  # 9 tokens after the first piece, in 3 s
    assert found.all_per_second == 3


def test_what_was_read_before_does_not_count_as_read() -> None:
    one = dataclasses.replace(answer(0, [1.0, 2.0, 3.0]), cached_tokens=60)
    assert figures([one]).prompt_per_second == 40


def test_a_cell_is_the_median_of_its_repeats_and_its_p95_that_of_all_answers() -> None:
    rounds = [figures([answer(0, [wait, wait + 1, wait + 3])]) for wait in (1.0, 4.0, 2.0)]
    found = cell(rounds)
    assert found.first_seconds == Spread(2.0, 1.0, 4.0)
    assert found.first_seconds_p95 == 4.0
    assert found.prompt_per_second == Spread(50, 25, 100)
    assert found.gap_seconds == Spread(1.5, 1.5, 1.5)
    assert found.gap_seconds_p95 == 2
    assert found.answers == 3


def test_the_95th_percentile_is_the_19th_of_20_values() -> None:
    assert percentile(list(range(1, 21)), 95) == 19
    assert percentile(list(range(1, 22)), 95) == 20
    assert percentile([3.0], 95) == 3.0


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_spread_and_percentile_are_within_what_was_seen(values: list[float]) -> None:
    found = spread(values)
    assert found.low <= found.median <= found.high
    assert percentile(values, 95) in values
    assert sum(value <= percentile(values, 95) for value in values) >= 0.95 * len(values)


GOOD = answer(0, [1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("bad", "forced", "said"),
    [
        (Answer(0, failed="HTTP 500: no"), True, "1 of 2 answers: HTTP 500: no"),
        (answer(0, [1, 2, 3], tokens=2), True, "2 tokens where 3 were asked for"),
        (answer(0, [1, 2]), False, "2 tokens in 2 pieces: too few"),
        (answer(0, [1, 1, 1]), True, "all pieces of the answer came at once"),
        (dataclasses.replace(GOOD, cached_tokens=100), True, "the whole prompt before"),
    ],
)
def test_what_says_no_speed_is_no_number(bad: Answer, forced: bool, said: str) -> None:
    assert unusable([GOOD, GOOD], tokens=3, forced=forced) is None
    assert said in (unusable([GOOD, bad], tokens=3, forced=forced) or "")


def test_a_shorter_answer_counts_where_its_length_cannot_be_forced() -> None:
    assert unusable([answer(0, [1, 2, 3])], tokens=9, forced=False) is None


def test_reasons_are_counted() -> None:
    bad = [Answer(0, failed="a"), Answer(0, failed="a"), Answer(0, failed="b")]
    assert unusable([*bad, GOOD], tokens=3, forced=True) == "3 of 4 answers: a (1 otherwise)"
