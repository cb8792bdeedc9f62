"""Corrected p-values, and what is said of the best of several tries."""

import dataclasses

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cuvee.search.held_apart import HeldApart
from cuvee.search.shown import best_yaml, conclusions
from cuvee.search.tried import Result, Tried, holm

from .conftest import problem

HELD = [HeldApart("math", (problem("What is 1 + 1?", "2"),), 3, 0, 1)]
SCORE = Result(mean=0.5, low=0.4, high=0.6, n_problems=100, n_samples=100)
OWN = Tried(
    name="arcee_fusion-0",
    section={"method": "arcee_fusion", "order": ["a", "b"], "anchor": "later"},
    own=True,
    overall=SCORE,
    domains={"math": SCORE},
    p_corrected=None,
    seconds=1.0,
)


def better(low: float, p_value: float, corrected: float) -> Tried:
    """Return a candidate 10 points above the recipe's own."""
    found = dataclasses.replace(
        SCORE,
        mean=0.6,
        difference=0.1,
        difference_low=low,
        difference_high=0.2 - low,
        p_value=p_value,
        problems_needed=400 if low < 0 else None,
    )
    section = {"method": "linear", "order": ["a", "b"], "parameters": {"weight": 1.0}}
    return dataclasses.replace(
        OWN,
        name="linear-1",
        section=section,
        own=False,
        overall=found,
        p_corrected=corrected,
    )


def test_holm_by_hand() -> None:
    # Sorted 0.01 x 4, 0.02 x 3, 0.03 x 2 (0.06, as before), 0.9 x 1.
    assert holm([0.02, 0.9, 0.01, 0.03]) == pytest.approx([0.06, 0.9, 0.04, 0.06])
    assert holm([]) == []
    assert holm([0.6, 0.7]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), max_size=20))
def test_corrected_p_values_keep_the_order_and_lie_between_p_and_bonferroni(
    p_values: list[float],
) -> None:
    corrected = holm(p_values)
    for p, c in zip(p_values, corrected, strict=True):
        assert p <= c <= 1
        assert c <= min(1.0, len(p_values) * p) + 1e-12 or c == max(
            x for q, x in zip(p_values, corrected, strict=True) if q <= p
        )
    pairs = sorted(zip(p_values, corrected, strict=True))
    assert [c for _, c in pairs] == sorted(corrected)


def test_where_the_recipes_own_is_the_best_there_is_nothing_to_change() -> None:
    said = " ".join(conclusions([OWN, better(-0.05, 0.3, 0.6)], HELD))
    assert "nothing to change" in said
    assert "winner's curse" not in said


def test_where_the_recipes_own_has_no_score_nothing_is_compared() -> None:
    own = dataclasses.replace(OWN, overall=dataclasses.replace(SCORE, mean=None))
    alone = dataclasses.replace(OWN, own=False)
    said = " ".join(conclusions([alone, own], HELD))
    assert "1 without a score" in said
    assert "nothing is compared" in said
    assert "nothing to change" not in said


def test_a_best_whose_interval_contains_0_is_not_told_from_the_recipes_own() -> None:
    said = " ".join(conclusions([better(-0.02, 0.12, 0.12), OWN], HELD))
    assert "the interval contains 0, so it is not distinguishable" in said
    assert "About 400 problems would tell" in said
    assert "winner's curse" in said


def test_a_best_that_fails_the_correction_is_not_told_from_the_recipes_own() -> None:
    row = better(0.01, 0.03, 0.21)
    assert not row.stands_out
    said = " ".join(conclusions([row, OWN], HELD))
    assert "corrected p is 0.2100, above 0.05" in said
    assert "not distinguishable" in said


def test_a_best_that_stands_out_is_still_called_too_high() -> None:
    row = better(0.05, 0.0004, 0.0028)
    assert row.stands_out
    said = " ".join(conclusions([row, OWN], HELD))
    assert "p is 0.0028: it stands out" in said
    assert "winner's curse" in said


def test_best_yaml_is_the_section_below_what_is_to_be_known_of_it() -> None:
    row = better(-0.02, 0.12, 0.12)
    text = best_yaml(row, conclusions([row, OWN], HELD))
    assert yaml.safe_load(text) == {"merge": dict(row.section)}
    assert text.startswith("# 1 candidate beside")
    assert "not distinguishable" in text
