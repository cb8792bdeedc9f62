"""Training in a process of its own: killed and gone on with, and what its end is told as."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cuvee.errors import TrainError
from cuvee.train.job import Job, prepare, read_job
from cuvee.train.launch import train
from cuvee.train.sft import run
from cuvee.train.watch import complete_checkpoint, read_log

pytestmark = [
    pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.usefixtures("one_thread"),
]

MakeJob = Callable[..., Job]
LAUNCH = """
import sys
from pathlib import Path
from cuvee.train.job import read_job
from cuvee.train.launch import train
train(read_job(Path(sys.argv[1])), name="killed", log=Path(sys.argv[2]))
"""


def processes_of(job: Job) -> list[int]:
    """Return the ids of training processes that work on this job."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            command = (folder / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if "cuvee.train.sft" in command and str(job.folder / "job.json") in command:
            found.append(int(folder.name))
    return found


def wait_until(condition: Callable[[], bool], *, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def test_killed_with_its_parent_and_begun_again_it_ends_in_the_same_weights(
    make_job: MakeJob, tmp_path: Path
) -> None:
    job = make_job(30, epochs=3)
    log = tmp_path / "train.log"
    parent = subprocess.Popen([sys.executable, "-c", LAUNCH, str(prepare(job)), str(log)])
    wait_until(lambda: len(read_log(job.log)) >= 5)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    wait_until(lambda: not processes_of(job))  # it dies with its parent
    steps = json.loads((job.preflight / "preflight.json").read_text())["steps"]
    assert len(read_log(job.log)) < steps, "it was over before it was killed"

    summary = train(job, name="again", log=log)
    undisturbed = dataclasses.replace(job, folder=tmp_path / "undisturbed")
    with (tmp_path / "told").open("w") as told:
        run(read_job(prepare(undisturbed)), told)

    assert summary["steps"] == steps
    ours, theirs = (load_file(j.model / "model.safetensors") for j in (job, undisturbed))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    lines = [
        [(x["step"], x["loss"], x["tokens"]) for x in read_log(j.log)] for j in (job, undisturbed)
    ]
    assert lines[0] == lines[1]


def test_what_the_process_refuses_is_raised_here_in_its_words(
    make_job: MakeJob, tmp_path: Path
) -> None:
    job = make_job(2, max_tokens=20)
    with pytest.raises(TrainError, match=r"all 2 examples are longer than train.max_tokens = 20"):
        train(job, name="short", log=tmp_path / "train.log")
    assert not processes_of(job)


def test_a_death_without_a_word_shows_the_end_of_the_log(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "path" / "torch"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('no torch today')")
    monkeypatch.setenv("PYTHONPATH", str(broken.parent))
    with pytest.raises(TrainError, match=r"exit code 1(.|\n)*no torch today"):
        train(make_job(2), name="dead", log=tmp_path / "train.log")


def test_a_checkpoint_without_its_mark_is_removed_and_not_taken(tmp_path: Path) -> None:
    for step, complete in [(3, True), (12, True), (15, False)]:
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"")
        if complete:
            (folder / "COMPLETE").touch()
    assert complete_checkpoint(tmp_path) == tmp_path / "checkpoint-12"
    assert not (tmp_path / "checkpoint-15").exists()
    assert complete_checkpoint(tmp_path / "nowhere") is None


def test_a_log_cut_short_in_its_last_line_is_read_up_to_there(tmp_path: Path) -> None:
    file = tmp_path / "train_log.jsonl"
    file.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_log(file) == [{"step": 1}, {"step": 2}]


def test_a_job_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text('{"base": 1}')
    with pytest.raises(TrainError, match=r"job\.json: not a readable training job"):
        read_job(tmp_path / "job.json")
