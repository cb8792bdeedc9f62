"""The whole job on the smoke recipe: all stages, resume, kill, and what goes wrong outside.

Every run is the real command in a process of its own, on a ledger of its own.
"""

import contextlib
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cuvee.recipe import load_recipe
from cuvee.records import Comparison, Dropped, Example, Score, Trace, read_rows
from cuvee.runfolder import Run, hash_path, read_manifest

RECIPE = Path(__file__).parent.parent / "recipes" / "smoke.yaml"
SANDBOX = os.environ.get("CUVEE_TEST_SANDBOX", "bubblewrap")
ROUNDS_OF_KILLING = 5


@dataclasses.dataclass(frozen=True)
class Job:
    """A run folder, the ledger beside it, and the overrides they go with."""

    path: Path
    overrides: tuple[str, ...] = ()

    def command(self, *more: str) -> list[str]:
        ledger = f"ledger={self.path.parent / (self.path.name + '.sqlite')}"
        sets = [f"--set={s}" for s in (ledger, f"sandbox={SANDBOX}", *self.overrides)]
        out = ["--out", str(self.path)]
        return [sys.executable, "-m", "cuvee.cli", "run", str(RECIPE), *out, *sets, *more]

    def run(self, *more: str, code: int = 0) -> str:
        done = subprocess.run(self.command(*more), capture_output=True, text=True)
        output = done.stdout + done.stderr
        assert done.returncode == code, output
        assert "Traceback" not in output
        return output


def rows_without_times(run: Run) -> dict[str, list[Any]]:
    """Return the rows of every Parquet file of a run, without the seconds things took."""
    found = {}
    for file in sorted(run.path.rglob("*.parquet")):
        table = pq.read_table(file)
        kept = [name for name in table.column_names if name != "seconds"]
        found[str(file.relative_to(run.path))] = table.select(kept).to_pylist()
    return found


def engines_of(path: Path) -> list[str]:
    """Return the command lines of processes that serve something for a run folder."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(path) in line and "cuvee" in line:
                found.append(line)
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, str]:
    """An undisturbed run, and what it printed. Tests that change it work on overrides."""
    job = Job(tmp_path_factory.mktemp("smoke") / "run")
    return job, job.run()


def open_run(job: Job) -> Run:
    return Run(job.path, load_recipe(job.path / "recipe.yaml"))


def test_all_stages_run_and_the_report_is_named(finished: tuple[Job, str]) -> None:
    job, output = finished
    run = open_run(job)
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
    run = open_run(finished[0])
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
    run = open_run(finished[0])
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
    run = open_run(finished[0])
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


def test_changed_code_filter_leaves_the_math_specialist_alone(finished: tuple[Job, str]) -> None:
    job, _ = finished
    before = read_manifest(job.path)
    changed = Job(job.path, ("domains.code.select.target=8",))
    try:
        changed.run()
        after = read_manifest(job.path)
        again = {key for key in after if after[key]["begun"] != before[key]["begun"]}
        kept = {key.split("/")[0] for key in after} - {key.split("/")[0] for key in again}
        assert kept == {"problems", "teach", "verify"}
        assert {"train/code", "select/mixture", "train/mixture"} <= again
        assert not {"select/math", "train/math", "evaluate/export/base"} & again
        assert not {key for key in again if key.startswith(("evaluate/base/", "evaluate/math/"))}
    finally:
        job.run()


def test_second_run_on_one_folder_is_refused_with_the_holder(finished: tuple[Job, str]) -> None:
    job, _ = finished
    holder = subprocess.Popen(
        job.command("--set", "seed=8"), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    with holder:
        assert holder.stderr is not None
        holder.stderr.readline()  # it has begun its first task, so it holds the folder
        output = job.run(code=1)
        assert str(holder.pid) in output
        holder.send_signal(signal.SIGTERM)
        rest = holder.stderr.read()
    assert holder.returncode == 130, rest
    assert engines_of(job.path) == []
    job.run()


@pytest.mark.timeout(600)
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
        time.sleep(0.5)
        assert engines_of(job.path) == []
    job.run()
    undisturbed, resumed = open_run(finished[0]), open_run(job)
    assert rows_without_times(resumed) == rows_without_times(undisturbed)
    weights = "model.safetensors"
    assert hash_path(resumed.merged() / weights) == hash_path(undisturbed.merged() / weights)


def test_limit_makes_a_pilot(tmp_path: Path) -> None:
    job = Job(tmp_path / "run")
    job.run("--limit", "3", "--until", "problems")
    counts = {k: e["counts"]["problems"] for k, e in read_manifest(job.path).items()}
    assert set(counts.values()) == {3}


def test_teacher_that_is_down_is_named_with_its_url(tmp_path: Path) -> None:
    teacher = json.dumps(
        [{"name": "far", "url": "http://127.0.0.1:9/v1", "model": "m", "retries": 0}]
    )
    job = Job(tmp_path / "run", (f"teachers={teacher}",))
    output = job.run("--limit", "3", "--until", "teach", code=1)
    assert "http://127.0.0.1:9/v1" in output
    assert "cannot be reached" in output
    assert (job.path / "01_problems" / "math.parquet").exists()


def test_unreadable_input_is_named(tmp_path: Path) -> None:
    job = Job(tmp_path / "run")
    job.run("--limit", "3", "--until", "teach")
    traces = job.path / "02_traces" / "math" / "ann.parquet"
    traces.write_bytes(b"not parquet")
    assert "teach/math/ann" in job.run("--limit", "3", "--until", "teach")  # mended, not used
    traces.write_bytes(b"not parquet")
    command = [sys.executable, "-m", "cuvee.cli", "verify", str(job.path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "ann.parquet" in done.stderr.replace("\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "no-such.yaml"], "no-such.yaml"),
        (["run", str(RECIPE), "--set", "train.epoch=1"], "did you mean 'epochs'"),
        (["run", str(RECIPE), "--until", "teaching"], "no such stage"),
        (["run", str(RECIPE), "--set", "merge.parameters.epsilon=1"], "epsilon"),
        (["run", str(RECIPE), "--set", "merge.method=linear"], "weight"),
        (["status", "."], "recipe.yaml"),
    ],
)
def test_wrong_recipe_or_flag_ends_with_code_2(arguments: list[str], message: str) -> None:
    command = [sys.executable, "-m", "cuvee.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr.replace("\n", " ")


@pytest.mark.sandbox
def test_full_disk_is_said_and_nothing_is_lost(tmp_path: Path) -> None:
    job = Job(tmp_path / "disk" / "run", ("sandbox=none",))
    job.path.parent.mkdir()
    # A disk of 100 kB: enough for the problems, not for the ledger.
    small_disk = ["bwrap", "--dev-bind", "/", "/", "--size", "100000", "--tmpfs"]
    command = [*small_disk, str(job.path.parent), *job.command("--until", "teach")]
    done = subprocess.run(command, capture_output=True, text=True)
    output = done.stderr.replace("\n", " ")
    assert done.returncode == 1, output
    assert "disk full while writing" in output
    assert "Traceback" not in output


def test_init_writes_a_recipe_and_never_over_a_file(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cuvee.cli", "init", str(tmp_path / "my.yaml")]
    subprocess.run(command, check=True, capture_output=True)
    assert load_recipe(tmp_path / "my.yaml").name == "my-model"
    assert subprocess.run(command, capture_output=True).returncode == 2
