"""Looking at processes of others: alive or not, and waiting for what they do."""

import time
from collections.abc import Callable
from pathlib import Path

PATIENCE = 120.0
"""Seconds before a wait is given up: it is over as soon as its condition holds, so this is for a
machine that is very busy, and no test's speed depends on it."""


def alive(pid: int) -> bool:
    """Say whether a process runs (a zombie does not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def wait_until(true: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Wait until something holds; return whether it does in the end."""
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return true()
