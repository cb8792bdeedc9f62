"""Waiting until a process of ours is ready: it prints one JSON line `{"url": ...}` on stdout.

Not here: its start and end (`cuvee.models.process`), what it serves.
"""

import json
import threading
import time

from cuvee.models.process import POLL_SECONDS, Process, failure


def announced(process: Process, *, seconds: float, stop: threading.Event | None = None) -> str:
    """Return the URL a process announces.

    Raises EngineError, with the end of its log, where it ends, says nothing within `seconds`,
    or `stop` is set.
    """
    deadline = time.monotonic() + seconds
    while True:
        for line in process.out.read_text(encoding="utf-8", errors="replace").splitlines():
            if (url := _url_in(line)) is not None:
                return url
        wait_a_moment(process, deadline=deadline, seconds=seconds)
        if stop is not None and stop.is_set():
            raise failure(process, "was stopped while it started")


def wait_a_moment(process: Process, *, deadline: float, seconds: float) -> None:
    """Wait; raise EngineError where the process has ended or the time (`seconds`) is over."""
    if (code := process.popen.poll()) is not None:
        raise failure(process, f"ended before it answered (exit code {code})")
    if time.monotonic() > deadline:
        raise failure(process, f"did not answer within {seconds:g} s")
    time.sleep(POLL_SECONDS)


def _url_in(line: str) -> str | None:
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return str(said["url"]) if isinstance(said, dict) and "url" in said else None
