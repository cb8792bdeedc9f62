"""The stage `verify` of a run: with `workers: ray` it writes what it writes with the pool."""

import contextlib
from pathlib import Path
from typing import Any

import pytest

from cuvee.recipe import parse_recipe
from cuvee.records import Problem, Trace, Verdict, problem_id, read_rows, write_rows
from cuvee.runfolder import Run, execute, is_done, read_manifest
from cuvee.verify.stage import tasks

RECIPE: dict[str, Any] = {
    "name": "a",
    "base": "random:two-layer",
    "domains": {"math": {"problems": [{"source": "a.jsonl"}], "verifier": "math"}},
    "teachers": [{"name": "t", "scripted": {}}, {"name": "u", "scripted": {}}],
}
PROBLEMS = 150


def run_of(path: Path, **more: Any) -> Run:
    return Run(path, parse_recipe({**RECIPE, **more}, where="-"))


def write_inputs(run: Run) -> None:
    """Write problems, and traces of both teachers; one trace has no problem, one no answer."""
    problems = [
        Problem(problem_id(f"{n} + 1", str(n + 1), None), "math", "s", f"{n} + 1", "?", "math",
                str(n + 1), None, "{}")
        for n in range(PROBLEMS)
    ]  # fmt: skip
    write_rows(run.problems("math"), problems, Problem)
    for teacher, off in (("t", 1), ("u", 2)):
        traces = [
            Trace(f"{teacher}{n}", p.id if n else "nowhere", "math", teacher, 0, "thought",
                  f"\\boxed{{{n + off}}}" if n != 9 else "?", "stop", 1, 1, 0.0, "r", None, None)
            for n, p in enumerate(problems)
        ]  # fmt: skip
        write_rows(run.traces("math", teacher), traces, Trace)


def verdicts_of(run: Run) -> list[tuple[str, str, str]]:
    return [(v.trace_id, v.verdict, v.reason) for v in read_rows(run.verdicts("math"), Verdict)]


# Of a Ray that had to be started twice: it forgets its own processes.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
@pytest.mark.usefixtures("two_cpus")
def test_a_run_s_verdicts_and_counts_are_the_same_and_are_found_done_by_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cuvee.verify.clustered.CHUNK_ROWS", 32)
    pool, ray = run_of(tmp_path), run_of(tmp_path, workers="ray")
    write_inputs(pool)
    with contextlib.ExitStack() as resources:
        (by_pool,), (by_ray,) = tasks(pool, resources), tasks(ray, resources)
        counts = execute(pool, by_pool)
        verdicts = verdicts_of(pool)
        assert is_done(ray, by_ray, read_manifest(tmp_path))  # nothing is checked twice
        assert execute(ray, by_ray) == counts
    assert verdicts_of(ray) == verdicts
    assert is_done(pool, by_pool, read_manifest(tmp_path))
    assert counts["traces"] == len(verdicts) == 2 * PROBLEMS
    assert counts["reasons"]["not_checked: no_problem"] == 2
    assert counts["reasons"]["no_answer: no_final_answer"] == 2
    assert counts["correct"] == counts["wrong"] == PROBLEMS - 2


def test_a_run_s_tasks_are_the_same_with_either_workers(tmp_path: Path) -> None:
    with contextlib.ExitStack() as resources:
        (by_pool,) = tasks(run_of(tmp_path), resources)
        (by_ray,) = tasks(run_of(tmp_path, workers="ray", address="auto"), resources)
    assert (by_pool.key, by_pool.settings) == (by_ray.key, by_ray.settings)
    assert (by_pool.inputs, by_pool.outputs) == (by_ray.inputs, by_ray.outputs)
