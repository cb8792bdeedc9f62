"""A pool of worker processes that are killed when they take too long.

`run` maps JSON tasks to JSON answers, in order, one task in flight a worker. The deadline
is watched from outside, so it holds for code that never returns to Python; what a worker
cannot finish costs its own task only. `serve` is the worker's side. Not here: what a task
means (`cuvee.verify.math`).

Workers are fresh processes (no fork: the caller may have threads), and no pickle passes.
"""

import ctypes
import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from typing import IO, Any, Literal

from cuvee.errors import VerifierError
from cuvee.progress import Tick

START_SECONDS = 120.0
"""A worker that is not ready by then is a fault of ours, not of a task."""
_CHUNK = 1 << 16
_READY = b'"ready"\n'


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one task."""

    status: Literal["done", "timeout", "crash"]
    value: Any = None
    """The worker's answer, a JSON value; None unless `done`."""
    detail: str | None = None
    """How the worker ended, for `crash`."""
    seconds: float = 0.0


@dataclasses.dataclass(eq=False)
class _Worker:
    """A running worker process and what it is doing."""

    process: "subprocess.Popen[bytes]"
    errors: IO[bytes]
    begun: float
    deadline: float
    task: int | None = None
    """Index of the task in flight; None while it starts."""
    heard: bytes = b""

    @property
    def channel(self) -> int:
        assert self.process.stdout is not None  # for the type checker: it is a pipe
        return self.process.stdout.fileno()


def run(
    command: Sequence[str],
    tasks: Sequence[Any],
    *,
    processes: int,
    seconds: float,
    tick: Tick,
) -> list[Outcome]:
    """Answer every task by a worker; return the outcomes in the order of the tasks.

    `command` starts a worker that calls `serve`. A task that takes longer than `seconds` of
    wall time ends as `timeout`, one whose worker dies as `crash`; the worker is replaced.
    `tick(1)` is called as each task ends. Raises VerifierError where a worker does not start.
    """
    outcomes: dict[int, Outcome] = {}
    queue = deque(range(len(tasks)))
    workers: list[_Worker] = []
    try:
        while len(outcomes) < len(tasks):
            starting = sum(worker.task is None for worker in workers)
            for _ in range(min(processes - len(workers), len(queue) - starting)):
                workers.append(_start(command))
            for worker, outcome in _events(workers):
                if worker.task is None and outcome.status != "done":
                    raise VerifierError(f"{' '.join(command)} did not start: {outcome.detail}")
                if worker.task is not None:
                    outcomes[worker.task] = outcome
                    tick(1)
                if outcome.status == "done" and queue:
                    index = queue.popleft()
                    _send(worker, index, tasks[index], seconds=seconds)
                else:
                    workers.remove(worker)
                    _end(worker)
    finally:
        for worker in workers:
            _end(worker)
    return [outcomes[index] for index in range(len(tasks))]


def _start(command: Sequence[str]) -> _Worker:
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in _end
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
    )
    now = time.monotonic()
    worker = _Worker(process, errors, begun=now, deadline=now + START_SECONDS)
    os.set_blocking(worker.channel, False)
    return worker


def _send(worker: _Worker, index: int, task: Any, *, seconds: float) -> None:
    worker.task, worker.heard, worker.begun = index, b"", time.monotonic()
    worker.deadline = worker.begun + seconds
    assert worker.process.stdin is not None  # for the type checker: it is a pipe
    try:
        worker.process.stdin.write(json.dumps(task).encode() + b"\n")
        worker.process.stdin.flush()
    except BrokenPipeError:
        pass  # it died; reading from it says so


def _events(workers: Sequence[_Worker]) -> list[tuple[_Worker, Outcome]]:
    """Wait until something happens; return the workers that came to an end of what they did."""
    next_deadline = min(worker.deadline for worker in workers)
    wait([w.channel for w in workers], max(0.0, next_deadline - time.monotonic()))
    heard = [(worker, _hear(worker)) for worker in workers]
    return [(worker, outcome) for worker, outcome in heard if outcome is not None]


def _hear(worker: _Worker) -> Outcome | None:
    """Return how what a worker does has ended, or None while it goes on."""
    now = time.monotonic()
    try:
        chunk = os.read(worker.channel, _CHUNK)
    except BlockingIOError:
        late = now >= worker.deadline
        return (
            Outcome("timeout", detail="no answer in time", seconds=now - worker.begun)
            if (late)
            else None
        )
    if not chunk:
        return Outcome("crash", detail=_last_words(worker), seconds=now - worker.begun)
    worker.heard += chunk
    if not worker.heard.endswith(b"\n"):
        return None
    return Outcome("done", json.loads(worker.heard), seconds=now - worker.begun)


def _last_words(worker: _Worker) -> str:
    code = worker.process.wait()
    ended = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    size = worker.errors.seek(0, os.SEEK_END)
    worker.errors.seek(max(0, size - 500))
    lines = worker.errors.read().decode("utf-8", "replace").strip().splitlines()
    return f"{ended}: {lines[-1]}" if lines else ended


def _end(worker: _Worker) -> None:
    worker.process.kill()
    for pipe in (worker.process.stdin, worker.process.stdout):
        try:
            if pipe is not None:
                pipe.close()
        except BrokenPipeError:
            pass  # what it did not read in its life is of no use to it now
    worker.process.wait()
    worker.errors.close()


def serve(answer: Callable[[Any], Any], *, memory_mb: int) -> None:
    """Be a worker: answer the tasks on stdin, one JSON line each, until it closes.

    May take up `memory_mb` MiB of address space beyond what it has now. Dies with the thread
    that started it. What `answer` raises ends the process: the pool calls that a crash.
    """
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - no file to keep
        pages = int(file.read().split()[0])
    limit = pages * resource.getpagesize() + memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with os.fdopen(os.dup(1), "wb") as channel:
        os.dup2(2, 1)  # whatever a library prints must not reach the channel
        channel.write(_READY)
        channel.flush()
        for line in sys.stdin.buffer:
            channel.write(json.dumps(answer(json.loads(line))).encode() + b"\n")
            channel.flush()
