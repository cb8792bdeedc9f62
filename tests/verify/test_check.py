import json
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from cuvee.errors import RecipeError
from cuvee.recipe import Verify, parse_recipe
from cuvee.records import Problem, Trace, Verdict, read_rows, write_rows
from cuvee.runfolder import Run, execute, is_done, read_manifest
from cuvee.verify import sandbox
from cuvee.verify.check import check_golds, check_traces
from cuvee.verify.stage import tasks

MakeProblem = Callable[..., Problem]
MakeTrace = Callable[..., Trace]
LIMITS = Verify(math_seconds=20, code_seconds=3, memory_mb=256, processes=2)
ADD = {"kind": "function", "fn_name": "f", "cases": [{"args": [1, 2], "expected": 3}]}
GOOD = "```python\ndef f(a, b):\n    return a + b\n```"


def check(traces: list[Trace], problems: list[Problem]) -> list[Verdict]:
    by_id = {p.id: p for p in problems}
    return check_traces(traces, by_id, limits=LIMITS, sandbox="bubblewrap", label="test")


@pytest.mark.parametrize(
    ("gold", "answer", "finish_reason", "verdict", "reason"),
    [
        ("42", r"\boxed{41}. Wait, \boxed{42}", "stop", "correct", "equal"),
        ("42", r"\boxed{42}. No: \boxed{41}", "stop", "wrong", "different"),
        ("42", r"\boxed{42}", "length", "correct", "equal"),
        ("42", "so we", "length", "no_answer", "truncated"),
        ("42", "I do not know.", "stop", "no_answer", "no_final_answer"),
        ("42", "", "stop", "no_answer", "no_final_answer"),
        ("42", "", "error", "no_answer", "request_failed"),
        (None, r"\boxed{42}", "stop", "not_checked", "no_gold"),
    ],
)
def test_math_verdicts(
    problem: MakeProblem,
    trace: MakeTrace,
    gold: str | None,
    answer: str,
    finish_reason: str,
    verdict: str,
    reason: str,
) -> None:
    asked = problem(gold=gold)
    (row,) = check([trace(asked, answer, finish_reason=finish_reason)], [asked])
    assert (row.verdict, row.reason) == (verdict, reason)


def test_what_needs_no_verifier_is_never_wrong(problem: MakeProblem, trace: MakeTrace) -> None:
    free = problem("none")
    rows = check(
        [
            trace(free, "an essay"),
            trace(free, " "),
            trace(free, "", error="HTTP 500", finish_reason="error"),
            trace(problem(gold="nowhere"), "x"),
            trace(code := problem("code"), GOOD),
        ],
        [free, code],
    )
    assert [(r.verdict, r.reason) for r in rows] == [
        ("not_checked", "no_verifier"),
        ("no_answer", "no_final_answer"),
        ("no_answer", "request_failed"),
        ("not_checked", "no_problem"),
        ("not_checked", "no_tests"),
    ]
    assert rows[2].detail == "HTTP 500"


@pytest.mark.sandbox
def test_rows_keep_their_order_over_verifiers(problem: MakeProblem, trace: MakeTrace) -> None:
    sums, code = problem(gold="1/2"), problem("code", tests=ADD)
    answers = {
        (sums, r"\boxed{0.5}"): "equal",
        (code, GOOD): "passed",
        (code, GOOD.replace("+", "-")): "wrong_output",
        (sums, r"\boxed{0.6}"): "different",
        (code, "no code"): "no_code_block",
        (code, GOOD.removesuffix("```")): "no_code_block",
    }
    traces = [trace(p, answer, sample=i) for i, (p, answer) in enumerate(answers)]
    rows = check(traces, [sums, code])
    assert [r.reason for r in rows] == list(answers.values())
    assert [r.trace_id for r in rows] == [t.id for t in traces]


@pytest.mark.sandbox
def test_golds_pass_their_own_verifier(problem: MakeProblem) -> None:
    program = 'def f(a, b):\n    """\n```\nfenced\n```\n    """\n    return a + b'
    golds = [
        problem(gold=r"3\sqrt{13}"),
        problem("code", gold=program, tests=ADD),
        problem("code", gold=program.replace("+", "*"), tests=ADD),
        problem(),
        problem("code", tests=ADD),
        problem("code", gold=program),
        problem("none"),
    ]
    rows = check_golds(golds, limits=LIMITS, sandbox="bubblewrap", label="golds")
    assert [(r.verdict, r.reason) for r in rows] == [
        ("correct", "equal"),
        ("correct", "passed"),
        ("wrong", "wrong_output"),
        ("not_checked", "no_gold"),
        ("not_checked", "no_gold"),
        ("not_checked", "no_tests"),
        ("not_checked", "no_verifier"),
    ]
    assert [r.trace_id for r in rows] == [f"gold:{p.id}" for p in golds]


def test_code_without_a_sandbox_is_refused_before_anything_runs(
    problem: MakeProblem,
    trace: MakeTrace,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    sandbox._tried.cache_clear()
    code = problem("code", tests=ADD)
    try:
        with pytest.raises(RecipeError, match="bubblewrap"):
            check([trace(code, GOOD)], [code])
    finally:
        sandbox._tried.cache_clear()


def test_stage_writes_a_verdict_for_every_trace_of_every_teacher(
    problem: MakeProblem, trace: MakeTrace, tmp_path: Path
) -> None:
    recipe = parse_recipe(
        {
            "name": "test",
            "base": "random:two-layer",
            "domains": {
                "sums": {
                    "problems": [{"source": "generator:arithmetic", "count": 1}],
                    "verifier": "math",
                }
            },
            "teachers": [{"name": n, "scripted": {}} for n in ("alice", "bob")],
        },
        where="test",
    )
    run = Run(tmp_path, recipe)
    sums = problem(gold="5")
    write_rows(run.problems("sums"), [sums], Problem)
    for teacher, answer in (("alice", "#### 5"), ("bob", "#### 6")):
        write_rows(run.traces("sums", teacher), [trace(sums, answer)], Trace)
    (task,) = tasks(run, ExitStack())
    assert task.key == "verify/sums"
    counts = execute(run, task)
    assert counts["traces"] == 2
    assert counts["reasons"] == {"correct: equal": 1, "wrong: different": 1}
    verdicts = read_rows(run.verdicts("sums"), Verdict)
    assert Counter(v.verdict for v in verdicts) == {"correct": 1, "wrong": 1}
    assert is_done(run, task, read_manifest(tmp_path))
    json.dumps(dict(task.settings))
