"""The stage `evaluate`: with `workers: ray` answers get the verdicts of the pool."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from cuvee.evaluate.stage import tasks
from cuvee.problems.loading import write_records
from cuvee.problems.sources import Asked, load
from cuvee.recipe import Source, parse_recipe
from cuvee.records import Problem, Verdict, read_rows, write_rows
from cuvee.runfolder import Run, Task, execute, is_done, read_manifest

# Of a Ray that had to be started twice: it forgets its own processes.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

PROBLEMS, SAMPLES = 30, 2


def run_of(path: Path, **more: Any) -> Run:
    source = {"source": "generator:arithmetic", "count": PROBLEMS}
    sampling = {"temperature": 0.7, "max_tokens": 200}
    held = {"problems": source, "domain": "math", "samples": SAMPLES}
    recipe = {
        "name": "a",
        "base": str(path / "base"),
        "ledger": str(path / "ledger.sqlite"),
        "domains": {"math": {"problems": [source], "verifier": "math"}},
        "teachers": [
            {"name": "t", "scripted": {"skill": 0.4, "faults": ["wrong_result", "no_answer"]}}
        ],
        "verify": {"math_seconds": 30},  # a busy machine must not decide a verdict
        "evaluate": {"benchmarks": {"held": held}, "teachers": ["t"], "sampling": sampling},
        **more,
    }
    return Run(path, parse_recipe(recipe, where="-"))


def write_benchmark(run: Run) -> None:
    source = Source.model_validate({"source": "generator:arithmetic", "count": PROBLEMS})
    asked = Asked("math", "math", run.recipe.domains["math"].ask)
    problems = load(source, asked, limit=None).problems
    write_rows(run.benchmark("held"), problems, Problem)
    write_records(run.sources("benchmarks/held"), [{"source": "test", "revision": "r1"}])


def of_the_teacher(run: Run, resources: contextlib.ExitStack) -> Task:
    """Return the one task that asks no model of the run: no engine is needed."""
    [task] = [task for task in tasks(run, resources) if task.name == "t/held"]
    return task


def verdicts_of(run: Run) -> list[Verdict]:
    rows = read_rows(run.score_verdicts("t", "held"), Verdict)
    return [dataclasses.replace(row, seconds=0.0) for row in rows]


@pytest.mark.slow
@pytest.mark.usefixtures("two_cpus")
def test_answers_get_the_pool_s_verdicts_and_are_found_done_by_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cuvee.verify.clustered.CHUNK_ROWS", 16)
    pool, ray = run_of(tmp_path), run_of(tmp_path, workers="ray")
    write_benchmark(pool)
    traces, protocol = pool.score_traces("t", "held"), pool.score_protocol("t", "held")
    with contextlib.ExitStack() as resources:
        execute(pool, of_the_teacher(pool, resources))
        written = traces.read_bytes(), protocol.read_bytes(), verdicts_of(pool)
        by_ray = of_the_teacher(ray, resources)
        assert is_done(ray, by_ray, read_manifest(tmp_path))  # nothing is asked or checked twice
        traces.unlink()
        counts = execute(ray, by_ray)
    assert (traces.read_bytes(), protocol.read_bytes(), verdicts_of(ray)) == written
    assert (counts["sent"], counts["from_ledger"]) == (0, PROBLEMS * SAMPLES)
    assert len({verdict.verdict for verdict in written[2]}) == 3


def test_a_run_s_tasks_are_the_same_with_either_workers(tmp_path: Path) -> None:
    with contextlib.ExitStack() as resources:
        by_pool = tasks(run_of(tmp_path), resources)
        by_ray = tasks(run_of(tmp_path, workers="ray", address="auto"), resources)
    assert [(t.key, t.settings) for t in by_pool] == [(t.key, t.settings) for t in by_ray]
    assert [(t.inputs, t.outputs) for t in by_pool] == [(t.inputs, t.outputs) for t in by_ray]
