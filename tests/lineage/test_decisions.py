"""Every filter's decision follows from the first objection and the order of the filters."""

import pytest

from cuvee.lineage.decisions import decisions
from cuvee.records import Dropped
from cuvee.select.objection import FILTERS, REASONS


def dropped(reason: str) -> Dropped:
    return Dropped("1", "d", "trace", "t", reason, "measured 3")


def test_a_chosen_trace_passed_every_filter() -> None:
    assert [(d.filter, d.outcome) for d in decisions(None)] == [(f, "passed") for f in FILTERS]


@pytest.mark.parametrize("reason", REASONS)
def test_before_an_objection_all_passed_and_after_it_none_was_asked(reason: str) -> None:
    found = decisions(dropped(reason))
    assert [decision.filter for decision in found] == list(FILTERS)
    outcomes = [decision.outcome for decision in found]
    place = outcomes.index("dropped")
    assert outcomes[:place] == ["passed"] * place
    assert outcomes[place + 1 :] == ["not reached"] * (len(FILTERS) - place - 1)
    assert reason in FILTERS[found[place].filter]
    assert (found[place].reason, found[place].detail) == (reason, "measured 3")


def test_a_reason_of_no_filter_says_nothing_of_the_others() -> None:
    [only] = decisions(dropped("of_tomorrow"))
    assert (only.filter, only.outcome, only.reason) == ("of_tomorrow", "dropped", "of_tomorrow")
