"""Start a training and follow it: command, death with the parent, bar, errors.

Each training runs in processes of its own, which keeps torch's state and memory out of the
run, ends with it, even on `kill -9`, and can be several: `train.launcher` says how many and
`cuvee.train.accelerate_config` what is run then. Not here: what they do (`cuvee.train.sft`).
"""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cuvee.errors import DataError, TrainError
from cuvee.models.process import end_all, guarded
from cuvee.progress import bar
from cuvee.recipe import Train
from cuvee.train.accelerate_config import check, command
from cuvee.train.ending import ending
from cuvee.train.job import Job, prepare

ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "true",  # the preflight, on all cores; nothing forks after it
    "HF_HUB_OFFLINE": "1",  # the base is local by now
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "PYTHONUNBUFFERED": "1",
}
_KINDS = {"DataError": DataError, "OSError": OSError}
"""Errors of the training process that keep their type; the others become TrainError."""


def train(job: Job, *, name: str, log: Path) -> dict[str, Any]:
    """Make a specialist in `job.model`; return the summary of its training.

    A job that was killed goes on from its last complete checkpoint; one that is finished, by
    a printed command as a rule, is taken as it is. The processes' stderr is added to `log`;
    `name` labels the bar. Raises TrainError or DataError as the training process said it, or
    TrainError with the end of the log where it died without a word, and TrainError before
    anything is started where this machine cannot do what `train.launcher` says.
    """
    check(job.train)
    file = prepare(job)
    if job.finished:
        return _summary(job)
    check_machine(job.train)
    started = command(job.train, file, folder=job.folder)
    with _running(started, log, environment(job.train)) as process:
        log_begins = log.stat().st_size
        last = _follow(process, name)
        code = process.wait()
    if code == 0 and "summary" in last:
        return dict(last["summary"])
    if "error" in last:
        raise _KINDS.get(last["kind"], TrainError)(f"{name}: {last['error']}")
    raise TrainError(f"{name}: {ending(code, log, since=log_begins)}")


def check_machine(train: Train) -> None:
    """Raise TrainError where this machine alone cannot start all the processes."""
    launcher = train.launcher
    if launcher.nodes > 1:
        raise TrainError(
            f"train.launcher.nodes = {launcher.nodes}, but processes are started on this "
            "machine alone: run what `cuvee train RUN --print-command` prints on each node, "
            "then this again, which takes the finished models into the run"
        )
    if launcher.cpu or launcher.gpus is None:
        return
    import torch  # takes seconds, which a run whose trainings are done need not wait for

    there = torch.cuda.device_count()
    if launcher.gpus > there:
        raise TrainError(
            f"train.launcher.gpus = {launcher.gpus}, but this machine has {there} GPUs that "
            f"torch {torch.__version__} can use: lower train.launcher.gpus, or set "
            "train.launcher.cpu to true to try it out in processes on the CPU"
        )


def environment(train: Train) -> dict[str, str]:
    """Return what is set in the environment of a training's processes on this machine."""
    values = dict(ENVIRONMENT)
    if train.kernels:
        del values["HF_HUB_OFFLINE"]  # they are loaded from the hub
    if train.launcher.cpu:
        values["CUDA_VISIBLE_DEVICES"] = ""
    elif train.launcher.processes == 1:
        # transformers would deal each batch out to all the GPUs that one process sees.
        values["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    return values


def _summary(job: Job) -> dict[str, Any]:
    file = job.model / "train_summary.json"
    summary: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return summary


def _follow(process: "subprocess.Popen[str]", name: str) -> dict[str, Any]:
    """Show the steps as they come; return the last line that is not a step."""
    lines = _lines(process)
    first = next(lines, {})
    if "steps" not in first:
        return first
    with bar(name, total=first["steps"], unit="steps") as tick:
        tick(first["done"])
        for line in lines:
            if "step" not in line:
                return line
            tick(1)
    return {}


def _lines(process: "subprocess.Popen[str]") -> Iterator[dict[str, Any]]:
    if process.stdout is None:
        return
    for text in process.stdout:
        with suppress(ValueError):  # cut short by a kill
            yield json.loads(text)


@contextmanager
def _running(
    command: list[str], log: Path, env: Mapping[str, str]
) -> "Iterator[subprocess.Popen[str]]":
    """Run a command while the block runs; it dies with us, and leaves nothing behind."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as errors:
        process = subprocess.Popen(
            guarded(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **env},
            start_new_session=True,  # Ctrl-C reaches us alone; we end the group
        )
    try:
        yield process
    finally:
        end_all(process.pid, wait=0)  # checkpoints are safe against it: nothing to wait for
        process.communicate()
