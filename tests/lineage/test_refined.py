"""Grades and refining of a scripted run: told in explain and the lists, escaped, counted once."""

import dataclasses
import io
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from cuvee.errors import DataError
from cuvee.lineage.card_facts import card_facts, card_files
from cuvee.lineage.data_card import render_data_card
from cuvee.lineage.explain import explain
from cuvee.lineage.find import find_places
from cuvee.lineage.listing import list_run
from cuvee.lineage.requests import open_books
from cuvee.lineage.shelves import domain_shelf, open_run, shelves
from cuvee.lineage.tree import show
from cuvee.lineage.way import Way
from cuvee.records import Example, Trace, read_rows, write_rows
from cuvee.runfolder import Run
from cuvee.select.refine.rows import Refined
from cuvee.verify.judge_rubric import Grade

from .scripted_run import MUSING, plain, scripted_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return scripted_run(tmp_path_factory.mktemp("scripted"))


@pytest.fixture
def run(made: Run, tmp_path: Path) -> Run:
    """A copy to break."""
    shutil.copytree(made.path, tmp_path / "run")
    return dataclasses.replace(made, path=tmp_path / "run")


def ways(run: Run, wanted: str) -> list[Way]:
    opened = open_run(run.path)
    with open_books(opened) as books:
        return [explain(place, books) for place in find_places(shelves(opened), wanted)]


def told(way: Way) -> str:
    console = Console(width=300, file=io.StringIO())
    with console.capture() as printed:
        console.print(show(way, full=True))
    return printed.get()


def refined_rows(run: Run, **wanted: object) -> list[Refined]:
    path = domain_shelf(run, "sums").refined
    assert path is not None
    rows = read_rows(path, Refined)
    return [r for r in rows if all(getattr(r, key) == value for key, value in wanted.items())]


def test_an_example_is_told_with_what_rules_and_teacher_left_out(made: Run) -> None:
    row = refined_rows(made, way="teacher", accepted=True)[0]
    [way] = ways(made, row.id)
    [step] = way.steps
    assert step.refining is not None
    by_rules, by_teacher = step.refining.passes
    assert (by_rules.asked, by_rules.row.reason) == (None, "refined")
    assert dict(by_rules.applied) == {"musing": 2, "courtesy": 1}
    gone = [(c.part, c.gone.strip(), c.new) for c in by_rules.changes]
    assert gone == [
        ("reasoning", f"{MUSING}\n{MUSING}", ""),
        ("answer", "I hope this helps!", ""),
    ]
    assert [c.gone.strip() for c in by_teacher.changes] == [MUSING]
    assert by_teacher.asked is not None
    assert by_teacher.asked.trace.model == "rae"
    assert by_teacher.asked.request is not None
    assert by_teacher.asked.request.own
    assert step.refining.tokens_before == by_rules.row.tokens_before > step.refining.tokens
    assert step.refining.tokens == by_teacher.row.tokens == step.tokens
    text = told(way)
    assert f"refined {step.refining.tokens_before} -> {step.tokens} tokens" in text
    assert f"- {MUSING}" in text
    assert "answer - I hope this helps!" in text


def test_an_attempt_that_did_not_hold_up_says_why(made: Run) -> None:
    for row in refined_rows(made, way="teacher", accepted=False):
        [way] = ways(made, row.id)
        refining = way.steps[0].refining
        assert refining is not None
        by_rules, by_teacher = refining.passes
        assert by_teacher.changes == ()
        assert refining.tokens == by_rules.row.tokens
        assert f"teacher rae the text before stayed: {row.reason}" in told(way)


def test_changes_are_told_of_whichever_way_was_accepted(run: Run) -> None:
    """Of one example: the teacher's alone, then neither."""
    row = refined_rows(run, way="teacher", accepted=True)[0]
    path = domain_shelf(run, "sums").refined
    assert path is not None
    for refused in ({"rules"}, {"rules", "teacher"}):
        rows = [
            dataclasses.replace(r, accepted=r.accepted and r.way not in refused)
            if r.id == row.id
            else r
            for r in refined_rows(run)
        ]
        write_rows(path, rows, Refined)
        [way] = ways(run, row.id)
        refining = way.steps[0].refining
        assert refining is not None
        changed = {one.row.way for one in refining.passes if one.changes}
        assert changed == {"rules", "teacher"} - refused
    assert "not refined" in told(way)


def test_a_trace_is_told_with_its_grade_and_the_judge_s_words(made: Run) -> None:
    path = domain_shelf(made, "sums").grades
    assert path is not None
    for grade in read_rows(path, Grade)[:2]:
        [way] = ways(made, grade.trace_id)
        grading = way.steps[0].grading
        assert grading is not None
        assert grading.grade == grade
        assert [name for name, _ in grading.points] == ["Sums: each holds.", "Clarity: <b>all</b>."]
        assert [value for _, value in grading.points] == json.loads(grade.points)
        [answer] = grading.answers
        assert (answer.trace.model, answer.trace.problem_id) == ("jo", grade.trace_id)
        assert f"grade {grade.grade:g} of 5 (the lowest point) by jo" in told(way)
        assert "Point 1: " in told(way)


def test_what_was_not_graded_says_why_and_escaped(run: Run) -> None:
    path = domain_shelf(run, "sums").grades
    assert path is not None
    first, *rest = read_rows(path, Grade)
    broken = dataclasses.replace(
        first, grade=None, mean=None, points="[]", reason="judge_unreadable", detail="\x1b[2J[red]x"
    )
    write_rows(path, [broken, *rest], Grade)
    [way] = ways(run, first.trace_id)
    assert "none by jo: judge_unreadable" in told(way)
    assert "\\x1b[2J[red]x" in told(way)
    write_rows(path, [dataclasses.replace(first, points="{")], Grade)
    with pytest.raises(DataError, match=r"sums\.parquet: points '\{' of trace"):
        ways(run, first.trace_id)


def test_hostile_text_in_answers_and_changes_steers_no_terminal(made: Run) -> None:
    for row in refined_rows(made, way="teacher"):
        [way] = ways(made, row.id)
        assert not set(told(way)) & set("\x1b\u202e\u200b")
        assert "evil\\u202etxt" in told(way)


def test_the_answer_of_a_judge_or_a_refiner_leads_to_its_trace(made: Run) -> None:
    shelf = domain_shelf(made, "sums")
    for path, kind in ((shelf.grader, "judge"), (shelf.refiner, "refiner")):
        assert path is not None
        answer = read_rows(path, Trace)[-1]
        [way] = ways(made, answer.id)
        assert way.kind == kind
        assert [step.asked.trace.id for step in way.steps] == [answer.problem_id]
        assert f"a {kind}'s answer {answer.id}" in told(way)


def test_the_lists_count_grades_and_refining_with_ids(made: Run) -> None:
    found = list_run(shelves(made)).groups
    by_stage = {
        stage: {(g.outcome, g.reason): g.count for g in found if g.stage == stage}
        for stage in ("rubric", "select", "refine")
    }
    assert by_stage["rubric"] == {("graded", None): 24}
    assert by_stage["select"] == {("chosen", None): 12, ("dropped", "grade_low"): 12}
    assert by_stage["refine"] == Counter((r.way, r.reason) for r in refined_rows(made))
    [group] = list_run(shelves(made), reason="unsupported").groups
    assert set(group.ids) == {r.id for r in refined_rows(made, reason="unsupported")}
    of_ann = list_run(shelves(made), teacher="ann").groups
    assert [g for g in of_ann if g.stage == "refine"] == [g for g in found if g.stage == "refine"]


def test_a_choice_that_is_not_refined_yet_is_told_as_a_choice(run: Run) -> None:
    examples = read_rows(run.examples("sums"), Example)
    run.examples("sums").unlink()
    [way] = ways(run, examples[0].id)
    [step] = way.steps
    assert (step.chosen, step.refining) == (True, None)
    assert step.tokens is not None
    assert step.tokens > examples[0].tokens
    assert any("04_examples/sums.parquet: not there yet" in line for line in way.missing)


def test_without_the_keys_the_files_say_nothing(made: Run) -> None:
    shelf = domain_shelf(plain(made), "sums")
    assert (shelf.chosen, shelf.refined, shelf.refiner) == (None, None, None)
    assert (shelf.grades, shelf.grader, shelf.points) == (None, None, ())
    assert {g.stage for g in list_run([shelf]).groups} == {"problems", "teach", "verify", "select"}


def test_the_data_card_says_how_it_was_graded_and_refined(made: Run) -> None:
    facts = card_facts(made)
    by_teacher = facts.domains[0].counted("refine", outcome="teacher", reason="refined")
    assert by_teacher == len(refined_rows(made, way="teacher", accepted=True)) > 0
    assert facts.domains[0].unaccounted == 0
    text = render_data_card(facts)
    assert "was graded: the teacher jo read 24 traces and graded 2 points of each" in text
    assert "Traces with a point under 4, or without a grade, were left out." in text
    assert "Clarity: \\<b\\>all\\</b\\>." in text
    assert "repeats and courtesies in 12 of 12 examples; the reasoning of" in text
    assert f"the reasoning of {by_teacher} was restructured by the teacher rae" in text
    assert "| refine | rules | `refined` | 12 |" in text
    assert {path for path in card_files(made) if not path.exists()} == set()
