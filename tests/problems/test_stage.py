"""The stage on small recipes, run task by task as the pipeline runs them."""

import contextlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cuvee.errors import DataError
from cuvee.problems.stage import tasks
from cuvee.recipe import parse_recipe
from cuvee.records import Dropped, Problem, read_rows
from cuvee.runfolder import Run, execute, is_done, read_manifest

SUM = {"source": "generator:arithmetic", "count": 60}


def open_run(path: Path, domains: Mapping[str, Any], **keys: Any) -> Run:
    teacher = {"name": "t", "scripted": {}}
    data = {"name": "r", "base": "random:two-layer", "teachers": [teacher], **keys}
    return Run(path, parse_recipe({**data, "domains": dict(domains)}, where="test"))


def run_all(run: Run) -> dict[str, Mapping[str, Any]]:
    with contextlib.ExitStack() as resources:
        return {task.name: execute(run, task) for task in tasks(run, resources)}


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def reasons(run: Run, name: str) -> Counter[str]:
    return Counter(row.reason for row in read_rows(run.dropped("problems", name), Dropped))


def test_everything_left_out_is_a_row_with_its_reason(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"question": "What is 2 + 2?", "answer": "4"},
        {"question": "what is 2+2", "answer": "4"},
        {"question": "What is 3 + 3?", "answer": None},
        {"question": "What is 5 + 5?", "answer": "10"},
        {"question": "Prove it.", "answer": "proof"},
        {"question": "Which?", "answer": "\\frac{"},
    ]
    source = write_lines(tmp_path / "p.jsonl", rows)
    held_out = write_lines(tmp_path / "b.jsonl", [{"question": "What is $5+5$", "answer": "10"}])
    run = open_run(
        tmp_path / "run",
        {"m": {"verifier": "math", "problems": [{"source": source}]}},
        evaluate={"benchmarks": {"b": {"domain": "m", "problems": {"source": held_out}}}},
    )
    counts = run_all(run)
    assert [p.question for p in read_rows(run.problems("m"), Problem)] == ["What is 2 + 2?"]
    expected = {"exact_duplicate": 1, "no_gold": 1, "gold_is_proof": 1, "in_benchmark": 1}
    found = reasons(run, "m")
    assert found.total() == 5
    assert expected.items() <= found.items()
    assert set(found) - set(expected) <= {"gold_not_checkable", "gold_not_verified"}
    assert counts["m"]["problems"] == 1
    assert counts["m"]["dropped"] == dict(sorted(found.items()))
    details = [d.detail for d in read_rows(run.dropped("problems", "m"), Dropped)]
    assert any((detail or "").startswith("b ") for detail in details)


def test_a_second_run_does_nothing_and_a_changed_source_file_reruns_its_task(
    tmp_path: Path,
) -> None:
    row = {"question": "What is 2 + 2?", "answer": "4"}
    source = write_lines(tmp_path / "p.jsonl", [row])
    domains = {
        "m": {"verifier": "math", "problems": [{"source": source}]},
        "n": {"verifier": "math", "problems": [SUM]},
    }
    run = open_run(tmp_path / "run", domains)
    run_all(run)
    with contextlib.ExitStack() as resources:
        listed = tasks(run, resources)
    manifest = read_manifest(run.path)
    assert [is_done(run, task, manifest) for task in listed] == [True, True]
    write_lines(tmp_path / "p.jsonl", [row, {"question": "What is 9?", "answer": "9"}])
    assert [is_done(run, task, manifest) for task in listed] == [False, True]


def test_settings_leave_out_what_cannot_change_the_rows(tmp_path: Path) -> None:
    def settings(**keys: Any) -> list[Any]:
        domains = {"m": {"verifier": "math", "problems": [SUM], **keys.pop("domain", {})}}
        run = open_run(tmp_path, domains, **keys)
        with contextlib.ExitStack() as resources:
            return [task.settings for task in tasks(run, resources)]

    plain = settings()
    assert settings(verify={"processes": 2}) == plain
    assert settings(train={"epochs": 1}) == plain
    assert settings(domain={"select": {"tokens": [1, 9]}}) == plain
    assert settings(verify={"math_seconds": 1}) != plain
    assert settings(limit=3) != plain
    assert settings(domain={"prompt": "Say: {question}"}) != plain


def test_limit_caps_domains_and_benchmarks_and_is_shared_among_sources(tmp_path: Path) -> None:
    sources = [SUM, {**SUM, "seed": 1}, {**SUM, "seed": 2}]
    run = open_run(
        tmp_path,
        {"m": {"verifier": "math", "problems": sources}},
        limit=8,
        evaluate={"benchmarks": {"b": {"domain": "m", "problems": {**SUM, "seed": 9}}}},
    )
    counts = run_all(run)
    assert counts["benchmarks/b"]["problems"] == 8
    assert counts["m"]["problems"] + sum(counts["m"]["dropped"].values()) == 8


def test_benchmarks_come_first_and_may_share_a_domains_name(tmp_path: Path) -> None:
    run = open_run(
        tmp_path,
        {"sums": {"verifier": "math", "problems": [SUM]}},
        evaluate={"benchmarks": {"sums": {"domain": "sums", "problems": {**SUM, "seed": 5}}}},
    )
    with contextlib.ExitStack() as resources:
        listed = tasks(run, resources)
    assert [task.name for task in listed] == ["benchmarks/sums", "sums"]
    assert len({path for task in listed for path in task.outputs}) == 4
    run_all(run)
    held_out = {p.id for p in read_rows(run.benchmark("sums"), Problem)}
    assert not held_out & {p.id for p in read_rows(run.problems("sums"), Problem)}


def test_a_benchmark_keeps_what_is_published_but_copies_and_failing_golds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[dict[str, Any]] = [
        {"question": "What is 2 + 2?", "answer": "4"},
        {"question": "What is 2 + 2?", "answer": "4"},
        {"question": "what is 2+2", "answer": "4"},
        {"question": "Which?", "answer": None},
    ]
    source = {"source": write_lines(tmp_path / "b.jsonl", rows)}
    run = open_run(
        tmp_path / "run",
        {"m": {"verifier": "math", "problems": [{**SUM, "count": 5}]}},
        evaluate={"benchmarks": {"b": {"domain": "m", "problems": source}}},
    )
    counts = run_all(run)
    assert counts["benchmarks/b"]["problems"] == 2
    assert reasons(run, "benchmarks/b") == {"exact_duplicate": 1, "no_gold": 1}
    assert "benchmark b: 1 no_gold left out" in capsys.readouterr().err


@pytest.mark.sandbox
def test_reference_programs_are_run_and_a_wrong_one_drops_its_problem(tmp_path: Path) -> None:
    tests = {"kind": "function", "fn_name": "f", "cases": [{"args": [2], "expected": 4}]}
    rows: list[dict[str, Any]] = [
        {"question": "f doubles", "tests": tests, "gold": "def f(x):\n    return 2 * x"},
        {"question": "f triples", "tests": tests, "gold": "def f(x):\n    return 3 * x"},
        {"question": "f has no program", "tests": tests},
    ]
    source = {"source": write_lines(tmp_path / "c.jsonl", rows)}
    run = open_run(tmp_path / "run", {"c": {"verifier": "code", "problems": [source]}})
    counts = run_all(run)
    kept = [p.question for p in read_rows(run.problems("c"), Problem)]
    assert kept == ["f doubles", "f has no program"]
    assert counts["c"]["gold_not_checked"] == 1
    (dropped,) = read_rows(run.dropped("problems", "c"), Dropped)
    assert dropped.reason == "gold_not_verified"
    assert "3 * x" in (dropped.detail or "")


def test_problems_without_a_verifier_stay(tmp_path: Path) -> None:
    source = {"source": write_lines(tmp_path / "n.jsonl", [{"prompt": "Why is the sky blue?"}])}
    run = open_run(tmp_path / "run", {"n": {"verifier": "none", "problems": [source]}})
    assert run_all(run)["n"] == {
        "problems": 1,
        "dropped": {},
        "filtered": 0,
        "gold_not_checked": 1,
    }


def test_nothing_left_is_an_error_that_says_why(tmp_path: Path) -> None:
    source = {"source": write_lines(tmp_path / "n.jsonl", [{"question": "a", "answer": "proof"}])}
    run = open_run(tmp_path / "run", {"m": {"verifier": "math", "problems": [source]}})
    with pytest.raises(DataError, match=r"m.parquet: no problem is left \(1 gold_is_proof\)"):
        run_all(run)
    assert not run.problems("m").exists()
    assert reasons(run, "m") == {"gold_is_proof": 1}


def test_a_missing_source_file_is_named(tmp_path: Path) -> None:
    source = {"source": str(tmp_path / "gone.jsonl")}
    run = open_run(tmp_path / "run", {"m": {"verifier": "math", "problems": [source]}})
    with pytest.raises(DataError, match=r"gone.jsonl: no such file"):
        run_all(run)
