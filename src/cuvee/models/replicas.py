"""Keeping replicas of one model alive: each is started, watched, and replaced when it dies.

`keep` runs in a thread of its own for each replica, because the kernel ends an engine with
the thread that started it. A replica that dies is started again after a while, twice as long
each time; after `MOST_DEATHS` in a row without an answer it is given up. What happens is said
on stderr. Not here: which replica gets a request (`cuvee.models.places`).
"""

import dataclasses
import datetime
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cuvee.errors import EngineError
from cuvee.models.health import is_healthy
from cuvee.models.llama import running_llama
from cuvee.models.places import Places, Replica
from cuvee.models.process import Process

MOST_DEATHS = 5
"""In a row, without an answer in between; then a replica is given up."""
FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 30.0
SILENT_SECONDS = 60.0
"""After so long without a healthy word a replica counts as dead: a machine may be busy."""
HEALTH_SECONDS = 5.0
"""How often a replica is asked for its health, at least."""
WATCH_SECONDS = 0.05
"""How often one looks whether its process lives."""


@dataclasses.dataclass(frozen=True)
class Group:
    """Replicas of one model."""

    engine: Mapping[str, Any]
    """What each is started with (`cuvee.models.llama_server`)."""
    folder: Path
    """Where their files stand: NAME.1.log, NAME.1.pid, ..."""
    start_seconds: float
    silent_seconds: float


def keep(
    name: str,
    group: Group,
    *,
    places: Places,
    tell: Callable[..., object],
    stop: threading.Event,
) -> None:
    """Keep a replica alive until `stop` is set or it is given up, which `places` is told.

    `tell(function, *arguments)` calls a function in the event loop of `places`. The first
    start is not tried again: what fails then is the model or the machine.
    """
    try:
        deaths = 0
        while not stop.is_set():
            replica = _live(name, group, places=places, tell=tell, stop=stop)
            if stop.is_set():
                return
            if replica is None and deaths == 0:
                say(f"{name}: did not start")
                return
            deaths = 1 if replica is not None and replica.answers else deaths + 1
            if deaths >= MOST_DEATHS:
                say(f"{name}: given up, it died {deaths} times in a row without an answer")
                return
            wait = wait_after(deaths)
            say(f"{name}: is replaced in {wait:g} s (death {deaths} of at most {MOST_DEATHS})")
            stop.wait(wait)
    finally:
        tell(places.give_up, name)


def wait_after(deaths: int) -> float:
    """Return the seconds between the last of some deaths in a row (>= 1) and the next start."""
    return min(FIRST_WAIT_SECONDS * 2.0 ** (deaths - 1), LONGEST_WAIT_SECONDS)


def say(what: str) -> None:
    """Write a line to the log."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    print(f"{now} {what}", file=sys.stderr, flush=True)


def _live(
    name: str,
    group: Group,
    *,
    places: Places,
    tell: Callable[..., object],
    stop: threading.Event,
) -> Replica | None:
    """Start a replica and watch it until it dies or `stop` is set; None where it did not start."""
    replica: Replica | None = None
    running = running_llama(
        group.engine, name=name, folder=group.folder, seconds=group.start_seconds, stop=stop
    )
    try:
        with running as (process, url):
            replica = Replica(name, url.removesuffix("/v1"))
            say(f"{name}: up at {replica.root}, process {process.popen.pid}")
            tell(places.add, replica)
            try:
                _watch(process, replica, stop=stop, silent_seconds=group.silent_seconds)
            finally:
                tell(places.remove, replica)
    except EngineError as error:
        if not stop.is_set():  # what ends then was told to
            say(str(error))
    return replica


def _watch(
    process: Process, replica: Replica, *, stop: threading.Event, silent_seconds: float
) -> None:
    """Return when a replica's process has ended, it does not answer, or `stop` is set."""
    asked = heard = time.monotonic()
    pause = min(HEALTH_SECONDS, silent_seconds / 4)
    while process.popen.poll() is None and not stop.wait(WATCH_SECONDS):
        if replica.refused:
            say(f"{replica.name}: takes no connections and is ended")
            return
        now = time.monotonic()
        if now - asked < pause:
            continue
        asked = now
        if is_healthy(f"{replica.root}/health"):
            heard = time.monotonic()
        elif time.monotonic() - heard > silent_seconds:
            say(f"{replica.name}: no healthy word for {silent_seconds:g} s; it is ended")
            return
