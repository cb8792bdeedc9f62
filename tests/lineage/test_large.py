"""A large run needs little memory: only id columns and the rows of one problem are read."""

import random
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cuvee.cli import app
from cuvee.recipe import dump_recipe, parse_recipe
from cuvee.records import (
    GROUP_ROWS,
    Dropped,
    Example,
    Problem,
    Trace,
    Verdict,
    content_hash,
    write_rows,
)
from cuvee.runfolder import Run

TEACHERS = ("t0", "t1", "t2", "t3")
Explain = Callable[..., str]


def large_run(path: Path, *, traces: int, characters: int) -> Run:
    """Write a run of one domain with four teachers, one sample each, up to `select`."""
    teachers = [{"name": name, "published": True} for name in TEACHERS]
    data = {
        "name": "large",
        "base": "random:two-layer",
        "domains": {
            "math": {
                "problems": [{"source": "big.jsonl", "traces": name} for name in TEACHERS],
                "verifier": "math",
            }
        },
        "teachers": teachers,
        "ledger": str(path / "ledger.sqlite"),
    }
    recipe = parse_recipe(data, where="the test")
    run = Run(path, recipe)
    path.mkdir(parents=True)
    (path / "recipe.yaml").write_text(dump_recipe(recipe))
    problems = [content_hash("problem", n) for n in range(traces // len(TEACHERS))]
    prose = _prose(random.Random(0))
    write_rows(run.problems("math"), (_problem(name) for name in problems), Problem)
    write_rows(run.dropped("problems", "math"), (), Dropped)
    for teacher in TEACHERS:
        rows = _traces(problems, teacher, prose, characters=characters)
        write_rows(run.traces("math", teacher), rows, Trace)
    write_rows(run.verdicts("math"), _verdicts(problems), Verdict)
    chosen = (t for t in _traces(problems, "t0", prose, characters=characters))
    examples = (
        Example(t.id, t.problem_id, "math", "t0", "?", t.reasoning, t.answer, 9) for t in chosen
    )
    write_rows(run.examples("math"), examples, Example)
    write_rows(run.dropped("select", "math"), _dropped(problems), Dropped)
    return run


def trace_id(problem: str, teacher: str) -> str:
    return content_hash(problem, teacher)


def _prose(rng: random.Random) -> str:
    """A megabyte of words that zstd cannot fold into nothing."""
    words = [
        "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(5000)
    ]
    return " ".join(rng.choices(words, k=150_000))


def _problem(name: str) -> Problem:
    return Problem(name, "math", "big.jsonl", f"What is {name}?", "?", "math", "2", None, "{}")


def _traces(problems: list[str], teacher: str, prose: str, *, characters: int) -> Iterator[Trace]:
    rng = random.Random(teacher)
    for name in problems:
        at = rng.randrange(len(prose) - characters)
        yield Trace(
            trace_id(name, teacher), name, "math", teacher, 0, prose[at : at + characters], "2",
            "stop", 9, 9, 1.0, "", None, None, 0.001,
        )  # fmt: skip


def _verdicts(problems: list[str]) -> Iterator[Verdict]:
    for teacher in TEACHERS:
        for name in problems:
            yield Verdict(
                trace_id(name, teacher), name, "math", "correct", "equal", "2", "2", None, "number",
                0.0,
            )  # fmt: skip


def _dropped(problems: list[str]) -> Iterator[Dropped]:
    for teacher in TEACHERS[1:]:
        for name in problems:
            yield Dropped(trace_id(name, teacher), "math", "trace", teacher, "not_chosen", None)


def apart(*arguments: str) -> str:
    """Run `cuvee explain` in a process of its own; return what it said."""
    command = [sys.executable, "-m", "cuvee.cli", "explain", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def at_once(*arguments: str) -> str:
    """Run `cuvee explain` in this process."""
    return CliRunner().invoke(app, ["explain", *arguments]).stdout


def check(run: Run, explain: Explain, *, traces: int) -> None:
    """Ask for a trace and a problem in the middle, and for the listing."""
    problem = content_hash("problem", traces // len(TEACHERS) // 2)
    trace = trace_id(problem, "t2")
    told = explain(str(run.path), trace[:12])
    assert f"trace {trace} by t2" in told
    assert "filters dropped: choice (not_chosen)" in told
    told = explain(str(run.path), problem)
    assert all(f"trace {trace_id(problem, name)} by {name}" in told for name in TEACHERS)
    assert f"{traces:,}" in explain(str(run.path))


def test_a_run_of_many_row_groups_is_answered(tmp_path: Path) -> None:
    traces = 4 * (GROUP_ROWS + 100)
    check(large_run(tmp_path / "run", traces=traces, characters=20), at_once, traces=traces)


@pytest.mark.slow
def test_two_hundred_thousand_traces_are_answered_within_700_mb(tmp_path: Path) -> None:
    run = large_run(tmp_path / "run", traces=200_000, characters=3000)
    check(run, apart, traces=200_000)
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert used < 700_000, f"{used / 1000:.0f} MB"
