"""What goes wrong outside, on runs of the smoke recipe that end early: each in its own folder."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cuvee.recipe import load_recipe
from cuvee.runfolder import read_manifest

from .smoke import RECIPE, Job, engines_of


def test_second_run_on_one_folder_is_refused_with_the_holder(tmp_path: Path) -> None:
    job = Job(tmp_path / "run")
    holder = subprocess.Popen(
        job.command(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    with holder:
        assert holder.stderr is not None
        assert any(line.startswith("teach/") for line in holder.stderr)
        holder.send_signal(signal.SIGSTOP)  # so that it is still there when the other one looks
        output = job.run(code=1)
        assert str(holder.pid) in output
        holder.send_signal(signal.SIGTERM)
        holder.send_signal(signal.SIGCONT)
        rest = holder.stderr.read()
    assert holder.returncode == 130, rest
    assert engines_of(job.path) == []
    job.run("--until", "problems")


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
