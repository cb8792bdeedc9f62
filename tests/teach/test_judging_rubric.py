"""Grading by a rubric from the recipe to the choice, through the scripted server."""

import dataclasses
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cuvee.errors import RecipeError
from cuvee.pipeline import stage_tasks
from cuvee.problems import arithmetic
from cuvee.recipe import Domain, Recipe, dump_recipe, parse_recipe
from cuvee.records import (
    Dropped,
    Example,
    Problem,
    Trace,
    Verdict,
    dumps,
    problem_id,
    read_rows,
    write_rows,
)
from cuvee.runfolder import Run, execute, is_done, read_manifest
from cuvee.teach.grading import grade_traces, grades_file, is_gradable
from cuvee.teach.scripted_rubric import graded, reply
from cuvee.verify.judge_rubric import Grade, Solution, read_grades, rubric_message


def recipe_of(tmp_path: Path, *, judge: dict[str, Any] | None = None, **domain: Any) -> Recipe:
    source = {"source": "generator:arithmetic", "count": 6}
    data = {
        "name": "test",
        "base": "random:two-layer",
        "ledger": str(tmp_path / "ledger.sqlite"),
        "domains": {"sums": {"problems": [source], "verifier": "math"} | domain},
        "teachers": [
            {"name": "ann", "scripted": {"http_faults": 0.0}},
            {"name": "jo", "domains": [], "scripted": {"http_faults": 0.0} | (judge or {})},
        ],
    }
    return parse_recipe(data, where="test")


def sums(count: int) -> list[Problem]:
    return [
        Problem(
            id=problem_id(item.question, item.gold, None),
            domain="sums",
            source="generator:arithmetic",
            question=item.question,
            prompt=item.question,
            verifier="math",
            gold=item.gold,
            tests=None,
            meta=dumps(item.meta),
        )
        for item in arithmetic.generate(count, seed=5, args={})
    ]


def a_trace(problem: Problem, sample: int, reasoning: str, **changes: Any) -> Trace:
    fields: dict[str, Any] = {
        "id": f"{problem.id}-{sample}",
        "problem_id": problem.id,
        "domain": "sums",
        "model": "ann",
        "sample": sample,
        "reasoning": reasoning,
        "answer": rf"So the answer is \boxed{{{problem.gold}}}.",
        "finish_reason": "stop",
        "prompt_tokens": None,
        "completion_tokens": None,
        "seconds": 0.0,
        "request": "r",
        "fingerprint": None,
        "error": None,
    }
    return Trace(**(fields | changes))


def a_verdict(trace: Trace, name: Any = "correct", reason: str = "equal") -> Verdict:
    return Verdict(trace.id, trace.problem_id, "sums", name, reason, None, None, None, "test", 0.0)


SOUND, UNSOUND = "We begin with 2 + 2 = 4 and go on.", "We begin with 2 + 2 = 5 and go on."


def filled(tmp_path: Path, recipe: Recipe, problems: list[Problem]) -> Run:
    """Return a run with a sound, an unsound, a wrong and a truncated trace of each problem."""
    run = Run(tmp_path / "run", recipe)
    write_rows(run.problems("sums"), problems, Problem)
    traces, verdicts = [], []
    for problem in problems:
        own = [
            a_trace(problem, 0, UNSOUND),
            a_trace(problem, 1, f"{SOUND} This one is longer."),
            a_trace(problem, 2, SOUND),
            a_trace(problem, 3, SOUND, finish_reason="length"),
        ]
        traces += own
        verdicts += [a_verdict(own[0]), a_verdict(own[1])]
        verdicts += [a_verdict(own[2], "wrong", "different"), a_verdict(own[3])]
    write_rows(run.traces("sums", "ann"), traces, Trace)
    write_rows(run.verdicts("sums"), verdicts, Verdict)
    return run


def grade_all(run: Run) -> dict[str, Any]:
    """Do the rubric's task alone; return its counts."""
    with ExitStack() as resources:
        tasks = stage_tasks(run, "verify", resources)
        assert [task.key for task in tasks] == ["verify/sums", "verify/rubric/sums"]
        counts = execute(run, tasks[1])
        assert is_done(run, tasks[1], read_manifest(run.path))
    return dict(counts)


RUBRIC = {"rubric": {"teacher": "jo"}}


def test_right_finished_traces_are_graded_and_the_judge_s_traces_kept(tmp_path: Path) -> None:
    problems = sums(3)
    run = filled(tmp_path, recipe_of(tmp_path, **RUBRIC), problems)
    counts = grade_all(run)
    assert counts == {"traces": 6, "graded": 6, "failed": 0, "refused": 0}
    grades = read_rows(grades_file(run, "sums"), Grade)
    assert [g.trace_id for g in grades] == [f"{p.id}-{n}" for p in problems for n in (0, 1)]
    assert [(g.grade, g.points) for g in grades[:2]] == [
        (1.0, "[1.0, 5.0, 5.0]"),
        (5.0, "[5.0, 5.0, 5.0]"),
    ]
    kept = read_rows(grade_traces(run, "sums"), Trace)
    assert [t.problem_id for t in kept] == [g.trace_id for g in grades]
    assert {t.model for t in kept} == {"jo"}
    assert len({t.id for t in kept}) == 6

    again = Run(tmp_path / "run", run.recipe)  # from the ledger: nothing is asked twice
    assert grade_all(again) == counts
    assert [t.seconds for t in read_rows(grade_traces(again, "sums"), Trace)] == [
        t.seconds for t in kept
    ]


def test_what_is_not_judged_is_counted_with_its_reason_and_has_no_grade(tmp_path: Path) -> None:
    faulty = {"skill": 0.5, "faults": ["no_answer"]}
    rubric = {"rubric": {"teacher": "jo", "samples": 1, "points": ["Every sum holds."]}}
    run = filled(tmp_path, recipe_of(tmp_path, judge=faulty, **rubric), sums(12))
    counts = grade_all(run)
    assert counts["graded"] + counts["judge_unreadable"] == counts["traces"] == 24
    assert 0 < counts["judge_unreadable"] < 24
    for grade in read_rows(grades_file(run, "sums"), Grade):
        assert (grade.grade is None) == (grade.reason != "graded")


def test_several_samples_make_one_grade(tmp_path: Path) -> None:
    faulty = {"skill": 0.5, "faults": ["wrong_result"]}
    rubric = {"rubric": {"teacher": "jo", "samples": 4}}
    run = filled(tmp_path, recipe_of(tmp_path, judge=faulty, **rubric), sums(4))
    assert grade_all(run)["traces"] == 8
    grades = read_rows(grades_file(run, "sums"), Grade)
    assert len(read_rows(grade_traces(run, "sums"), Trace)) == 32
    assert {g.samples for g in grades} == {4}
    assert {g.grade for g in grades} - {1.0, 5.0}, "the judge contradicted itself somewhere"


def select(run: Run) -> tuple[list[Example], dict[str, str]]:
    with ExitStack() as resources:
        (task,) = stage_tasks(run, "select", resources)
        execute(run, task)
        assert is_done(run, task, read_manifest(run.path))
    dropped = read_rows(run.dropped("select", "sums"), Dropped)
    return read_rows(run.examples("sums"), Example), {row.id[-1]: row.reason for row in dropped}


LOOSE = {"answer_after": 0, "max_copied": 1}


def test_the_least_grade_drops_what_is_below_and_what_has_none(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, **RUBRIC, select=LOOSE | {"rubric_min": 4})
    run = filled(tmp_path, recipe, sums(2))
    grade_all(run)
    examples, reasons = select(run)
    assert {example.id[-1] for example in examples} == {"1"}
    assert reasons == {"0": "grade_low", "2": "verdict_wrong", "3": "truncated"}
    grades = read_rows(grades_file(run, "sums"), Grade)
    without = [
        dataclasses.replace(g, grade=None, mean=None, reason="judge_failed")
        if g.trace_id == grades[1].trace_id
        else g
        for g in grades
    ]
    write_rows(grades_file(run, "sums"), without, Grade)
    examples, _ = select(run)
    rows = {row.id: row for row in read_rows(run.dropped("select", "sums"), Dropped)}
    assert rows[grades[1].trace_id].reason == "not_graded"
    assert len(examples) == 1


def test_the_best_is_chosen_before_the_shorter_and_what_was_not_graded_last(
    tmp_path: Path,
) -> None:
    recipe = recipe_of(tmp_path, **RUBRIC, select=LOOSE | {"policy": "best"})
    run = filled(tmp_path, recipe, sums(2))
    grade_all(run)
    examples, reasons = select(run)
    assert {example.id[-1] for example in examples} == {"1"}, "the longer one, soundly reasoned"
    assert reasons["0"] == "not_chosen"
    kept = [g for g in read_rows(grades_file(run, "sums"), Grade) if g.trace_id[-1] == "0"]
    write_rows(grades_file(run, "sums"), kept, Grade)
    assert {example.id[-1] for example in select(run)[0]} == {"0"}, "a low grade before none"


def test_a_recipe_without_a_rubric_is_what_it_was(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    assert "rubric:" not in dump_recipe(recipe)
    assert "rubric_min" not in dump_recipe(recipe)
    assert '"rubric"' not in json.dumps(recipe.model_dump(mode="json"))
    run = filled(tmp_path, recipe, sums(1))
    with ExitStack() as resources:
        assert [task.key for task in stage_tasks(run, "verify", resources)] == ["verify/sums"]
        (task,) = stage_tasks(run, "select", resources)
    assert grades_file(run, "sums") not in task.inputs
    ranked = recipe_of(tmp_path, **RUBRIC, select={"policy": "best"})
    assert parse_recipe(ranked.model_dump(mode="json"), where="again") == ranked


def test_a_rubric_that_is_not_used_in_the_choice_leaves_the_choice_alone(tmp_path: Path) -> None:
    with ExitStack() as resources:
        (plain,) = stage_tasks(Run(tmp_path, recipe_of(tmp_path)), "select", resources)
        (graded_,) = stage_tasks(Run(tmp_path, recipe_of(tmp_path, **RUBRIC)), "select", resources)
    assert (plain.inputs, plain.settings) == (graded_.inputs, graded_.settings)


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        ({"select": {"rubric_min": 4}}, "go by grades"),
        ({"select": {"policy": "best"}}, "go by grades"),
        ({"rubric": {"teacher": "max"}}, r"rubric.teacher: no teacher that can be asked is called"),
        ({"rubric": {"teacher": "jo", "points": []}}, "points"),
        ({"rubric": {"teacher": "jo", "points": ["two\nlines"]}}, "points"),
        ({"rubric": {"teacher": "jo", "points": [" "]}}, "points"),
        ({"rubric": {"teacher": "jo", "samples": 0}}, "samples"),
        ({"rubric": {"teacher": "jo"}, "select": {"rubric_min": 6}}, "rubric_min"),
    ],
)
def test_a_rubric_that_cannot_be_followed_is_refused(
    tmp_path: Path, domain: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe_of(tmp_path, **domain)


@pytest.mark.parametrize(
    ("verdict", "reason", "asked"),
    [
        ("correct", "equal", True),
        ("not_checked", "no_verifier", True),
        ("not_checked", "no_gold", True),
        ("not_checked", "math_timeout", False),
        ("wrong", "different", False),
        ("no_answer", "no_final_answer", False),
    ],
)
def test_who_is_asked_about(verdict: Any, reason: str, asked: bool) -> None:
    (problem,) = sums(1)
    assert is_gradable(a_verdict(a_trace(problem, 0, SOUND), verdict, reason)) is asked


def test_the_scripted_judge_checks_sums_and_can_be_read() -> None:
    points = Domain.model_validate(
        {"problems": [{"source": "x"}], "verifier": "none", "rubric": {"teacher": "jo"}}
    ).rubric
    assert points is not None
    for text, sound in ((SOUND, True), (UNSOUND, False), ("No sums.", True), ("3 - 5 = -2", True)):
        message = rubric_message(Solution("t", "p", "d", "?", text), points.points)
        assert graded(message) == (sound, 3)
    for sound, fault, grades in (
        (True, "none", (5, 5, 5)),
        (False, "none", (1, 5, 5)),
        (True, "wrong_result", (1, 5, 5)),
        (True, "no_answer", None),
    ):
        said = reply(sound=sound, points=3, fault=fault)
        assert read_grades(said.content, 3) == grades
    assert graded("What is 2 + 2?") is None
