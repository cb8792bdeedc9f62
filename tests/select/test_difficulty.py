"""Difficulty: what counts as checked, the bands' ends, and the window of pass rates."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.select.difficulty import BANDS, Tally, off_pass_rate, tally

from .conftest import a_trace, a_verdict, reason


def test_failed_requests_and_what_was_not_checked_do_not_count() -> None:
    names: list[Any] = ["correct", "wrong", "no_answer", "not_checked", "no_answer"]
    verdicts = [a_verdict(a_trace(id=str(place)), name) for place, name in enumerate(names)]
    verdicts[-1] = dataclasses.replace(verdicts[-1], reason="request_failed")
    assert tally(verdicts) == {"p": Tally(right=1, checked=3)}
    assert tally(verdicts[3:]) == {"p": Tally(right=0, checked=0)}


@pytest.mark.parametrize(
    ("right", "checked", "band"),
    [
        (4, 4, "0.0-0.2"),
        (4, 5, "0.2-0.4"),
        (3, 4, "0.2-0.4"),
        (7, 10, "0.2-0.4"),
        (2, 5, "0.6-0.8"),
        (1, 5, "0.8-1.0"),
        (0, 5, "0.8-1.0"),
        (0, 0, "unknown"),
    ],
)
def test_a_band_has_its_lower_end_exactly(right: int, checked: int, band: str) -> None:
    assert Tally(right, checked).band == band


@given(st.integers(1, 1000), st.data())
def test_a_problem_lies_in_the_band_of_its_difficulty(checked: int, data: st.DataObject) -> None:
    found = Tally(data.draw(st.integers(0, checked)), checked)
    low, high = map(float, found.band.split("-"))
    assert found.band in BANDS
    assert found.pass_rate is not None
    assert low - 1e-9 <= 1 - found.pass_rate <= high + 1e-9


@pytest.mark.parametrize(
    ("right", "checked", "expected"),
    [
        (0, 8, "pass_rate_low"),
        (1, 8, "pass_rate_low"),
        (2, 8, None),
        (6, 8, None),
        (7, 8, "pass_rate_high"),
        (0, 0, None),
    ],
)
def test_the_window_of_pass_rates_includes_both_ends(
    right: int, checked: int, expected: str | None
) -> None:
    assert reason(off_pass_rate(Tally(right, checked), window=(0.25, 0.75))) == expected


def test_an_objection_says_how_many_were_right() -> None:
    found = off_pass_rate(Tally(1, 8), window=(0.25, 1))
    assert found is not None
    assert found.detail == "1 of 8 checked traces are right (0.12), at least 0.25 wanted"
