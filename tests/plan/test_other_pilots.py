"""A pilot whose answers are others than the planned ones: what is taken of it, and scaled how."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cuvee.plan.estimate import estimate
from cuvee.plan.measured import NOTHING_YET, About, Answers, Measured, Selected
from cuvee.plan.reading import read
from cuvee.plan.rows import Plan
from cuvee.recipe import Recipe, parse_recipe
from cuvee.records import Dropped, Example, Trace, Verdict, write_rows
from cuvee.runfolder import Run

from .test_about import API, MACHINE, row, value

RUBRIC = {"rubric": {"teacher": "jo", "samples": 3}}
JUDGE = {"verifier": "judge", "judge": "jo"}
PILOT = Selected(right=(0.5, 0.5, 1.0, 0.0), answers=8, all_answers=8)
"""Of four problems with two answers each."""


def recipe(
    domain: Mapping[str, Any] | None = None, *, samples: int = 2,
    teacher: Mapping[str, Any] | None = None, more: tuple[Mapping[str, Any], ...] = (),
    **changes: Any,
) -> Recipe:  # fmt: skip
    """Return a recipe of 100 problems that `ann` answers, and those of `more`; `jo` is asked."""
    source = {"source": "generator:arithmetic", "count": 100}
    data = {
        "name": "r",
        "base": "random:two-layer",
        "domains": {"sums": {"problems": [source], "verifier": "math",
                             "select": {"tokens": [1, 4000]}, **(domain or {})}},
        "teachers": [
            {"name": "ann", "samples": samples, **API, **(teacher or {})},
            *more,
            {"name": "jo", "domains": [], **API},
        ],
        **changes,
    }  # fmt: skip
    return parse_recipe(data, where="test")


def pilot(kind: About, *each: float, selected: Selected | None = PILOT) -> Measured:
    """Return what a pilot says of which so much was asked about each problem's answers."""
    asked = Answers(
        requests=round(sum(each)), prompt=(), completion=(), seconds=(), wall=1.0, around=0.0,
        usd=None, each=each,
    )  # fmt: skip
    found = {} if selected is None else {"sums": selected}
    return dataclasses.replace(
        NOTHING_YET, limit=len(each), about={(kind, "sums"): asked}, selected=found
    )


def planned(recipe: Recipe, measured: Measured, *assume: str) -> Plan:
    return estimate(recipe, measured=measured, assume=assume, machine=MACHINE)


@pytest.mark.parametrize(("samples", "requests"), [(1, 75), (2, 150), (6, 450)])
def test_a_judge_is_asked_about_the_pilot_s_share_of_as_many_answers_as_are_planned(
    samples: int, requests: float
) -> None:
    plan = planned(recipe(JUDGE, samples=samples), pilot("judge", 2, 1, 2, 1))  # 6 of 8
    assert value(row(plan, "verify", "sums").requests) == pytest.approx(requests)


def test_a_judge_s_share_is_assumed_where_the_pilot_s_answers_are_not_taken() -> None:
    measured = pilot("judge", 2, 1, 2, 1, selected=None)
    plan = planned(recipe(JUDGE, samples=6), measured, "judged_rate=0.5")
    assert value(row(plan, "verify", "sums").requests) == 300
    unsaid = row(planned(recipe(JUDGE, samples=6), measured), "verify", "sums").requests
    assert unsaid is not None and unsaid.origin == "assumed"


@pytest.mark.parametrize(("samples", "requests"), [(1, 150), (2, 300), (6, 900)])
def test_grades_are_the_pilot_s_share_of_as_many_answers_as_are_planned(
    samples: int, requests: float
) -> None:
    plan = planned(recipe(RUBRIC, samples=samples), pilot("rubric", 3, 3, 6, 0))  # 4 of 8, thrice
    graded = row(plan, "verify", "rubric/sums").requests
    assert value(graded) == pytest.approx(requests)
    assert graded is not None and graded.origin == "measured"


def test_grades_follow_the_pass_rate_where_the_pilot_s_answers_are_not_taken() -> None:
    measured = pilot("rubric", 3, 3, 6, 0, selected=None)
    plan = planned(recipe(RUBRIC, samples=6), measured, "pass_rate=0.25")
    assert value(row(plan, "verify", "rubric/sums").requests) == 100 * 6 * 0.25 * 3


def test_a_pilot_without_rounds_does_not_say_how_many_grades_further_rounds_take() -> None:
    plan = planned(recipe(RUBRIC, rounds={"most": 3}), pilot("rubric", 3, 3, 6, 0))
    answers = sum(value(each.requests) for each in plan.rows if each.stage == "teach")
    assert answers > 200
    # More than the pilot's first round; but what is asked again is harder than what is not.
    graded = value(row(plan, "verify", "rubric/sums").requests)
    assert 300 < graded < answers * 0.5 * 3


def test_grades_of_a_pilot_with_the_same_rounds_are_taken_as_they_are() -> None:
    seen = dataclasses.replace(PILOT, all_answers=10, usable=((1, 1, 1, 0), (1, 1, 1, 1)))
    measured = pilot("rubric", 3, 3, 6, 3, selected=seen)
    rounds = {"most": 2, "min_examples": 1}
    plan = planned(recipe(RUBRIC, rounds=rounds), measured)
    assert value(row(plan, "teach", "round-2/sums/ann").requests) == pytest.approx(50)
    assert value(row(plan, "verify", "rubric/sums").requests) == pytest.approx(15 / 4 * 100)
    # Without the second round: 4 of the 8 answers of the first are right.
    first = row(planned(recipe(RUBRIC), measured), "verify", "rubric/sums")
    assert value(first.requests) == pytest.approx(300)


def _folder(tmp_path: Path, recipe: Recipe) -> Path:
    """Write a pilot of two problems: of one a trace is right, of the other both; one each taken."""
    folder = tmp_path / "run"
    run = Run(folder, recipe)
    traces = [
        Trace(f"t{n}", f"p{n // 2}", "sums", "ann", n % 2, "", "", "stop", 10, 40, 4.0, "", None,
              None)
        for n in range(4)
    ]  # fmt: skip
    write_rows(run.traces("sums", "ann"), traces, Trace)
    verdicts = [
        Verdict(t.id, t.problem_id, "sums", "wrong" if t.id == "t0" else "correct", "equal",
                None, None, None, "math-verify", 0.0)
        for t in traces
    ]  # fmt: skip
    write_rows(run.verdicts("sums"), verdicts, Verdict)
    taken = (("t1", "p0"), ("t2", "p1"))
    examples = [Example(t, p, "sums", "ann", "", "", "", 40) for t, p in taken]
    write_rows(run.examples("sums"), examples, Example)
    dropped = [Dropped("t0", "sums", "trace", "ann", "wrong", None)]
    write_rows(run.dropped("select", "sums"), dropped, Dropped)
    (folder / "MANIFEST.json").write_text(json.dumps({"tasks": {}}))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(json.loads(recipe.model_dump_json())))
    return folder


def test_a_pilot_of_the_same_teachers_is_taken_whole(tmp_path: Path) -> None:
    folder = _folder(tmp_path, recipe(limit=2))
    elsewhere = {"name": "bo", "domains": [], **API}
    for whole in (recipe(), recipe(more=(elsewhere,)), recipe(teacher={"concurrency": 3})):
        found = read(folder, whole)
        assert found.selected["sums"].right == (0.5, 1.0)
        assert found.selected["sums"].usable == ((1.0, 1.0),)
        assert not found.notes


def test_with_other_samples_the_pass_rate_is_taken_and_the_examples_are_not(
    tmp_path: Path,
) -> None:
    whole = recipe(samples=8)
    found = read(_folder(tmp_path, recipe(limit=2)), whole)
    assert found.selected["sums"].right == (0.5, 1.0)
    assert found.selected["sums"].usable == ()
    assert found.notes == (
        "sums: examples a problem not measured: its teachers' samples differ",
    )  # fmt: skip
    (expected,) = planned(whole, found).expected
    assert expected.pass_rate.origin == "measured"
    assert expected.examples is not None and expected.examples.origin == "assumed"


@pytest.mark.parametrize(
    ("whole", "note"),
    [
        (recipe(more=({"name": "bo", **API},)),
         "sums: pass rate and examples not measured: its teachers differ"),
        (recipe(teacher={"name": "bo"}),
         "sums: pass rate and examples not measured: its teachers differ"),
        (recipe(teacher={"system": "Be brief."}),
         "ann: not measured: the model or its sampling differs"),
    ],
    ids=["one more", "another", "asked otherwise"],
)  # fmt: skip
def test_of_other_teachers_or_asked_otherwise_neither_is_taken(
    whole: Recipe, note: str, tmp_path: Path
) -> None:
    found = read(_folder(tmp_path, recipe(limit=2)), whole)
    assert not found.selected
    assert found.notes == (note,)
    (expected,) = planned(whole, found).expected
    assert expected.pass_rate.origin == "assumed"
