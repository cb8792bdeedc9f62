"""Rounds, grades and refining in report and cards: counted by hand and escaped."""

import dataclasses
import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cuvee.errors import DataError
from cuvee.lineage.shelves import domain_shelf
from cuvee.recipe import parse_recipe
from cuvee.records import Trace, Verdict, dumps, iter_values, write_rows
from cuvee.release.card import render_card
from cuvee.release.facts import Facts
from cuvee.release.gather import gather
from cuvee.release.graded import Traced, count_graded
from cuvee.release.refined import count_refined
from cuvee.release.report import render_report
from cuvee.release.stage import tasks
from cuvee.rounds.record import Attempt, Round, attempts_file, round_file, write_round
from cuvee.runfolder import Run
from cuvee.select.refine.rows import Refined
from cuvee.serve.facts import ServingFacts
from cuvee.verify.judge_rubric import Grade

from .conftest import build_run, recipe_data
from .test_browser import LOOK
from .test_report import Page

POINTS = ["Every <b>step</b> is true."]
ROUND = Round(
    number=1, asked=12, requests=36, failed=1, checked=30, right=20, fit=11, new_examples=9,
    examples=9, usd=0.9, tokens=900, next_asked=3, next_requests=9, next_expected=1.5,
    next_usd=0.2, stop="", why="3 problems are asked again",
)  # fmt: skip
LAST = dataclasses.replace(
    ROUND, number=2, asked=3, requests=9, failed=0, checked=0, right=0, fit=0, new_examples=0,
    usd=None, next_asked=0, stop="too_few", why="0.2 new <i>examples</i> are expected\u202e",
)  # fmt: skip


def a_recipe(**changes: Any) -> Any:
    data = recipe_data()
    data["domains"]["math"] |= {
        "rubric": {"teacher": "carol", "points": POINTS},
        "refine": {"teacher": "carol", "least_share": 0.3},
    }
    return parse_recipe({**data, "rounds": {"most": 3}, **changes}, where="the test")


def refined_row(name: str, way: Any, reason: str, before: int, after: int | None) -> Refined:
    return Refined(
        name, "p", "math", "alice", way, reason == "refined", reason, "said <b>", before, after,
        None, dumps({"musing": 2} if way == "rules" else {}), None,
    )  # fmt: skip


REFINED = [
    refined_row("a", "rules", "refined", 100, 80),
    refined_row("a", "teacher", "refined", 80, 40),
    refined_row("b", "rules", "unchanged", 200, None),
    refined_row("b", "teacher", "refined", 200, 150),
    refined_row("c", "rules", "refined", 50, 45),
    refined_row("c", "teacher", "unsupported", 45, 20),
]


def grade(trace: str, value: float | None, reason: str = "graded") -> Grade:
    points = json.dumps([] if value is None else [value])
    return Grade(trace, "p", "math", value, value, points, reason, None, "carol", 1)


def write_all(run: Run) -> None:
    shelf = domain_shelf(run, "math")
    assert shelf.refined is not None
    assert shelf.grades is not None
    write_rows(shelf.refined, REFINED, Refined)
    rows = list(iter_values(run.traces("math", "alice"), ["id"]))
    values = [5.0, 4.5, 4.0, 1.0, None]
    reasons = ["graded"] * 4 + ["judge_unreadable"]
    graded = [grade(r["id"], v, why) for r, v, why in zip(rows, values, reasons, strict=False)]
    write_rows(shelf.grades, graded, Grade)
    for name in ("math", "code"):
        for number in (2, 3):
            for teacher in run.recipe.teachers_of(name):
                write_rows(run.traces(name, teacher.name, in_round=number), [], Trace)
            write_rows(run.verdicts(name, in_round=number), [], Verdict)
        write_round(round_file(run, name, 1), ROUND)
        for number in (2, 3):
            write_round(round_file(run, name, number), LAST)
        # Of the first problem one of two answers is right, of the second both.
        attempts = [
            Attempt(f"t{n}", f"p{n // 2}", "alice", True, n < 4, n in (0, 2, 3), None, 0.1, 9)
            for n in range(5)
        ]
        write_rows(attempts_file(run, name, 1), attempts, Attempt)
        for number in (2, 3):
            write_rows(attempts_file(run, name, number), [], Attempt)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = build_run(tmp_path_factory.mktemp("run") / "run", a_recipe(), problems=12, seed=0)
    write_all(made)
    return made


@pytest.fixture(scope="module")
def full(run: Run) -> Facts:
    return gather(run)


def text_of(facts: Facts) -> str:
    html = render_report(facts).replace("<br>", " ")
    return " ".join(Page(html).text.replace("\u00a0", " ").split())


def test_refining_is_counted_by_way_and_over_all(full: Facts) -> None:
    [refined] = full.refined
    assert (refined.domain, refined.teacher, refined.changed) == ("math", "carol", 3)
    assert refined.lengths is not None
    assert refined.lengths.before == (100, 200, 50)
    assert refined.lengths.after == (40, 150, 45)
    assert refined.lengths.sums == (350, 235)
    assert refined.lengths.medians == (100, 45)
    assert refined.lengths.shares == [40, 75, 90]
    rules, teacher = refined.ways
    assert (rules.tried, rules.accepted, rules.stayed) == (3, 2, {"unchanged": 1})
    assert rules.applied == {"musing": 4}
    assert rules.lengths is not None
    assert rules.lengths.sums == (150, 125)
    assert (teacher.accepted, teacher.stayed) == (2, {"unsupported": 1})
    assert teacher.lengths is not None
    assert teacher.lengths.sums == (280, 190)
    for way in refined.ways:
        assert way.accepted + sum(way.stayed.values()) == way.tried


def test_grades_are_counted_by_who_wrote_and_what_was_dropped_for_them(run: Run) -> None:
    traced = {
        "x1": Traced("alice", None), "x2": Traced("alice", "grade_low"),
        "x3": Traced("bob", "not_graded"), "x4": Traced("bob", "not_graded"),
    }  # fmt: skip
    path = domain_shelf(run, "math").grades
    assert path is not None
    kept = path.read_bytes()
    try:
        rows = [grade("x1", 4.5), grade("x2", 1.0), grade("x3", None, "judge_failed")]
        write_rows(path, rows, Grade)
        [graded] = count_graded(run, {"math": traced, "code": {}})
    finally:
        path.write_bytes(kept)
    alice, bob, carol = graded.teachers
    assert (alice.asked, alice.grades) == (2, {1: 1, 2: 0, 3: 0, 4: 1, 5: 0})
    assert (alice.mean, alice.not_graded, alice.below, alice.without) == (2.75, {}, 1, 0)
    assert (bob.asked, bob.mean, bob.not_graded) == (1, None, {"judge_failed": 1})
    assert (bob.below, bob.without) == (0, 2)
    assert carol.asked == 0
    assert (graded.judge, graded.least, graded.ranked) == ("carol", None, False)


def test_a_round_has_the_mean_over_problems_and_its_interval(full: Facts) -> None:
    first, last = full.rounds["math"]
    assert first.right is not None
    assert first.right.mean == pytest.approx(0.75)  # of a half and a whole, one unchecked apart
    assert 0 < first.right.low < 0.75 < first.right.high <= 1
    assert (first.expected, last.expected) == (None, 1.5)
    assert last.right is None


def test_the_report_says_all_of_it(full: Facts) -> None:
    text = text_of(full)
    assert "left out: musing 4" in text
    assert "unsupported 1" in text
    assert "all examples 3 3 350 235 67.1 % 100 45" in text
    assert "graded by carol; nothing goes by it" in text
    assert "alice 5 1 0 0 2 1 3.62 1 judge unreadable 1 —" in text
    assert "round 1 12 36 1 failed 75.0 %" in text
    assert "0 1.5 expected 9 no price" in text
    assert "Then it ended (too_few): 0.2 new <i>examples</i> are expectedU+202E" in text
    assert "Where examples are refined" in text


def test_with_a_least_grade_what_was_dropped_for_it_is_shown(full: Facts) -> None:
    [graded] = full.graded
    alice = dataclasses.replace(graded.teachers[0], below=3, without=2)
    stricter = dataclasses.replace(graded, least=4.0, ranked=True, teachers=(alice,))
    text = text_of(dataclasses.replace(full, graded=(stricter,)))
    assert "graded by carol; least 4; the best are taken" in text
    assert "5 grade low 3 without a grade 2" in text


def test_a_domain_without_examples_or_rows_has_a_page_too(run: Run, full: Facts) -> None:
    path = domain_shelf(run, "math").refined
    assert path is not None
    kept = path.read_bytes()
    try:
        write_rows(path, [], Refined)
        [empty] = count_refined(run)
        assert (empty.lengths, empty.ways) == (None, ())
        assert "all examples 0 0 —" in text_of(dataclasses.replace(full, refined=(empty,)))
        write_rows(path, [dataclasses.replace(REFINED[0], applied="[1]")], Refined)
        with pytest.raises(DataError, match="applied"):
            list(count_refined(run))
    finally:
        path.write_bytes(kept)


def test_without_the_keys_there_is_none_of_it(facts: Facts) -> None:
    assert (facts.refined, facts.graded, facts.rounds) == ((), (), {})
    html = render_report(facts)
    for name in ("rounds", "graded", "refined"):
        assert f'id="{name}"' not in html
        assert f'href="#{name}"' not in html


def test_the_model_card_says_how_examples_were_chosen(
    full: Facts, facts: Facts, serving: ServingFacts
) -> None:
    text = render_card(full, serving)
    assert (
        "- **Rounds in math:** 2; after the first one problems were asked again that were not "
        "solved, or not full: 12 problems brought 9 examples, then 3 problems brought 0 examples."
    ) in text
    assert "- **Grades in math:** carol graded the reasoning of 5 traces by a rubric;" in text
    assert (
        "- **Refined in math:** 3 of 3 examples, from 350 to 235 tokens in all: by rules 2, by the "
        "teacher carol 2. What did not hold up stayed as its teacher wrote it."
    ) in text
    plain = render_card(facts, serving)
    assert not {"**Rounds", "**Grades", "**Refined"} & set(plain.split())


def test_report_and_cards_depend_on_the_files(run: Run, tmp_path: Path) -> None:
    shelf = domain_shelf(run, "math")
    found = {task.name: task for task in tasks(run, ExitStack())}
    wanted = {shelf.grades, shelf.refined, round_file(run, "code", 3)}
    for name in ("report", "card", "data_card"):
        assert wanted <= set(found[name].inputs), name
    plain = Run(tmp_path, parse_recipe(recipe_data(), where="the test"))
    for task in tasks(plain, ExitStack()):
        if task.name in ("card", "data_card"):
            assert "rounds" not in task.settings


def test_nothing_is_wider_than_a_phone(browser: Callable[..., dict[str, Any]], full: Facts) -> None:
    found = browser(render_report(full), 360, 850, 1200, look=LOOK)
    assert {width: seen["outside"] for width, seen in found.items() if seen["outside"]} == {}
    assert all(seen["scroll"] <= seen["screen"] for seen in found.values())
