"""The whole job on the smoke recipe: all stages, resume, kill, and what a change costs.

All tests read one finished run; those that change something do it in a copy. What goes wrong
outside is in `test_pipeline_faults`, so that two processes can run these at once.
"""

import contextlib
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cuvee.records import Comparison, Dropped, Example, Score, Trace, read_rows
from cuvee.runfolder import Run, hash_path, read_manifest

from .models.processes import wait_until
from .smoke import RECIPE, Job, engines_of

pytestmark = pytest.mark.timeout(1200)  # a minute of work, on a machine that may be busy

ROUNDS_OF_KILLING = 5
WEIGHTS = "model.safetensors"


def rows_without_times(run: Run) -> dict[str, list[Any]]:
    """Return the rows of every Parquet file of a run, without the seconds things took."""
    found = {}
    for file in sorted(run.path.rglob("*.parquet")):
        table = pq.read_table(file)
        kept = [name for name in table.column_names if name != "seconds"]
        found[str(file.relative_to(run.path))] = table.select(kept).to_pylist()
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, str]:
    """An undisturbed run, and what it printed. Tests that change it work on a copy."""
    job = Job(tmp_path_factory.mktemp("smoke") / "run")
    return job, job.run()


def test_all_stages_run_and_the_report_is_named(finished: tuple[Job, str]) -> None:
    job, output = finished
    run = job.opened()
    stages = {key.split("/")[0] for key in read_manifest(run.path)}
    assert stages == {
        "problems", "teach", "verify", "select", "train", "merge", "evaluate", "release",
    }  # fmt: skip
    assert str(run.path / "08_release" / "report.html") in output.replace("\n", "")
    assert (run.merged() / "model.safetensors").exists()
    assert (run.folder("release") / "smoke.Q8_0.gguf").exists()


def test_every_trace_becomes_an_example_or_a_drop_with_its_reason(
    finished: tuple[Job, str],
) -> None:
    run = finished[0].opened()
    for domain in run.recipe.domains:
        traces = [
            trace.id
            for teacher in run.recipe.teachers_of(domain)
            for trace in read_rows(run.traces(domain, teacher.name), Trace)
        ]
        examples = [e.id for e in read_rows(run.examples(domain), Example)]
        dropped = [d.id for d in read_rows(run.dropped("select", domain), Dropped)]
        assert sorted(traces) == sorted(examples + dropped)


def test_no_known_wrong_answer_reaches_the_training_set(finished: tuple[Job, str]) -> None:
    run = finished[0].opened()
    faults: dict[str, int] = {}
    for domain in run.recipe.domains:
        chosen = {e.id for e in read_rows(run.examples(domain), Example)}
        for teacher in run.recipe.teachers_of(domain):
            for trace in read_rows(run.traces(domain, teacher.name), Trace):
                fault = (trace.fingerprint or "").removeprefix("scripted/")
                faults[fault] = faults.get(fault, 0) + 1
                assert fault == "none" or trace.id not in chosen, (fault, trace.answer)
    assert faults["wrong_result"] >= 5  # there were some to let through
    assert faults["none"] > 50


def test_scores_cover_every_model_and_benchmark(finished: tuple[Job, str]) -> None:
    run = finished[0].opened()
    scores = read_rows(run.scores(), Score)
    assert {(s.model, s.benchmark) for s in scores} == {
        (model, benchmark)
        for model in ("base", "math", "code", "mixture", "merged")
        for benchmark in ("arithmetic", "functions")
    }
    for score in scores:
        counted = score.correct + score.wrong + score.no_answer + score.not_checked
        assert counted == score.n_samples == 6
    pairs = {(c.model, c.against) for c in read_rows(run.comparisons(), Comparison)}
    assert {("math", "base"), ("mixture", "base"), ("merged", "mixture")} <= pairs


def test_second_run_does_nothing_and_says_so(finished: tuple[Job, str]) -> None:
    job, _ = finished
    before = hash_path(job.path / "MANIFEST.json")
    assert "nothing to do" in job.run()
    assert hash_path(job.path / "MANIFEST.json") == before


def test_another_run_on_the_same_ledger_sends_no_request(
    finished: tuple[Job, str], tmp_path: Path
) -> None:
    ledger = finished[0].path.parent / "run.sqlite"
    other = Job(tmp_path / "other", (f"ledger={ledger}",))
    other.run("--until", "teach")
    teach = {k: e["counts"] for k, e in read_manifest(other.path).items() if k.startswith("teach")}
    assert len(teach) == 6
    assert all(counts["sent"] == 0 and counts["from_ledger"] > 0 for counts in teach.values())


def test_the_line_that_the_docs_read_rows_with_works(
    finished: tuple[Job, str], tmp_path: Path
) -> None:
    page = (RECIPE.parent.parent / "docs" / "run-folder.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "smoke").symlink_to(finished[0].path)
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_status_shows_every_task_done(finished: tuple[Job, str]) -> None:
    job, _ = finished
    command = [sys.executable, "-m", "cuvee.cli", "status", str(job.path)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "1000"}
    )
    lines = done.stdout.splitlines()[1:]
    assert len(lines) == len(read_manifest(job.path))
    assert all(" done " in line for line in lines)


def test_changed_code_filter_leaves_the_math_specialist_alone(
    finished: tuple[Job, str], tmp_path: Path
) -> None:
    job, _ = finished
    before = read_manifest(job.path)
    changed = job.copied(tmp_path / "run", "domains.code.select.target=8")
    changed.run()
    after = read_manifest(changed.path)
    again = {key for key in after if after[key]["begun"] != before[key]["begun"]}
    kept = {key.split("/")[0] for key in after} - {key.split("/")[0] for key in again}
    assert kept == {"problems", "teach", "verify"}
    assert {"train/code", "select/mixture", "train/mixture"} <= again
    assert not {"select/math", "train/math", "evaluate/export/base"} & again
    assert not {key for key in again if key.startswith(("evaluate/base/", "evaluate/math/"))}


def test_killed_while_it_asks_trains_and_evaluates_it_ends_with_the_same_rows(
    finished: tuple[Job, str], tmp_path: Path
) -> None:
    job = finished[0].copied(tmp_path / "run")
    undisturbed, resumed = finished[0].opened(), job.opened()
    resumed.traces("math", "bo").unlink()
    (resumed.specialist("mixture") / WEIGHTS).unlink()
    resumed.score_traces("math", "arithmetic").unlink()
    for task in ("teach/math/bo", "train/mixture", "evaluate/math/arithmetic"):
        job.kill(at=task, when=lambda: len(engines_of(job.path)) > 1)
        assert wait_until(lambda: engines_of(job.path) == [])
    job.run()
    assert rows_without_times(resumed) == rows_without_times(undisturbed)
    for theirs, ours in (
        (undisturbed.specialist("mixture"), resumed.specialist("mixture")),
        (undisturbed.merged(), resumed.merged()),
    ):
        assert hash_path(ours / WEIGHTS) == hash_path(theirs / WEIGHTS)


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_rows(
    finished: tuple[Job, str], tmp_path: Path
) -> None:
    job = Job(tmp_path / "run")
    rng = random.Random(20261122)
    for _ in range(ROUNDS_OF_KILLING):
        killed = subprocess.Popen(
            job.command(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            killed.wait(rng.uniform(2, 14))
        killed.kill()
        killed.wait()
        assert wait_until(lambda: engines_of(job.path) == [])
    job.run()
    undisturbed, resumed = finished[0].opened(), job.opened()
    assert rows_without_times(resumed) == rows_without_times(undisturbed)
    assert hash_path(resumed.merged() / WEIGHTS) == hash_path(undisturbed.merged() / WEIGHTS)
