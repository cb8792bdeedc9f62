"""A pool of worker processes that are killed when they take too long.

`run` maps JSON tasks to JSON answers, in order. Tasks go out in lists, answers come back one
by one: each task has its own deadline, watched from outside, so that it holds for code that
never returns to Python, and what a worker cannot finish costs its own task only. Idle workers
stay for the next call (starting one costs a second or two) and die with this process. Not
here: what a task means (`cuvee.verify.math.symbolic`), the worker's side (`worker`).

Workers are fresh processes (no fork: the caller may have threads), and no pickle passes.
"""

import atexit
import dataclasses
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import wait
from typing import IO, Any, Literal

from cuvee.errors import VerifierError
from cuvee.progress import Tick
from cuvee.verify.math.worker import LEAVING, READY

START_SECONDS = 120.0
"""A worker that is not ready by then is a fault of ours, not of a task."""
MOST_TASKS = 16
"""In one list: what a pipe costs is small beside them, and a slow one delays few."""
MOST_BYTES = 1 << 20
TASKS_FOR_A_START = 4
"""A further worker is started for so many tasks: it costs as much as a hundred of them."""
_CHUNK = 1 << 16


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

    command: tuple[str, ...]
    process: "subprocess.Popen[bytes]"
    errors: IO[bytes]
    begun: float
    """When the task in hand (or the start) began, by `time.monotonic`."""
    deadline: float
    started: bool = False
    ready: bool = False
    """It waits for a list of tasks."""
    tasks: deque[int] = dataclasses.field(default_factory=deque)
    """Indices of the tasks it was sent and has not answered, the one in hand first."""
    heard: bytes = b""
    over: bool = False

    @property
    def channel(self) -> int:
        assert self.process.stdout is not None  # for the type checker: it is a pipe
        return self.process.stdout.fileno()


_lock = threading.Lock()
_idle: list[_Worker] = []
_starter: ThreadPoolExecutor | None = None
"""The one thread that starts workers: Linux kills them when the thread that did so ends."""


def run(
    command: Sequence[str],
    tasks: Sequence[Any],
    *,
    processes: int,
    seconds: float,
    tick: Tick,
) -> list[Outcome]:
    """Answer every task by a worker; return the outcomes in the order of the tasks.

    `command` starts a worker that calls `worker.serve`. A task that takes longer than `seconds`
    of wall time ends as `timeout`, one whose worker dies as `crash`; the worker is replaced.
    `tick` counts tasks as they end. Safe to call from several threads at once: each call has
    workers of its own. Raises VerifierError where a worker does not start.
    """
    outcomes: dict[int, Outcome] = {}
    queue = deque(range(len(tasks)))
    workers: list[_Worker] = []
    try:
        while len(outcomes) < len(tasks):
            _staff(workers, tuple(command), queue, processes=processes)
            for worker in workers:
                if worker.ready and queue:
                    indices = _share(queue, tasks, processes=processes)
                    _send(worker, indices, tasks, seconds=seconds)
            for worker in _heard_from(workers):
                ended = _hear(worker, seconds=seconds)
                outcomes.update(ended)
                tick(len(ended))
                if worker.over:
                    workers.remove(worker)
                    queue.extendleft(reversed(worker.tasks))
                    _end(worker)
    finally:
        for worker in workers:
            _keep(worker)
    return [outcomes[index] for index in range(len(tasks))]


def close() -> None:
    """End the workers that wait for a next call; a later call starts new ones."""
    with _lock:
        ended = list(_idle)
        _idle.clear()
    for worker in ended:
        _end(worker)


def _forget() -> None:
    """In a forked child: the waiting workers are the parent's, and the thread is not there."""
    global _starter, _lock  # what a fork has to renew
    _starter, _lock = None, threading.Lock()
    _idle.clear()


os.register_at_fork(after_in_child=_forget)
atexit.register(close)


def _staff(
    workers: list[_Worker], command: tuple[str, ...], queue: Sequence[int], *, processes: int
) -> None:
    """Take or start workers, one for every few tasks that nobody has yet."""
    global _starter
    free = sum(not worker.tasks for worker in workers)
    useful = -(-len(queue) // TASKS_FOR_A_START) - free
    for _ in range(min(processes - len(workers), useful)):
        worker = _take(command)
        if worker is None:
            with _lock:
                _starter = _starter or ThreadPoolExecutor(1, "cuvee-math-pool")
            worker = _starter.submit(_start, command).result()
        workers.append(worker)


def _take(command: tuple[str, ...]) -> _Worker | None:
    """Take a waiting worker; one that died meanwhile is cleared away."""
    while True:
        with _lock:
            found = next((worker for worker in _idle if worker.command == command), None)
            if found is None:
                return None
            _idle.remove(found)
        if found.process.poll() is None:
            return found
        _end(found)


def _keep(worker: _Worker) -> None:
    """Let a worker wait for the next call, or end it where it is busy or one too many."""
    with _lock:
        wanted = not worker.tasks and worker.process.poll() is None
        wanted = wanted and len(_idle) < (os.cpu_count() or 1)
        if wanted:
            _idle.append(worker)
    if not wanted:
        _end(worker)


def _start(command: tuple[str, ...]) -> _Worker:
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in _end
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
    )
    now = time.monotonic()
    worker = _Worker(command, process, errors, begun=now, deadline=now + START_SECONDS)
    os.set_blocking(worker.channel, False)
    return worker


def _share(queue: deque[int], tasks: Sequence[Any], *, processes: int) -> list[int]:
    """Take the next tasks for one worker off the queue: few enough to keep all of them busy."""
    most = max(1, min(MOST_TASKS, len(queue) // (2 * processes)))
    indices = [queue.popleft()]
    size = _size(tasks[indices[0]])
    while queue and len(indices) < most and (size := size + _size(tasks[queue[0]])) < MOST_BYTES:
        indices.append(queue.popleft())
    return indices


def _size(task: Any) -> int:
    return len(json.dumps(task))


def _send(worker: _Worker, indices: list[int], tasks: Sequence[Any], *, seconds: float) -> None:
    """Send a list of tasks; the worker reads all of it before it begins the first."""
    worker.ready = False
    worker.tasks.extend(indices)
    worker.begun = time.monotonic()
    worker.deadline = worker.begun + seconds
    assert worker.process.stdin is not None  # for the type checker: it is a pipe
    try:
        worker.process.stdin.write(json.dumps([tasks[i] for i in indices]).encode() + b"\n")
        worker.process.stdin.flush()
    except BrokenPipeError:
        pass  # it died; reading from it says so


def _heard_from(workers: Sequence[_Worker]) -> list[_Worker]:
    """Wait until a worker says something or is late; return those."""
    busy = [w for w in workers if not w.ready]  # what waits for us cannot be late
    deadline = min(w.deadline for w in busy)
    said = wait([w.channel for w in workers], max(0.0, deadline - time.monotonic()))
    now = time.monotonic()
    return [w for w in workers if w.channel in said or (w in busy and now >= w.deadline)]


def _hear(worker: _Worker, *, seconds: float) -> dict[int, Outcome]:
    """Take in what a worker says; return the tasks that ended with their outcomes."""
    try:
        chunk = os.read(worker.channel, _CHUNK)
    except BlockingIOError:
        return _cut(worker, Outcome("timeout", detail="no answer in time"))
    if not chunk:
        return _cut(worker, Outcome("crash", detail=_last_words(worker)))
    ended: dict[int, Outcome] = {}
    *lines, worker.heard = (worker.heard + chunk).split(b"\n")
    for line in lines:
        now = time.monotonic()
        said = json.loads(line)
        if said == READY:
            worker.started = worker.ready = True
        elif said == LEAVING:
            worker.over = True
        else:
            taken = now - worker.begun
            ended[worker.tasks.popleft()] = Outcome("done", said, seconds=taken)
        worker.begun, worker.deadline = now, now + seconds
    return ended


def _cut(worker: _Worker, outcome: Outcome) -> dict[int, Outcome]:
    """End a worker's part: what it had in hand ends with it, what it had not begun does not."""
    worker.over = True
    if not worker.started:
        command = " ".join(worker.command)
        raise VerifierError(f"{command} did not start: {outcome.detail}")
    if not worker.tasks:
        return {}  # it ended while it waited
    seconds = time.monotonic() - worker.begun
    return {worker.tasks.popleft(): dataclasses.replace(outcome, seconds=seconds)}


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
