"""Several training processes of one launcher: killed, gone on with, and how their end is told."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cuvee.errors import TrainError
from cuvee.recipe import Train
from cuvee.train import launch
from cuvee.train.ending import ending
from cuvee.train.job import Job, prepare
from cuvee.train.launch import check_machine, environment, train
from cuvee.train.watch import read_log

pytestmark = pytest.mark.usefixtures("one_thread")

MakeJob = Callable[..., Job]
TWO = {"strategy": "ddp", "gpus": 2, "cpu": True}
LAUNCH = """
import sys
from pathlib import Path
from cuvee.train.job import read_job
from cuvee.train.launch import train
train(read_job(Path(sys.argv[1])), name="killed", log=Path(sys.argv[2]))
"""
STARTER = """
# As torch's launcher does: a process in a session of its own.
import subprocess, sys
subprocess.Popen([sys.executable, "-m", "cuvee.train.rank", "JOB"], start_new_session=True).wait()
"""
SLEEPER = """
import os, pathlib, time
pathlib.Path(os.environ["SAID"]).write_text(str(os.getpid()))
time.sleep(60)
"""


Start = Callable[[Job, Path], "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Return what starts a training under a parent of its own, which ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def start_job(job: Job, log: Path) -> "subprocess.Popen[str]":
        words = [sys.executable, "-c", LAUNCH, str(prepare(job)), str(log)]
        started.append(subprocess.Popen(words, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start_job
    for process in started:
        process.kill()
        process.communicate()


def ranks_of(job: Job) -> list[int]:
    """Return the ids of training processes that work on this job."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if str(job.folder / "job.json") in words:
            found.append(int(folder.name))
    return found


def wait_until(condition: Callable[[], bool], *, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_a_rank_dies_with_its_starter_before_it_has_imported_torch(tmp_path: Path) -> None:
    fake = tmp_path / "path" / "torch"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text(SLEEPER)
    said = tmp_path / "pid"
    env = os.environ | {"PYTHONPATH": str(fake.parent), "SAID": str(said)}
    starter = subprocess.Popen([sys.executable, "-c", STARTER], env=env)
    wait_until(lambda: said.exists() and said.read_text() != "")
    rank = int(said.read_text())
    assert not gone(rank)
    starter.kill()
    starter.wait()
    wait_until(lambda: gone(rank), seconds=10)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_all_ranks_die_with_the_parent_and_go_on_to_the_same_weights(
    make_job: MakeJob, tmp_path: Path, start: Start, strategy: str
) -> None:
    job = make_job(24, epochs=6, launcher=TWO | {"strategy": strategy})
    log = tmp_path / "train.log"
    parent = start(job, log)
    wait_until(lambda: len(read_log(job.log)) >= 5)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    wait_until(lambda: not ranks_of(job), seconds=20)
    steps = json.loads((job.preflight / "preflight.json").read_text())["steps"]
    assert len(read_log(job.log)) < steps, "it was over before it was killed"

    summary = train(job, name="again", log=log)
    undisturbed = dataclasses.replace(job, folder=tmp_path / "undisturbed")
    train(undisturbed, name="undisturbed", log=log)
    assert not ranks_of(job)
    assert summary["steps"] == steps
    ours, theirs = (load_file(j.model / "model.safetensors") for j in (job, undisturbed))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert read_log(job.log)[0]["loss"] == read_log(undisturbed.log)[0]["loss"]


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_training_and_is_named(
    make_job: MakeJob, tmp_path: Path, start: Start
) -> None:
    job = make_job(30, epochs=60, launcher=TWO)
    log = tmp_path / "train.log"
    launcher = start(job, log)
    wait_until(lambda: len(read_log(job.log)) >= 2)
    second = [pid for pid in ranks_of(job) if rank_of(pid) == "1"]
    os.kill(second[0], signal.SIGKILL)
    _, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 1
    assert "process 1 of the training was killed (signal 9), as a rule because memory" in said
    assert not ranks_of(job)


def rank_of(pid: int) -> str | None:
    try:
        pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    except OSError:
        return None
    return dict(pair.partition("=")[::2] for pair in pairs).get("RANK")


@pytest.mark.slow
def test_what_the_ranks_refuse_is_raised_here_in_their_words(
    make_job: MakeJob, tmp_path: Path
) -> None:
    job = make_job(4, max_tokens=20, launcher=TWO)
    with pytest.raises(TrainError, match=r"are longer than train\.max_tokens = 20"):
        train(job, name="short", log=tmp_path / "train.log")
    assert not ranks_of(job)


def test_more_gpus_than_there_are_are_refused_before_anything_starts(
    make_job: MakeJob, tmp_path: Path
) -> None:
    there = torch.cuda.device_count()
    job = make_job(2, batch_size=there + 1, launcher={"gpus": there + 1})
    message = rf"gpus = {there + 1}, but this machine has {there} GPUs .*launcher.cpu to true"
    with pytest.raises(TrainError, match=message):
        train(job, name="many", log=tmp_path / "train.log")
    assert not (tmp_path / "train.log").exists()


def test_several_nodes_are_refused_here_and_the_way_out_is_said(
    make_job: MakeJob, tmp_path: Path
) -> None:
    job = make_job(2, launcher={"nodes": 2})
    with pytest.raises(TrainError, match=r"nodes = 2, .*cuvee train RUN --print-command"):
        train(job, name="many", log=tmp_path / "train.log")


def test_a_batch_the_processes_do_not_divide_is_refused_before_the_folder_is_touched(
    make_job: MakeJob, tmp_path: Path
) -> None:
    job = make_job(2, batch_size=3, launcher=TWO)
    with pytest.raises(TrainError, match=r"train.batch_size = 3 is no multiple"):
        train(job, name="odd", log=tmp_path / "train.log")
    assert not job.folder.exists()


def test_a_finished_job_is_taken_as_it_is_whatever_started_it(
    make_job: MakeJob, tmp_path: Path
) -> None:
    job = make_job(2, launcher={"nodes": 2})
    prepare(job)
    job.model.mkdir()
    (job.model / "train_summary.json").write_text('{"steps": 7}')
    assert train(job, name="done", log=tmp_path / "train.log") == {"steps": 7}


def test_one_process_sees_one_gpu_and_processes_on_the_cpu_see_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def visible(**launcher: object) -> str | None:
        return environment(Train.model_validate({"launcher": launcher})).get(name)

    name = "CUDA_VISIBLE_DEVICES"
    monkeypatch.setenv(name, "3,5")
    assert visible() == "3"
    assert visible(gpus=2) is None  # each of the two takes its own
    assert visible(gpus=2, cpu=True) == ""
    monkeypatch.delenv(name)
    assert visible() == "0"
    monkeypatch.setenv(name, "")
    assert visible() == ""


def test_the_hub_is_out_of_reach_unless_kernels_come_from_it() -> None:
    assert environment(Train())["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in environment(Train(kernels=True))
    assert launch.ENVIRONMENT["HF_HUB_OFFLINE"] == "1"


def test_processes_on_the_cpu_need_no_gpu() -> None:
    check_machine(Train.model_validate({"launcher": {"gpus": 64, "cpu": True}}))


REPORT = """\
step by step
Traceback (most recent call last):
RuntimeError: no such kernel
E1122 13:55:46.739000 77 torch/distributed/elastic/multiprocessing/api.py:984] failed (exitcode: 1)
Root Cause (first observed failure):
[0]:
  time      : 2026-11-22_13:55:46
  rank      : 5 (local_rank: 1)
  exitcode  : 1 (pid: 78)
"""


def test_a_rank_s_own_last_words_are_shown_and_not_the_launcher_s_report(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_text("of an earlier training\n" + REPORT)
    said = ending(1, log, since=len("of an earlier training\n"))
    assert said.startswith("process 5 of the training ended without a result (exit code 1)")
    assert said.endswith("\n  RuntimeError: no such kernel")
    assert "earlier" not in said


def test_a_training_alone_is_told_by_its_exit_code(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_text("")
    assert ending(-9, log, since=0).startswith("training was killed (signal 9), as a rule")
    assert ending(3, log, since=0).endswith(f"(exit code 3); the end of {log}:\n  (empty)")
