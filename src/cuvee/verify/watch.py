"""Watches one running program: reads what it says within bounds and ends it at its deadline.

A process with pipes in, how it ended and what it said out. Nothing is read without a bound
and nothing waits without a deadline. Not here: how the program was started
(`cuvee.verify.sandbox`), nor what its reports mean (`cuvee.verify.code`).
"""

import dataclasses
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

START_SECONDS = 60.0
"""What has not sent its first report by then failed by our fault, not the program's."""
OUTPUT_BYTES = 8 * 2**20
"""Of stdout, stderr and reports together."""
_CHUNK = 1 << 16
_TAIL_BYTES = 2000

How = Literal["exit", "stopped", "time_limit", "output_limit", "not_started"]

OnReport = Callable[[bytes], bool]
"""Gets a report, one line without its end; returns whether the program may go on."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a program may use."""

    seconds: float
    """Of wall time, until the next report."""
    memory_mb: int
    """MiB of address space beyond the bare interpreter's."""
    extensions: int = 0
    """How many reports, after the first, begin the time anew: one for each further case."""


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a program ended."""

    how: How
    """`stopped`: `on_report` said so. `not_started`: the sandbox failed, not the program."""
    exit_code: int
    """Over 128: 128 + the signal that ended it."""
    stdout: bytes
    stderr: str
    """Its end."""
    seconds: float
    """From its first report on."""


@dataclasses.dataclass
class _Watched:
    """What is known of a program so far."""

    reports: int
    """Descriptor of the pipe its reports come through."""
    limits: Limits
    on_report: OnReport
    heard: dict[int, bytearray]
    """Descriptor of a pipe -> what came through it; of the reports, the unfinished line."""
    deadline: float
    begun: float | None = None
    extended: int = 0
    bytes_left: int = OUTPUT_BYTES
    stopped: bool = False


def watch(
    process: "subprocess.Popen[bytes]", reports: int, *, limits: Limits, on_report: OnReport
) -> Ended:
    """Watch a process until it ends or must be ended; then kill its whole process group.

    Its stdout and stderr are pipes, `reports` is the reading end of a third; it leads a
    session of its own. The time begins with its first report.
    """
    assert process.stdout is not None  # for the type checker: both are pipes
    assert process.stderr is not None
    out, err = process.stdout.fileno(), process.stderr.fileno()
    watched = _Watched(
        reports,
        limits,
        on_report,
        heard={reports: bytearray(), out: bytearray(), err: bytearray()},
        deadline=time.monotonic() + START_SECONDS,
    )
    try:
        how = _until_end(watched, process.pid)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
    if how == "exit":
        how = _drain(watched)
    if watched.begun is None:
        how = "not_started"
    process.stdout.close()
    process.stderr.close()
    return Ended(
        how,
        exit_code=code if code >= 0 else 128 - code,
        stdout=bytes(watched.heard[out]),
        stderr=watched.heard[err][-_TAIL_BYTES:].decode("utf-8", "replace"),
        seconds=time.monotonic() - (watched.begun or time.monotonic()),
    )


def _until_end(watched: _Watched, pid: int) -> How:
    pid_fd = os.pidfd_open(pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(pid_fd, selectors.EVENT_READ)
            for number in watched.heard:
                os.set_blocking(number, False)
                selector.register(number, selectors.EVENT_READ)
            while True:
                left = watched.deadline - time.monotonic()
                ready = {key.fd for key, _ in selector.select(max(0.0, left))}
                for number in ready - {pid_fd}:
                    if _read(watched, number) == 0:
                        selector.unregister(number)
                if (how := _must_end(watched)) is not None:
                    return how
                if pid_fd in ready:
                    return "exit"
                if time.monotonic() >= watched.deadline:
                    return "time_limit"
    finally:
        os.close(pid_fd)


def _drain(watched: _Watched) -> How:
    """Read what is left in the pipes of a process that has ended."""
    for number in watched.heard:
        while _must_end(watched) is None and (_read(watched, number) or 0) > 0:
            pass
    return _must_end(watched) or "exit"


def _must_end(watched: _Watched) -> How | None:
    if watched.stopped:
        return "stopped"
    return "output_limit" if watched.bytes_left < 0 else None


def _read(watched: _Watched, number: int) -> int | None:
    """Read once; return how many bytes: 0 at the end of the pipe, None where nothing waits."""
    try:
        chunk = os.read(number, _CHUNK)
    except BlockingIOError:
        return None
    watched.bytes_left -= len(chunk)
    watched.heard[number] += chunk
    if number == watched.reports and b"\n" in chunk:
        *lines, rest = bytes(watched.heard[number]).split(b"\n")
        watched.heard[number] = bytearray(rest)
        for line in lines:
            _take(watched, line)
    return len(chunk)


def _take(watched: _Watched, line: bytes) -> None:
    """Hand on a report; the first begins the time, further ones extend it while they may."""
    now = time.monotonic()
    if watched.begun is None:
        watched.begun = now
        watched.deadline = now + watched.limits.seconds
    elif watched.extended < watched.limits.extensions:
        watched.extended += 1
        watched.deadline = now + watched.limits.seconds
    if not watched.stopped:
        watched.stopped = not watched.on_report(line)
