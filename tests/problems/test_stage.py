"""The stage on small recipes, run task by task as the pipeline runs them."""

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cuvee.errors import DataError
from cuvee.problems.stage import tasks
from cuvee.recipe import parse_recipe
from cuvee.records import Dropped, Problem, Trace, content_hash, read_rows
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
    assert all((detail or "").startswith(f"{source} p.jsonl, line ") for detail in details)
    assert any(": b " in (detail or "") for detail in details)


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
    assert len({path for task in listed for path in task.outputs}) == 3 + 4
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


def published(run: Run, name: str) -> list[Trace]:
    return read_rows(run.published(name), Trace)


def record(run: Run, name: str) -> list[dict[str, Any]]:
    listed = json.loads(run.sources(name).read_text(encoding="utf-8"))
    assert isinstance(listed, list)
    return listed


def told_run(tmp_path: Path, rows: Sequence[Mapping[str, Any]], **domain: Any) -> Run:
    source = {"source": write_lines(tmp_path / "t.jsonl", rows), "traces": "r1"}
    teachers = [{"name": "r1", "published": True}]
    section = {"problems": [source], "verifier": "math", **domain}
    return open_run(tmp_path / "run", {"m": section}, teachers=teachers)


def solved(question: str, *texts: str, answer: str | None = "2") -> dict[str, Any]:
    return {"problem": question, "answer": answer, "generations": list(texts)}


def test_published_traces_of_kept_problems_are_written_and_numbered(tmp_path: Path) -> None:
    rows = [
        solved("What is 1 + 1?", "<think>\na\n</think>\n\\boxed{2}", "<think>\nb"),
        solved("What is 1 + 1?", "<think>\nc\n</think>\n\\boxed{2}", ""),
        solved("what is 1+1", "<think>\nd\n</think>\n\\boxed{2}"),
        solved("Prove that there is no largest one.", "<think>\ne\n</think>", answer="proof"),
    ]
    run = told_run(tmp_path, rows)
    counts = run_all(run)["m"]
    (problem,) = read_rows(run.problems("m"), Problem)
    traces = published(run, "m")
    assert [(t.sample, t.reasoning, t.finish_reason) for t in traces] == [
        (0, "a", "stop"),
        (1, "b", "length"),
        (2, "c", "stop"),
    ]
    for trace in traces:
        assert (trace.problem_id, trace.model, trace.request) == (problem.id, "r1", "")
        assert trace.id == content_hash("published", "r1", problem.id, trace.sample)
    assert (counts["traces"], counts["traces_of_dropped"]) == (3, 1)
    (found,) = record(run, "m")
    assert found["traces"] == {"teacher": "r1", "n": 4, "empty": 1}
    assert reasons(run, "m") == {"exact_duplicate": 2, "gold_is_proof": 1}


def test_what_each_source_gave_is_recorded(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"question": "What is 2 + 2?", "answer": "4", "ok": True},
        {"question": "What is 3 + 3?", "answer": None, "ok": True},
        {"question": "What is 4 + 4?", "answer": "8", "ok": False},
    ]
    path = write_lines(tmp_path / "p.jsonl", rows)
    sources = [{"source": path, "where": {"ok": True}, "licence": "MIT"}, SUM]
    run = open_run(
        tmp_path / "run",
        {"m": {"verifier": "math", "problems": sources}},
        evaluate={"benchmarks": {"b": {"domain": "m", "problems": {**SUM, "seed": 9}}}},
    )
    run_all(run)
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert record(run, "m") == [
        {
            "source": path,
            "config": None,
            "split": None,
            "revision": f"sha256:{digest}",
            "licence": "MIT",
            "rows": 3,
            "filtered": 1,
            "problems": 1,
            "dropped": {"no_gold": 1},
            "later_turns": 0,
            "traces": None,
        },
        {**record(run, "benchmarks/b")[0], "dropped": {}},
    ]
    assert published(run, "m") == []


def test_without_a_gold_problems_stay_where_teachers_vote(tmp_path: Path) -> None:
    rows = [solved("What is 1 + 1?", answer=None), solved("What is 2 + 2?", answer="4")]
    run = told_run(tmp_path, rows, select={"agreement": 0.7})
    counts = run_all(run)["m"]
    assert [p.gold for p in read_rows(run.problems("m"), Problem)] == [None, "4"]
    assert counts["gold_not_checked"] == 1


def test_conversations_without_a_verifier_are_problems_and_traces(tmp_path: Path) -> None:
    talk = [
        {"from": "human", "value": "Hello?"},
        {"from": "gpt", "value": "Hi!"},
        {"from": "human", "value": "Bye"},
    ]
    run = told_run(tmp_path, [{"conversations": talk}], verifier="none")
    run_all(run)
    (problem,) = read_rows(run.problems("m"), Problem)
    (trace,) = published(run, "m")
    assert (problem.question, problem.prompt, trace.answer) == ("Hello?", "Hello?", "Hi!")
    assert record(run, "m")[0]["later_turns"] == 1


def test_shards_are_inputs_and_a_new_shard_reruns_the_task(tmp_path: Path) -> None:
    for n in range(2):
        write_lines(tmp_path / f"s-{n}.jsonl", [{"question": f"What is {n}?", "answer": str(n)}])
    pattern = {"source": str(tmp_path / "s-*.jsonl")}
    run = open_run(tmp_path / "run", {"m": {"verifier": "math", "problems": [pattern]}})
    run_all(run)
    places = [p.place for p in read_rows(run.problems("m"), Problem)]
    assert places == ["s-0.jsonl, line 1", "s-1.jsonl, line 1"]
    write_lines(tmp_path / "s-2.jsonl", [{"question": "What is 2?", "answer": "2"}])
    with contextlib.ExitStack() as resources:
        (task,) = tasks(run, resources)
    assert not is_done(run, task, read_manifest(run.path))
    gone = {"source": str(tmp_path / "none-*.jsonl")}
    other = open_run(tmp_path / "other", {"m": {"verifier": "math", "problems": [gone]}})
    with pytest.raises(DataError, match=r"none-\*.jsonl: no such file"):
        run_all(other)


def test_nothing_of_the_work_is_left_behind(tmp_path: Path) -> None:
    run = told_run(tmp_path, [solved("What is 1 + 1?", "2")])
    run_all(run)
    assert [p.name for p in run.path.rglob(".*")] == []
