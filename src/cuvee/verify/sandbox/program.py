"""Runs one program by a warm server: opens its descriptors, asks for it, watches it, closes all.

Its stdin is a file that can only be read, as where a judge redirects it, and a new one for
each program: an open file and its position would be shared.

A job, stdin and limits in, how it ended out. Not here: which servers there are
(`cuvee.verify.sandbox`) and how they are kept (`cuvee.verify.sandbox.warm`).
"""

import json
import math
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from cuvee.errors import VerifierError
from cuvee.verify.sandbox.namespaces import TMP_BYTES
from cuvee.verify.sandbox.warm import Server, Way, request, sealed, shared_server, start, stop
from cuvee.verify.sandbox.watch import Ended, Limits, OnReport, Pipes, watch

_FOLDER_BYTES, _FOLDER_DESCRIPTORS = 16 * 2**20, 64
"""Of one file, and open at once, where a folder is measured from outside: a file that is open
but removed is not seen there, and as many as can be open must not fill the disk."""

_ANYBODY = 0o666
"""Mode of the pipes: where the program's user is another, it still may open /dev/stdout anew."""


def run_program(
    way: Way,
    job: Mapping[str, Any],
    *,
    stdin: bytes,
    limits: Limits,
    on_report: OnReport,
    peer: int | None,
) -> Ended:
    """Run a job to its end. Raises OSError where this process has no descriptors left."""
    with ExitStack() as stack:
        folder = None if way.bubblewrap else stack.enter_context(_folder())
        theirs = stack.enter_context(ExitStack())  # what only the program holds once it runs
        outputs = [_pipe(stack, theirs) for _ in ("stdout", "stderr", "report")]
        (stdout, stdout_in), (stderr, stderr_in), (report, report_in) = outputs
        given_stdin, given_job = sealed(stdin, theirs), sealed(json.dumps(job).encode(), theirs)
        given = [given_stdin, stdout_in, stderr_in, given_job, report_in]
        wanted = _wanted(limits, folder)
        try:
            server = stack.enter_context(_server(way))
            channel = _ask(way, server, wanted, [*given, *([] if peer is None else [peer])])
        except (VerifierError, ConnectionError) as error:
            return Ended("not_started", 128, b"", str(error), 0.0)
        stack.callback(channel.close)
        theirs.close()
        pipes = Pipes(channel, stdout, stderr, report)
        return watch(pipes, limits=limits, on_report=on_report, folder=folder)


def _pipe(ours: ExitStack, theirs: ExitStack) -> tuple[int, int]:
    """Return a pipe whose reading end is ours and does not block."""
    out, into = os.pipe2(os.O_CLOEXEC)
    ours.callback(os.close, out)
    theirs.callback(os.close, into)
    os.fchmod(into, _ANYBODY)
    os.set_blocking(out, False)
    return out, into


@contextmanager
def _folder() -> Iterator[Path]:
    """Give a folder to write in, removed at the end with whatever the program left there."""
    with tempfile.TemporaryDirectory(prefix="cuvee-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@contextmanager
def _server(way: Way) -> Iterator[Server]:
    if way.shared:
        yield shared_server(way)
        return
    server = start(way)
    try:
        yield server
    finally:
        stop(server)


def _ask(
    way: Way, server: Server, wanted: dict[str, Any], descriptors: Sequence[int]
) -> socket.socket:
    try:
        return request(server, wanted, descriptors)
    except ConnectionError:  # it has died since the last program; another one is started
        return request(shared_server(way) if way.shared else server, wanted, descriptors)


def _wanted(limits: Limits, folder: Path | None) -> dict[str, Any]:
    """Return what the server is asked for: `folder`, `memory` (bytes) and other rlimits."""
    memory = limits.memory_mb * 2**20
    rlimits = {
        # the second net: wall time is watched from outside
        "CPU": math.ceil(limits.seconds * (limits.extensions + 1)) + 5,
        "FSIZE": TMP_BYTES if folder is None else _FOLDER_BYTES,
        "NOFILE": 256 if folder is None else _FOLDER_DESCRIPTORS,
        "NPROC": 4096,  # counts all of a user's processes on old kernels, outside ones too
        "STACK": memory,  # as judges have it
        "CORE": 0,
    }
    return {"folder": str(folder or "/tmp"), "memory": memory, "limits": rlimits}
