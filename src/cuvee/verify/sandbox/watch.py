"""Watches one running program: reads what it says within bounds, ends it in time.

The parent's ends of a program's pipes in, how it ended and what it said out. Nothing is read
without a bound and nothing waits without a deadline. Not here: how the program was started
(`cuvee.verify.sandbox.warm`), nor what its reports mean (`cuvee.verify.code`).
"""

import dataclasses
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from cuvee.verify.sandbox.namespaces import TMP_BYTES
from cuvee.verify.sandbox.warm import START_SECONDS

OUTPUT_BYTES = 8 * 2**20
_CHUNK = 1 << 16
_TAIL_BYTES = 2000
_LOOK_SECONDS = 0.25
"""How often a folder without a cap of its own is measured."""
_FILES = 4096
"""More files than this in such a folder are too many to measure."""
_END_SECONDS = 10.0
"""By then the kernel has ended what was killed."""

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
    output_bytes: int = OUTPUT_BYTES
    """Of stdout, stderr and reports together."""


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a program ended."""

    how: How
    """`stopped`: `on_report` said so. `not_started`: the sandbox failed, not the program."""
    exit_code: int
    """Over 128: 128 + the signal that ended it."""
    stdout: bytes
    stderr: str
    """Its end; what failed where the program was not started."""
    seconds: float
    """From its first report on."""


@dataclasses.dataclass(frozen=True)
class Pipes:
    """Our ends of a program's pipes, not blocking; whoever opened them closes them."""

    channel: socket.socket
    """From the server: how to end the program, how it ended."""
    stdout: int
    stderr: int
    reports: int


@dataclasses.dataclass
class _Watched:
    """What is known of a program so far."""

    pipes: Pipes
    limits: Limits
    on_report: OnReport
    folder: Path | None
    heard: dict[int, bytearray]
    """Descriptor of a pipe -> what came through it; of the reports, the unfinished line."""
    deadline: float
    bytes_left: int
    handle: int | None = None
    """The descriptor by which the program and its processes are ended."""
    exit_code: int | None = None
    failed: str | None = None
    begun: float | None = None
    extended: int = 0
    stopped: bool = False
    looked: float = 0.0


def watch(pipes: Pipes, *, limits: Limits, on_report: OnReport, folder: Path | None) -> Ended:
    """Watch a program until it ends or must be ended; then kill whatever is left of it.

    The time begins with its first report. `folder`: where it may write without the kernel
    counting; it is ended, as for its output, where more than 64 MiB stand there.
    """
    watched = _Watched(
        pipes,
        limits,
        on_report,
        folder=folder,
        heard={number: bytearray() for number in (pipes.reports, pipes.stdout, pipes.stderr)},
        deadline=time.monotonic() + START_SECONDS,
        bytes_left=limits.output_bytes,
    )
    try:
        how = _until_end(watched)
        if how == "exit":
            how = _drain(watched)
    finally:
        if watched.handle is not None:
            _end(watched.handle, wait=watched.exit_code is None)
            os.close(watched.handle)
    return _ended(watched, how)


def _end(handle: int, *, wait: bool) -> None:
    """Kill a program with all that it started."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    if wait:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        poll.poll(_END_SECONDS * 1000)


def _ended(watched: _Watched, how: How) -> Ended:
    stderr = watched.heard[watched.pipes.stderr][-_TAIL_BYTES:].decode("utf-8", "replace")
    if watched.begun is None or watched.failed is not None:
        how = "not_started"
        stderr = watched.failed or stderr or "the program was not begun in time"
    code = -signal.SIGKILL if watched.exit_code is None else watched.exit_code
    return Ended(
        how,
        exit_code=code if code >= 0 else 128 - code,
        stdout=bytes(watched.heard[watched.pipes.stdout]),
        stderr=stderr,
        seconds=0.0 if watched.begun is None else time.monotonic() - watched.begun,
    )


def _until_end(watched: _Watched) -> How:
    channel = watched.pipes.channel.fileno()
    poll = select.poll()
    for number in (*watched.heard, channel):
        poll.register(number, select.POLLIN)
    while True:
        for number, _ in poll.poll(_patience(watched) * 1000):
            more = _hear_server(watched) if number == channel else _read(watched, number) != 0
            if not more:
                poll.unregister(number)
        if (how := _too_much(watched)) is not None:
            return how
        if watched.exit_code is not None or watched.failed is not None:
            return "exit"
        if time.monotonic() >= watched.deadline:
            return "time_limit"


def _patience(watched: _Watched) -> float:
    left = max(0.0, watched.deadline - time.monotonic())
    return left if watched.folder is None else min(left, _LOOK_SECONDS)


def _hear_server(watched: _Watched) -> bool:
    """Take what the server says of the program: how to end it, how it ended, what failed.

    Returns whether it may say more.
    """
    message, handles, _, _ = socket.recv_fds(watched.pipes.channel, _CHUNK, 1)
    if handles:
        watched.handle = handles[0]
    said = json.loads(message or b"{}")
    watched.exit_code = said.get("exit_code", watched.exit_code)
    watched.failed = said.get("failed", watched.failed)
    if not message and watched.exit_code is None and watched.failed is None:
        watched.failed = "the sandbox ended before the program"
    return bool(message)


def _drain(watched: _Watched) -> How:
    """Read what is left in the pipes of a program that has ended."""
    for number in watched.heard:
        while _too_much(watched) is None and (_read(watched, number) or 0) > 0:
            pass
    return _too_much(watched) or "exit"


def _too_much(watched: _Watched) -> How | None:
    """Return why a program must be ended, whatever time it has."""
    if watched.stopped:
        return "stopped"
    if watched.bytes_left < 0:
        return "output_limit"
    now = time.monotonic()
    if watched.folder is not None and now > watched.looked + _LOOK_SECONDS:
        watched.looked = now
        if _holds_too_much(watched.folder):
            return "output_limit"
    return None


def _holds_too_much(folder: Path) -> bool:
    total = files = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(place, name)).st_blocks * 512  # noqa: PTH118
            files += 1
            if total > TMP_BYTES or files > _FILES:
                return True
        files += 1
    return files > _FILES


def _read(watched: _Watched, number: int) -> int | None:
    """Read once; return how many bytes: 0 at the end of the pipe, None where nothing waits."""
    try:
        chunk = os.read(number, _CHUNK)
    except BlockingIOError:
        return None
    watched.bytes_left -= len(chunk)
    watched.heard[number] += chunk
    if number == watched.pipes.reports and b"\n" in chunk:
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
