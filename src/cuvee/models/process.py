"""A process of ours that serves something: its start, its log, its pid file and its end.

In `folder` stand NAME.log (stderr), NAME.out (stdout) and, while it runs, NAME.pid. Not
here: what is served and how one sees that it is ready (`cuvee.models.engines`).
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cuvee.atomic import write_text
from cuvee.errors import EngineError

END_SECONDS = 10.0
"""Between asking a process to end and killing it."""
POLL_SECONDS = 0.02
_TAIL_LINES = 15


@dataclasses.dataclass(frozen=True)
class Process:
    """A running process."""

    name: str
    popen: "subprocess.Popen[bytes]"
    log: Path
    out: Path


@contextmanager
def running(
    command: Sequence[str],
    *,
    name: str,
    folder: Path,
    env: Mapping[str, str] | None = None,
    death_signal: signal.Signals = signal.SIGKILL,
) -> Iterator[Process]:
    """Run a command while the block runs; it dies with this thread, even on `kill -9`.

    `name` names its files in `folder` and must be no other running process's; `env` is added
    to the environment; `death_signal` is what it gets when its parent dies. Raises
    EngineError, with the end of its log, where it had ended by itself before the block did.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pid_file = folder / f"{name}.pid"
    process = _start(command, name=name, folder=folder, env=env, death_signal=death_signal)
    pid = process.popen.pid
    try:
        write_text(pid_file, json.dumps({"pid": pid, "start": _start_ticks(pid)}))
        yield process
    finally:
        died = process.popen.poll()
        _end_group(pid)
        process.popen.wait()
        pid_file.unlink(missing_ok=True)
        if died is not None and not isinstance(sys.exc_info()[1], EngineError):
            raise failure(process, f"ended by itself (exit code {died})")


def failure(process: Process, what: str) -> EngineError:
    """Return the error that says what happened, with the end of the process's log."""
    lines = process.log.read_text(encoding="utf-8", errors="replace").splitlines()
    tail = "\n".join(f"  {line}" for line in lines[-_TAIL_LINES:]) or "  (empty)"
    return EngineError(f"engine {process.name}: {what}; the end of its log {process.log}:\n{tail}")


def end_stale(folder: Path) -> int:
    """End what an earlier run left running, by the pid files in `folder`; return how many.

    A process id that another process has meanwhile is left alone: the file holds the start
    time too. Pid files are removed. Call it only while holding the run folder.
    """
    ended = 0
    for file in sorted(folder.glob("*.pid")):
        try:
            entry = json.loads(file.read_text(encoding="utf-8"))
            pid, start = int(entry["pid"]), entry["start"]
        except (ValueError, KeyError, TypeError):
            pid, start = 0, None  # cut short by a crash: names no process
        if start is not None and _start_ticks(pid) == start:
            _end_group(pid)
            ended += 1
        file.unlink()
    return ended


def _start(
    command: Sequence[str],
    *,
    name: str,
    folder: Path,
    env: Mapping[str, str] | None,
    death_signal: signal.Signals,
) -> Process:
    log, out = folder / f"{name}.log", folder / f"{name}.out"
    guard = [sys.executable, "-m", "cuvee.models.guard", str(os.getpid()), str(int(death_signal))]
    with log.open("wb") as errors, out.open("wb") as output:
        popen = subprocess.Popen(
            [*guard, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            start_new_session=True,  # Ctrl-C reaches us alone; we end the engine in order
        )
    return Process(name=name, popen=popen, log=log, out=out)


def _start_ticks(pid: int) -> int | None:
    """Return when a process began, in clock ticks since boot; None where none runs."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # proc(5): field 2 is the name in brackets and may hold spaces; 3 the state, 22 the start.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _end_group(pid: int) -> None:
    """Ask the process group of `pid` (its own session) to end; kill it after END_SECONDS."""
    start, deadline = _start_ticks(pid), time.monotonic() + END_SECONDS
    _signal_group(pid, signal.SIGTERM)
    while start is not None and _start_ticks(pid) == start and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    _signal_group(pid, signal.SIGKILL)  # what it started itself and left behind, too


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return
