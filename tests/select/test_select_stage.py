"""The stage `select`: every trace ends as one example or one dropped row with its reason."""

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.errors import DataError
from cuvee.models.checkpoint import load_tokenizer, resolve
from cuvee.models.tokens import encode_example
from cuvee.recipe import Domain, parse_recipe
from cuvee.records import (
    Dropped,
    Example,
    Problem,
    Trace,
    Verdict,
    read_rows,
    write_rows,
)
from cuvee.runfolder import Run, execute, is_done, read_manifest
from cuvee.select.sift import Student, settle, sift
from cuvee.select.stage import tasks

from .conftest import a_problem, a_trace, a_verdict

STUDENT = Student(("<|end|>",), lambda prompt, reasoning, answer: len(reasoning.split()))


def a_domain(**select: Any) -> Domain:
    source = {"source": "generator:arithmetic", "count": 1}
    return Domain.model_validate({"problems": [source], "verifier": "math", "select": select})


FAULTS: dict[str, dict[str, Any]] = {
    "request_failed": {
        "finish_reason": "error",
        "reasoning": "",
        "answer": "",
        "error": "HTTP 500",
    },
    "truncated": {"finish_reason": "length"},
    "no_reasoning": {"reasoning": ""},
    "empty_answer": {"answer": ""},
    "think_tags": {"answer": "<think>22"},
    "control_token": {"answer": "22<|end|>"},
    "language": {"reasoning": "我们先仔细读一遍题目" * 2},
    "repetition": {"reasoning": "Let me look at this step once more before I go on. " * 15},
    "too_short": {"reasoning": "Twenty-two."},
    "too_long": {"reasoning": " ".join(f"step{number}" for number in range(60))},
}


def test_each_fault_is_dropped_under_its_own_name() -> None:
    domain = a_domain(language="en", tokens=[2, 50])
    traces = [a_trace(id=name, **changes) for name, changes in FAULTS.items()]
    wrong = a_trace(id="wrong")
    candidates, dropped = sift(
        [*traces, wrong],
        [*(a_verdict(trace) for trace in traces), a_verdict(wrong, "wrong")],
        {"p": a_problem("p")},
        domain=domain,
        student=STUDENT,
        tick=lambda _: None,
    )
    assert candidates == []
    assert {row.id: row.reason for row in dropped} == {
        **{name: name for name in FAULTS},
        "wrong": "verdict_wrong",
    }
    assert {(row.kind, row.model, row.domain) for row in dropped} == {("trace", "alice", "math")}


def test_a_truncated_trace_is_dropped_as_truncated_whatever_the_verdict() -> None:
    trace = a_trace(finish_reason="length")
    for verdict in ("correct", "no_answer"):
        _, dropped = sift(
            [trace],
            [a_verdict(trace, verdict)],
            {"p": a_problem("p")},
            domain=a_domain(),
            student=STUDENT,
            tick=lambda _: None,
        )
        assert [row.reason for row in dropped] == ["truncated"]


TRACES = st.lists(
    st.builds(
        a_trace,
        id=st.integers(0, 10**6).map(str),
        problem_id=st.sampled_from("pqr"),
        model=st.sampled_from(["alice", "bob"]),
        reasoning=st.text(max_size=80),
        answer=st.text(max_size=20),
        finish_reason=st.sampled_from(["stop", "stop", "length", "error", "odd"]),
    ),
    unique_by=lambda trace: trace.id,
    max_size=12,
)


@given(TRACES, st.integers(1, 2), st.none() | st.integers(1, 4), st.data())
def test_every_trace_ends_as_one_example_or_one_dropped_row(
    traces: list[Trace], per_problem: int, target: int | None, data: st.DataObject
) -> None:
    named = st.sampled_from(["correct", "correct", "wrong", "no_answer", "not_checked"])
    verdicts = [a_verdict(trace, data.draw(named)) for trace in traces]
    problems = {name: a_problem(name) for name in "pqr"}
    domain = a_domain(tokens=[0, 10], per_problem=per_problem, target=target)
    candidates, unfit = sift(
        traces, verdicts, problems, domain=domain, student=STUDENT, tick=lambda _: None
    )
    examples, left = settle(candidates, problems, select=domain.select, seed=3)
    ended = [example.id for example in examples] + [row.id for row in unfit + left]
    assert sorted(ended) == sorted(trace.id for trace in traces)


@pytest.mark.parametrize("fault", ["missing", "twice", "stranger"])
def test_traces_and_verdicts_that_do_not_pair_are_refused(fault: str) -> None:
    traces = [a_trace(id="a"), a_trace(id="b")]
    verdicts = {
        "missing": [a_verdict(traces[0])],
        "twice": [a_verdict(trace) for trace in [*traces, traces[0]]],
        "stranger": [a_verdict(trace) for trace in [*traces, a_trace(id="c")]],
    }[fault]
    with pytest.raises(DataError, match="do not pair one to one"):
        sift(
            traces,
            verdicts,
            {"p": a_problem("p")},
            domain=a_domain(),
            student=STUDENT,
            tick=lambda _: None,
        )


# The stage


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return resolve("random:two-layer", cache=tmp_path_factory.mktemp("cache"))


def a_run(tmp_path: Path, base: Path, **select: Any) -> Run:
    domain = a_domain(**select).model_dump(mode="json")
    recipe = parse_recipe(
        {
            "name": "test",
            "base": str(base),
            "domains": {"math": domain},
            "teachers": [{"name": name, "scripted": {}} for name in ("alice", "bob")],
        },
        where="test",
    )
    run = Run(tmp_path / "run", recipe)
    problems = [a_problem(f"p{number}") for number in range(6)]
    write_rows(run.problems("math"), problems, Problem)
    verdicts = []
    for teacher in ("alice", "bob"):
        traces = [
            a_trace(id=f"{teacher}{number}", problem_id=f"p{number}", model=teacher)
            for number in range(6)
        ]
        write_rows(run.traces("math", teacher), traces, Trace)
        right = ["wrong" if number == 5 else "correct" for number in range(6)]
        verdicts += [a_verdict(t, name) for t, name in zip(traces, right, strict=True)]
    write_rows(run.verdicts("math"), verdicts, Verdict)
    return run


def work(run: Run) -> dict[str, Any]:
    with ExitStack() as resources:
        (task,) = tasks(run, resources)
        return dict(execute(run, task))


def test_the_stage_writes_examples_and_dropped_rows_that_add_up(tmp_path: Path, base: Path) -> None:
    run = a_run(tmp_path, base, target=4)
    assert work(run) == {
        "traces": 12,
        "examples": 4,
        "not_chosen": 5,
        "verdict_wrong": 2,
        "over_target": 1,
    }
    examples = read_rows(run.examples("math"), Example)
    dropped = read_rows(run.dropped("select", "math"), Dropped)
    assert len({example.id for example in examples} | {row.id for row in dropped}) == 12
    assert Counter(example.teacher for example in examples) == {"alice": 2, "bob": 2}
    assert {example.prompt for example in examples} <= {
        f"Please: what is p{number}?" for number in range(5)
    }
    with ExitStack() as resources:
        (task,) = tasks(run, resources)
        assert is_done(run, task, read_manifest(run.path))


def test_tokens_are_those_that_training_will_see(tmp_path: Path, base: Path) -> None:
    run = a_run(tmp_path, base)
    work(run)
    tokenizer = load_tokenizer(base)
    for example in read_rows(run.examples("math"), Example):
        encoded = encode_example(tokenizer, example.prompt, example.reasoning, example.answer)
        assert example.tokens == sum(label != -100 for label in encoded.labels)


def test_the_token_window_uses_the_students_tokenizer(tmp_path: Path, base: Path) -> None:
    run = a_run(tmp_path, base)
    work(run)
    tokens = read_rows(run.examples("math"), Example)[0].tokens
    at_the_edge = a_run(tmp_path / "edge", base, tokens=[tokens, tokens])
    assert work(at_the_edge)["examples"] == 5
    over = a_run(tmp_path / "over", base, tokens=[1, tokens - 1])
    with pytest.raises(DataError, match="too_long 10"):
        work(over)


def test_no_example_at_all_is_an_error_that_says_what_took_them(tmp_path: Path, base: Path) -> None:
    run = a_run(tmp_path, base, tokens=[5000, 6000])
    with pytest.raises(DataError, match=r"none of 12 traces.*too_short 10, verdict_wrong 2"):
        work(run)
    assert not run.examples("math").exists()
    assert len(read_rows(run.dropped("select", "math"), Dropped)) == 12


def test_changed_filters_tokenizer_or_verdicts_select_again(tmp_path: Path, base: Path) -> None:
    def settings(**select: Any) -> Any:
        with ExitStack() as resources:
            (task,) = tasks(a_run(tmp_path, base, **select), resources)
            return task.settings, task.inputs

    plain, inputs = settings()
    assert settings()[0] == plain
    assert settings(tokens=[2, 9])[0] != plain
    assert settings(policy="shortest")[0] != plain
    assert {path.name for path in inputs} >= {"tokenizer.json", "alice.parquet", "bob.parquet"}
