"""Golds of every verifier are checked before a token is bought."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cuvee.problems.stage import tasks
from cuvee.recipe import parse_recipe
from cuvee.records import Dropped, Problem, read_rows
from cuvee.runfolder import Run, execute

ADD = {"kind": "function", "fn_name": "f", "cases": [{"args": [1, 2], "expected": 3}]}
CHOICES = ["Paris", "Rome", "Oslo", "Bern"]


def run_of(tmp_path: Path, rows: list[dict[str, Any]], **domain: Any) -> Run:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = parse_recipe(
        {
            "name": "test",
            "base": "random:two-layer",
            "domains": {"d": {"problems": [{"source": str(file)}], **domain}},
            "teachers": [{"name": "t", "url": "http://127.0.0.1:9/v1", "model": "m"}],
        },
        where="test",
    )
    run = Run(tmp_path / "run", recipe)
    (task,) = tasks(run, ExitStack())
    execute(run, task)
    return run


def results(run: Run) -> tuple[list[Problem], list[str]]:
    dropped = read_rows(run.dropped("problems", "d"), Dropped)
    return read_rows(run.problems("d"), Problem), [row.reason for row in dropped]


def test_the_gold_of_a_choice_is_a_letter_and_the_choices_are_asked(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"question": "The capital of Italy?", "choices": CHOICES, "answer": 1},
        {"question": "The capital of Norway?", "choices": CHOICES, "answer": "Oslo"},
        {"question": "Of Switzerland? (A) Bern (B) Basel", "answer": "(A)"},
        {"question": "Which city lies in Peru?", "choices": CHOICES, "answer": "Lima"},
        {"question": "Which one is the oldest of them?", "choices": CHOICES, "answer": 9},
        {"question": "Which one is the youngest?", "choices": CHOICES, "answer": None},
    ]
    kept, reasons = results(run_of(tmp_path, rows, verifier="choice"))
    assert [problem.gold for problem in kept] == ["B", "C", "(A)"]
    lines = kept[0].question.splitlines()
    assert lines == ["The capital of Italy?", "", "A. Paris", "B. Rome", "C. Oslo", "D. Bern"]
    assert kept[2].question == rows[2]["question"]
    assert kept[0].prompt.endswith(r"within \boxed{}.")
    assert sorted(reasons) == ["gold_not_verified", "gold_not_verified", "no_gold"]


def test_golds_of_a_judge_are_kept_and_counted_as_not_checked(tmp_path: Path) -> None:
    rows = [{"question": "Why is the sky blue?", "answer": "Rayleigh scattering"}]
    run = run_of(tmp_path, rows, verifier="judge", judge="t")
    kept, reasons = results(run)
    assert [problem.gold for problem in kept] == ["Rayleigh scattering"]
    assert reasons == []
    manifest = json.loads((run.path / "MANIFEST.json").read_text())
    assert manifest["tasks"]["problems/d"]["counts"]["gold_not_checked"] == 1


def test_golds_of_math_must_be_mathematics_that_equals_itself(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"question": "How much is one half and one quarter?", "answer": r"\frac{3}{4}"},
        {"question": "What do you think of prime numbers?", "answer": "#### 1,000"},
        {"question": "A gold nobody reads, an unclosed thing", "answer": r"\frac{"},
    ]
    kept, reasons = results(run_of(tmp_path, rows, verifier="math"))
    assert [problem.gold for problem in kept] == [r"\frac{3}{4}", "1000"]
    assert len(reasons) == 1


@pytest.mark.sandbox
def test_programs_that_fail_their_own_tests_are_dropped(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"question": "Add two numbers.", "tests": ADD, "code": "def f(a, b):\n    return a + b"},
        {"question": "Give the sum of both.", "tests": ADD, "code": "def f(a, b):\n    return 4"},
    ]
    kept, reasons = results(run_of(tmp_path, rows, verifier="code"))
    assert [problem.gold for problem in kept] == ["def f(a, b):\n    return a + b"]
    assert reasons == ["gold_not_verified"]
