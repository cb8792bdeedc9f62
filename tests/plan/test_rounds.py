"""Further rounds in a plan: hand-worked shares, and how they agree with one long round."""

import dataclasses
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.pipeline import run_stages
from cuvee.plan.estimate import estimate
from cuvee.plan.reading import read
from cuvee.plan.rounds import Course, Step, foretell
from cuvee.plan.yields import yield_of
from cuvee.recipe import parse_recipe
from cuvee.records import count_rows
from cuvee.runfolder import Run

from .test_about import MACHINE, asked_in, planned, row, value

ONE = Step(1, None)
PLAIN = Course(first=1, steps=(ONE, ONE), places=1, enough=1, target=None, least=0.0,
               usd_per_example=None)  # fmt: skip


def shares(course: Course, *, chance: float, alike: float) -> list[tuple[float, float]]:
    return [(each.asked, each.new) for each in foretell(course, chance=chance, alike=alike)]


def test_each_round_asks_what_is_left_and_solves_its_share() -> None:
    assert shares(PLAIN, chance=0.5, alike=0.0) == [(0.5, 0.25), (0.25, 0.125)]
    # Half of the problems are all right or all wrong: a quarter is never solved.
    assert shares(PLAIN, chance=0.5, alike=0.5) == [(0.5, 0.125), (0.375, 0.0625)]
    assert shares(PLAIN, chance=0.5, alike=1.0) == []  # nothing new would come


def test_until_full_goes_on_where_until_solved_has_ended() -> None:
    two = dataclasses.replace(PLAIN, steps=(ONE,), places=2)
    assert shares(dataclasses.replace(two, enough=2), chance=0.5, alike=0.0) == [(1.0, 0.5)]
    assert shares(two, chance=0.5, alike=0.0) == [(0.5, 0.25)]


def test_a_target_asks_no_more_than_fill_it() -> None:
    course = dataclasses.replace(PLAIN, target=0.6)  # 0.5 after the first round
    (only,) = shares(course, chance=0.5, alike=0.0)
    assert only == pytest.approx((0.2, 0.1))
    assert shares(dataclasses.replace(PLAIN, target=0.4), chance=0.5, alike=0.0) == []


def test_a_round_that_does_not_pay_is_not_begun() -> None:
    assert shares(dataclasses.replace(PLAIN, least=0.2), chance=0.5, alike=0.0) == [(0.5, 0.25)]
    dear = dataclasses.replace(PLAIN, steps=(Step(1, 1.0),), usd_per_example=2.1)
    assert len(shares(dear, chance=0.5, alike=0.0)) == 1  # $0.5 for 0.25 examples: $2 each
    assert shares(dataclasses.replace(dear, usd_per_example=1.9), chance=0.5, alike=0.0) == []


def test_what_a_pilot_has_counted_stands_in() -> None:
    seen = dataclasses.replace(PLAIN, seen=((0.0, 1.0, 1.0, 1.0),))
    # A quarter is left; as likely hopeless as not, as both kinds left 0.25 of the problems.
    assert shares(seen, chance=0.5, alike=0.5)[0] == (0.25, 0.0625)
    both = dataclasses.replace(PLAIN, seen=((0.0, 0.0, 1.0, 1.0), (0.0, 1.0, 1.0, 1.0)))
    assert shares(both, chance=0.5, alike=0.0) == [(0.5, 0.25), (0.25, 0.125)]


@given(
    st.lists(st.integers(1, 4), min_size=2, max_size=5), st.integers(1, 4),
    st.floats(0.01, 0.99), st.floats(0, 1),
)  # fmt: skip
def test_rounds_until_full_give_what_as_many_answers_at_once_would(
    samples: list[int], places: int, chance: float, alike: float
) -> None:
    course = Course(
        first=samples[0], steps=tuple(Step(n, None) for n in samples[1:]), places=places,
        enough=places, target=None, least=0.0, usd_per_example=None,
    )  # fmt: skip
    rounds = foretell(course, chance=chance, alike=alike)
    found = yield_of(chance, samples[0], places, alike=alike) + sum(each.new for each in rounds)
    assert found == pytest.approx(yield_of(chance, sum(samples), places, alike=alike), abs=1e-6)
    assert all(0 <= each.new <= each.usable + 1e-9 for each in rounds)
    asked = [1.0, *(each.asked for each in rounds)]
    assert all(later <= before + 1e-9 for before, later in pairwise(asked))


def test_rounds_are_rows_of_their_own_with_requests_examples_and_hours() -> None:
    select = {"tokens": [100, 300], "target": 90}
    plain = planned({"select": select})
    plan = planned({"select": select}, rounds={"most": 3, "samples": [1]})
    # Two answers at 0.5: a quarter is left of 100, half of that after one more.
    second, third = row(plan, "teach", "round-2/sums/t"), row(plan, "teach", "round-3/sums/t")
    assert value(second.requests) == pytest.approx(25)
    # 87.5 are there: of 12.5 that are left five are asked, for the 2.5 that are missing.
    assert value(third.requests) == pytest.approx(5)
    assert value(plan.expected[0].examples) == pytest.approx(90)
    assert value(plan.total.requests) == pytest.approx(230)
    assert row(plan, "verify", "round-2/sums").tasks == ("verify/round-2/sums",)
    assert row(plan, "select", "sums").note == "230 answers"
    # Rounds come after one another: their hours add up.
    both = value(second.hours) + value(third.hours) + value(row(plan, "teach", "sums/t").hours)
    assert value(plan.total.hours) - value(plain.total.hours) >= both - value(
        row(plain, "teach", "sums/t").hours
    )


@pytest.mark.slow
def test_a_run_with_rounds_is_measured_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = {"source": "generator:arithmetic", "count": 16, "seed": 1}
    data = {
        "name": "r",
        "base": "random:two-layer",
        "ledger": str(tmp_path / "ledger.sqlite"),
        "domains": {
            "sums": {"problems": [source], "verifier": "math", "select": {"tokens": [1, 4000]}}
        },
        "teachers": [
            {"name": "ann", "scripted": {"http_faults": 0.0, "skill": 0.4,
                                         "faults": ["wrong_result"]}},
        ],
        "rounds": {"most": 3},
    }  # fmt: skip
    recipe = parse_recipe(data, where="test")
    run_stages(recipe, tmp_path / "run", ("problems", "teach", "verify", "select"))
    found = read(tmp_path / "run", recipe)
    plan = estimate(recipe, measured=found, assume=(), machine=MACHINE)
    assert not found.notes
    asked = {each.name: value(each.requests) for each in plan.rows if each.stage == "teach"}
    assert len(asked) > 1  # at such a skill some are left after the first round
    assert sum(asked.values()) == pytest.approx(asked_in(tmp_path / "ledger.sqlite"))
    taken = Run(tmp_path / "run", recipe).examples("sums")
    assert value(plan.expected[0].examples) == pytest.approx(count_rows(taken))
    assert {each.done for each in plan.rows if each.stage in ("teach", "verify")} == {True}
