"""Progress of anything long: a bar on a terminal, plain lines elsewhere; and the log.

`bar` counts items of one piece of work, `metered` the answers of one model; `live` shows
anything that changes by itself. `console` is where people read; the logger `cuvee` writes to
it and, within a run, to the run folder's `log.txt`. What these show may be used from several
threads.
"""

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as RichTask
from rich.text import Text

console = Console(stderr=True, highlight=False, soft_wrap=True)
log = logging.getLogger("cuvee")
# Without a run's log file nothing listens, and logging would print what the console says already.
log.addHandler(logging.NullHandler())

PLAIN_SECONDS = 10.0
"""Seconds between the lines of a bar where there is no terminal."""

METER_SECONDS = 0.2
"""Between two looks at a meter."""

Tick = Callable[[int], None]
"""Call with how many more are done; `tick(0)` changes nothing."""


@dataclasses.dataclass
class Meter:
    """What is heard of one line to a model while it is asked; counted by who asks.

    Written by one thread, read by the display.
    """

    total: int = 0
    """Requests."""
    answers: int = 0
    """Requests that have their answer, from the ledger or just now."""
    from_ledger: int = 0
    """Of the answers: those that were not sent."""
    in_flight: int = 0
    failed: int = 0
    """Requests given up."""


@contextmanager
def bar(label: str, *, total: int, unit: str = "rows") -> Iterator[Tick]:
    """Show progress of `total` items while the block runs; yields the tick.

    On a terminal a bar with count, rate and what is left; elsewhere one plain line every
    `PLAIN_SECONDS` and one at the end.
    """
    if console.is_terminal:
        with _rich() as progress:
            task = progress.add_task(label, total=total, unit=unit)
            yield lambda n: progress.advance(task, n)
        return
    done, begin = 0, time.monotonic()
    last = begin

    def tick(n: int) -> None:
        nonlocal done, last
        done += n
        if time.monotonic() - last >= PLAIN_SECONDS and done < total:
            last = time.monotonic()
            rate = done / (last - begin)
            left = f", {(total - done) / rate:.0f} s left" if rate else ""
            console.print(f"  {label}: {done}/{total} {unit}, {rate:.1f}/s{left}", markup=False)

    yield tick
    seconds = time.monotonic() - begin
    console.print(f"  {label}: {done}/{total} {unit} in {seconds:.1f} s", markup=False)


@contextmanager
def metered(label: str, *, total: int) -> Iterator[Meter]:
    """Show a bar of `total` requests while the block runs, as the meter it yields says."""
    meter, over, shown = Meter(), threading.Event(), 0
    with bar(label, total=total, unit="answers") as tick:

        def follow() -> None:
            nonlocal shown
            last = False
            while not last:
                last = over.wait(METER_SECONDS)
                done = meter.answers + meter.failed
                tick(done - shown)
                shown = done

        with _beside(follow, over):
            yield meter


@contextmanager
def live(render: Callable[[], RenderableType], lines: Callable[[], list[str]]) -> Iterator[None]:
    """Show what changes by itself while the block runs, and its last state after it.

    On a terminal `render()`, twice a second; elsewhere `lines()`, every `PLAIN_SECONDS`. Both
    are called from a thread of their own, and a last time from this one.
    """
    if console.is_terminal:
        with Live(get_renderable=render, console=console, refresh_per_second=2):
            yield
        return

    def show() -> None:
        for line in lines():
            console.print(f"  {line}", markup=False)

    def follow() -> None:
        while not over.wait(PLAIN_SECONDS):
            show()

    over = threading.Event()
    try:
        with _beside(follow, over):
            yield
    finally:
        show()


@contextmanager
def _beside(follow: Callable[[], None], over: threading.Event) -> Iterator[None]:
    """Run `follow` in a thread while the block runs; `over` is set for its end."""
    thread = threading.Thread(target=follow, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class _Rate(ProgressColumn):
    """Items a second, as rich measured it."""

    def render(self, task: RichTask) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "-/s")


def _rich() -> Progress:
    return Progress(
        TextColumn("  {task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}", markup=False),
        _Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Append the log to a file while the block runs, one dated line a record."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


def printable(text: str) -> str:
    """Return a line that cannot steer a terminal: `?` for control characters, line ends too.

    For whatever comes out of other people's files and models.
    """
    return "".join(c if c.isprintable() else "?" for c in text)


def say(text: str) -> None:
    """Print a line for the user and write it to the log."""
    console.print(text, markup=False)
    log.info(text)


def warn(text: str) -> None:
    """Print a warning and write it to the log."""
    console.print(f"warning: {text}", style="yellow", markup=False)
    log.warning(text)
