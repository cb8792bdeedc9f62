"""Keeping replicas of one model alive: each is started, watched, and replaced when it dies.

`keep` runs in a thread of its own for each replica, because the kernel ends an engine with
the thread that started it. A replica that dies is started again after a while, twice as long
each time; after `MOST_DEATHS` in a row without an answer it is given up. What happens is said
on stderr. How an engine is started is the group's own: `on_this_machine` here, on the nodes
of a cluster `cuvee.workers.balancer`. Not here: which replica gets a request
(`cuvee.models.places`).
"""

import dataclasses
import datetime
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from cuvee.errors import EngineError
from cuvee.models.door import visible
from cuvee.models.health import is_healthy
from cuvee.models.llama import running_llama
from cuvee.models.places import Places, Replica

MOST_DEATHS = 5
"""In a row, without an answer in between; then a replica is given up."""
FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 30.0
SILENT_SECONDS = 60.0
"""After so long without a healthy word a replica counts as dead: a machine may be busy."""
HEALTH_SECONDS = 5.0
"""How often a replica is asked for its health, at least."""
WATCH_SECONDS = 0.05
"""How often one looks whether it lives."""


@dataclasses.dataclass(frozen=True)
class Running:
    """An engine that answers."""

    url: str
    """Ending in `/v1`."""
    where: str
    """For people: `process 71 on 10.0.0.2`."""
    ended: Callable[[], bool]
    """Says whether it has ended by itself; quick, for it is asked often."""
    token: str | None = dataclasses.field(default=None, repr=False)
    """What it wants beyond what clients bring; None: nothing."""


Start = Callable[[str, threading.Event], AbstractContextManager[Running]]
"""Starts the replica of a name and runs it while the block does; gives up when the event is set.
Raises EngineError where it does not start, or has ended by itself before the block."""


@dataclasses.dataclass(frozen=True)
class Group:
    """Replicas of one model."""

    names: tuple[str, ...]
    start: Start
    slots: int
    """Requests that each answers at once."""
    silent_seconds: float = SILENT_SECONDS


def on_this_machine(
    engine: Mapping[str, Any],
    *,
    folder: Path,
    seconds: float,
    devices: Mapping[str, Sequence[int]],
) -> Start:
    """Return what starts engines of llama.cpp on this machine.

    `engine` is what each is started with (`cuvee.models.llama_server`), `devices` are the GPUs
    of each by its name (none: all); their files stand in `folder`: NAME.1.log, NAME.1.pid, ...
    They must answer within `seconds`.
    """

    @contextmanager
    def start(name: str, stop: threading.Event) -> Iterator[Running]:
        env = visible(devices.get(name, ()))
        running = running_llama(
            engine, name=name, folder=folder, seconds=seconds, env=env, stop=stop
        )
        with running as (process, url):
            poll = process.popen.poll
            yield Running(url, f"process {process.popen.pid}", lambda: poll() is not None)

    return start


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
    try:
        with group.start(name, stop) as engine:
            replica = Replica(name, engine.url.removesuffix("/v1"), engine.token)
            say(f"{name}: up at {replica.root}, {engine.where}")
            tell(places.add, replica)
            try:
                _watch(engine, replica, stop=stop, silent_seconds=group.silent_seconds)
            finally:
                tell(places.remove, replica)
    except EngineError as error:
        if not stop.is_set():  # what ends then was told to
            say(str(error))
    return replica


def _watch(
    engine: Running, replica: Replica, *, stop: threading.Event, silent_seconds: float
) -> None:
    """Return when a replica's engine has ended, it does not answer, or `stop` is set."""
    asked = heard = time.monotonic()
    pause = min(HEALTH_SECONDS, silent_seconds / 4)
    while not engine.ended() and not stop.wait(WATCH_SECONDS):
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
