"""A process of ours that serves something: its start, its log, its pid file and its end.

In `folder` stand NAME.log (stderr, of all its starts), NAME.out (stdout of the last) and,
while it runs, NAME.pid. Its end is the end of all it started: when `running` returns they
are gone, and so is what they held of a GPU's memory. Not here: what is served and how one
sees that it is ready (`cuvee.models.engines`).
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cuvee.atomic import write_text
from cuvee.errors import EngineError

END_SECONDS = 10.0
"""Between asking a process to end and killing it."""
POLL_SECONDS = 0.02
TAIL_BYTES = 1 << 16
TAIL_LINES = 15


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
        end_all(pid)
        process.popen.wait()
        pid_file.unlink(missing_ok=True)
        if died is not None and not isinstance(sys.exc_info()[1], EngineError):
            raise failure(process, f"ended by itself (exit code {died})")


def failure(process: Process, what: str) -> EngineError:
    """Return the error that says what happened, with the end of the process's log."""
    end = tail(process.log)
    return EngineError(f"engine {process.name}: {what}; the end of its log {process.log}:\n{end}")


def tail(log: Path) -> str:
    """Return the last lines of a log, indented, for an error's message."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-TAIL_LINES:]) or "  (empty)"


def guarded(command: Sequence[str], death_signal: signal.Signals = signal.SIGKILL) -> list[str]:
    """Return the command that runs `command` and gets `death_signal` when this thread ends."""
    parent, number = str(os.getpid()), str(int(death_signal))
    return [sys.executable, "-m", "cuvee.models.guard", parent, number, *command]


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
            end_all(pid)
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
    with log.open("ab") as errors, out.open("wb") as output:
        popen = subprocess.Popen(
            guarded(command, death_signal),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            start_new_session=True,  # Ctrl-C reaches us alone; we end the engine in order
        )
    return Process(name=name, popen=popen, log=log, out=out)


def end_all(pid: int, *, wait: float = END_SECONDS) -> None:
    """End a process that leads a session, and all that it started, and wait until they are gone.

    Its process group is asked to end (SIGTERM); what is left when it has ended, or after
    `wait` seconds, is killed: everything of its session, and everything that descends from
    it, also where a child left the session. Only what has been orphaned in a session of its
    own is not found.
    """
    start, family = _start_ticks(pid), _family(pid)
    _signal_group(pid, signal.SIGTERM)
    _wait_while(lambda: start is not None and _start_ticks(pid) == start, wait)
    family |= _family(pid)
    for member, born in family.items():
        if _start_ticks(member) == born:
            with suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)
    # A killed process frees its memory before it becomes a zombie.
    _wait_while(lambda: any(_start_ticks(m) == born for m, born in family.items()), END_SECONDS)


def _wait_while(true: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while true() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _family(pid: int) -> dict[int, int]:
    """Return the processes of the session `pid` and all that descend from them: id -> start."""
    stats = {}
    for folder in Path("/proc").glob("[0-9]*"):
        if (fields := _stat(int(folder.name))) is not None:
            stats[int(folder.name)] = fields
    found: dict[int, int] = {}
    new = {p for p, fields in stats.items() if int(fields[3]) == pid}
    while new:
        found |= {p: int(stats[p][19]) for p in new}
        new = {p for p, fields in stats.items() if int(fields[1]) in new} - found.keys()
    return found


def _start_ticks(pid: int) -> int | None:
    """Return when a process began, in clock ticks since boot; None where none runs."""
    fields = _stat(pid)
    return None if fields is None else int(fields[19])


def _stat(pid: int) -> list[str] | None:
    """Return a process's fields of proc(5) from the third on; None where none runs.

    0 is the state, 1 the parent, 3 the session, 19 the start in clock ticks since boot.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # Field 2 is the name in brackets and may hold spaces.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, number)
