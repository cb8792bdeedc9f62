"""The worker's side of the pool: answers tasks from stdin until it closes.

One line in is a JSON list of tasks; out goes one JSON line for each, as it is done, and
`READY` before every list. A worker
that has grown ends after its task, so that none pays for what others left behind. The
parent's side is `cuvee.verify.math.pool`.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import IO, Any

READY = "ready"
"""What a worker says when it waits for a list; no answer is this string."""
LEAVING = "leaving"
"""What it says when it ends of itself; the rest of its list is for another."""


def serve(answer: Callable[[Any], Any], *, memory_mb: int) -> None:
    """Answer tasks until stdin closes or a quarter of the memory is used up for good.

    May take up `memory_mb` MiB of address space beyond what it has now (Linux; elsewhere the
    system may not hold a process to it). Dies with the thread that started it. What `answer`
    raises ends the process: the pool calls that a crash.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when a worker ends
    start = _address_space()
    limit = start + memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with os.fdopen(os.dup(1), "wb") as channel:
        os.dup2(2, 1)  # whatever a library prints must not reach the channel
        _say(channel, READY)
        for line in sys.stdin.buffer:
            for task in json.loads(line):
                _say(channel, answer(task))
                if _address_space() - start > memory_mb * 2**18:
                    _say(channel, LEAVING)
                    return
            _say(channel, READY)


def _say(channel: IO[bytes], value: Any) -> None:
    channel.write(json.dumps(value).encode() + b"\n")
    channel.flush()


def _address_space() -> int:
    """Return how many bytes of address space this process has; 0 where Linux does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - no file to keep
            return int(file.read().split()[0]) * resource.getpagesize()
    except FileNotFoundError:
        return 0
