"""Start the training process and follow it: command, death with the parent, bar, errors.

Each training runs in a process of its own, which keeps torch's state and memory out of the
run, ends with it, even on `kill -9`, and can later be several (torchrun, accelerate). Not
here: what it does (`cuvee.train.sft`).
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cuvee.errors import DataError, TrainError
from cuvee.models.process import end_all, guarded, tail
from cuvee.progress import bar
from cuvee.train.job import Job, prepare

ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",  # the base is local by now
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "PYTHONUNBUFFERED": "1",
}
_KINDS = {"DataError": DataError, "OSError": OSError}
"""Errors of the training process that keep their type; the others become TrainError."""


def train(job: Job, *, name: str, log: Path) -> dict[str, Any]:
    """Make a specialist in `job.model`; return the summary of its training.

    A job that was killed goes on from its last complete checkpoint. The process's stderr is
    added to `log`; `name` labels the bar. Raises TrainError or DataError as the training
    process said it, or TrainError with the end of the log where it died without a word.
    """
    command = [sys.executable, "-m", "cuvee.train.sft", str(prepare(job))]
    with _running(command, log) as process:
        last = _follow(process, name)
        code = process.wait()
    if code == 0 and "summary" in last:
        return dict(last["summary"])
    if "error" in last:
        raise _KINDS.get(last["kind"], TrainError)(f"{name}: {last['error']}")
    raise TrainError(f"{name}: {_ended(code)}; the end of {log}:\n{tail(log)}")


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
def _running(command: list[str], log: Path) -> "Iterator[subprocess.Popen[str]]":
    """Run a command while the block runs; it dies with us, and leaves nothing behind."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as errors:
        process = subprocess.Popen(
            guarded(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **ENVIRONMENT},
            start_new_session=True,  # Ctrl-C reaches us alone; we end the group
        )
    try:
        yield process
    finally:
        end_all(process.pid, wait=0)  # checkpoints are safe against it: nothing to wait for
        process.communicate()


def _ended(code: int) -> str:
    if code == -signal.SIGKILL:
        return "training was killed (signal 9), as a rule because memory ran out"
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"training ended without a result ({how})"
