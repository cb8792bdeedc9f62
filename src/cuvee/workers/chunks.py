"""A function mapped over chunks of rows by a Ray cluster: results in order, no row lost.

Lists of rows in, one result a row out, in the order of the rows. What is held at once is a few
chunks a CPU, however many come. A chunk whose worker or node is lost is asked again; one that
loses its worker again is cut in two, down to the row, which gets the result of `given_up`:
neither a lost machine nor a poisonous row ends the work. Not here: opening the cluster
(`cuvee.workers.cluster`), what is done to a row.

Ray Data is not used for this: it asks a block that kills its worker again without end, takes
its rows from files that every node reads, and drops a block that fails as a whole.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from cuvee.errors import CuveeError
from cuvee.progress import Tick, printable, warn
from cuvee.workers.cluster import cpu_count, require_ray

CHUNK_TRIES = 2
"""Times a chunk of several rows may lose its worker before it is cut in two."""
ROW_TRIES = 3
"""Times a row alone may: a machine that goes must not be taken for the row's fault."""
ASKED_AHEAD = 2
"""Chunks asked for at once, for each CPU: one that is worked on, one that waits for it."""
HELD_AHEAD = 4
"""Chunks held at once, for each CPU: those asked for, and those that wait for an earlier one."""
HOPELESS = 20
"""So many failures without one chunk done are no row's fault: the work is ended."""
SILENCE_SECONDS = 60.0
"""Without a chunk that ends: said, as the cluster may have no CPU for us."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclasses.dataclass(eq=False)
class _Chunk:
    """Rows on their way: waiting, asked for (`task`) or done (`results`)."""

    items: list[Any]
    failures: int = 0
    task: Any = None
    results: list[Any] | None = None


@dataclasses.dataclass
class Losses:
    """What went wrong on the way, counted for a summary."""

    workers: int = 0
    """Chunks whose worker or node was lost, or whose function failed; each was asked again."""
    given_up: int = 0
    """Rows that never got through."""
    done: int = 0
    """Chunks that did."""


def map_chunks(
    chunks: Iterable[list[Item]],
    function: Callable[[list[Item]], list[Result]],
    *,
    given_up: Callable[[Item, str], Result],
    tick: Tick,
    at_once: int | None = None,
    losses: Losses | None = None,
) -> Iterator[Result]:
    """Yield a result for each row, in order; `function` returns as many as it is given.

    It runs in a process of Ray with one CPU, so it must be importable on every node.
    `given_up` makes the result of a row that lost every worker, with the reason in words;
    `tick` counts rows as their chunks end; `at_once` is the most chunks that are asked for at
    once (None: what the cluster has CPUs for). Raises a CuveeError that the function raised,
    and CuveeError where nothing ever gets through.
    """
    line = _Line(function, given_up=given_up, tick=tick, losses=losses or Losses())
    rest = iter(chunks)
    more = True
    try:
        while True:
            cpus = cpu_count()
            while more and len(line.chunks) < HELD_AHEAD * cpus:
                items = next(rest, None)
                more = items is not None
                if items:
                    line.chunks.append(_Chunk(items))
            if not line.chunks:
                return
            line.ask(min(ASKED_AHEAD * cpus, at_once or ASKED_AHEAD * cpus))
            line.hear(cpus)
            yield from line.take()
    finally:
        line.cancel()


def in_chunks(
    items: Iterable[Item], length: Callable[[Item], int], *, rows: int, characters: int
) -> Iterator[list[Item]]:
    """Yield items in lists that end with the item that makes them so many rows or characters.

    `length` is that of the texts that go to a worker with an item.
    """
    chunk: list[Item] = []
    long = 0
    for item in items:
        chunk.append(item)
        long += length(item)
        if len(chunk) >= rows or long >= characters:
            yield chunk
            chunk, long = [], 0
    if chunk:
        yield chunk


class _Line:
    """The chunks that are held, in the order of their rows, and the tasks of some."""

    def __init__(
        self,
        function: Callable[[list[Any]], list[Any]],
        *,
        given_up: Callable[[Any, str], Any],
        tick: Tick,
        losses: Losses,
    ) -> None:
        self.ray = require_ray()
        self.chunks: deque[_Chunk] = deque()
        self.running: dict[Any, _Chunk] = {}
        self.given_up, self.tick, self.losses = given_up, tick, losses
        # Ray's own retries are off: they know no difference between a machine and a row.
        self.work = self.ray.remote(num_cpus=1, max_retries=0)(_work)
        self.function = self.ray.put(function)

    def ask(self, most: int) -> None:
        """Ask for the first chunks that nobody works on, up to `most` at once."""
        for chunk in self.chunks:
            if len(self.running) >= most:
                return
            if chunk.task is None and chunk.results is None:
                chunk.task = self.work.remote(self.function, chunk.items)
                self.running[chunk.task] = chunk

    def hear(self, cpus: int) -> None:
        """Wait until a chunk ends, and settle all that have."""
        tasks = list(self.running)
        ended, _ = self.ray.wait(tasks, num_returns=1, timeout=SILENCE_SECONDS)
        if not ended:
            free = int(self.ray.available_resources().get("CPU", 0))
            warn(
                f"Ray: no chunk ended for {SILENCE_SECONDS:.0f} s; {len(tasks)} are asked for, "
                f"the cluster has {cpus} CPUs, {free} of them free"
            )
            return
        ended, _ = self.ray.wait(tasks, num_returns=len(tasks), timeout=0)
        for task in ended:
            self.settle(self.running.pop(task))

    def settle(self, chunk: _Chunk) -> None:
        """Take the results of a chunk that ended, or decide what becomes of it."""
        exceptions = self.ray.exceptions
        task, chunk.task = chunk.task, None
        try:
            chunk.results = self.ray.get(task)
        except exceptions.RayTaskError as error:
            if isinstance(error.cause, CuveeError):
                raise error.cause from error
            self.lose(chunk, f"{type(error.cause).__name__}: {error.cause}")
        except exceptions.RayError as error:
            self.lose(chunk, f"{type(error).__name__}: {error}")
        else:
            self.losses.done += 1
            self.tick(len(chunk.items))

    def lose(self, chunk: _Chunk, why: str) -> None:
        """Have a chunk asked again, whole or in two halves; or give its one row up."""
        why = printable(" ".join(why.split())[:200])  # it may quote a row
        chunk.failures += 1
        self.losses.workers += 1
        if not self.losses.done and self.losses.workers >= HOPELESS:
            raise CuveeError(
                f"Ray: {HOPELESS} chunks failed and none was done; the last: {why}; the nodes' "
                "logs stand in /tmp/ray/session_latest/logs"
            )
        rows = len(chunk.items)
        lost = f"Ray: {rows} row{'s' * (rows > 1)} did not come back ({why})"
        if rows == 1 and chunk.failures >= ROW_TRIES:
            warn(f"{lost}; given up after {chunk.failures} tries")
            chunk.results = [self.given_up(chunk.items[0], why)]
            self.losses.given_up += 1
            self.tick(1)
        elif rows > 1 and chunk.failures >= CHUNK_TRIES:
            warn(f"{lost}; asked again in two halves")
            self.halve(chunk)
        else:
            warn(f"{lost}; asked again")

    def halve(self, chunk: _Chunk) -> None:
        """Put two halves in the place of a chunk. A half is cut again at its first loss."""
        middle = len(chunk.items) // 2
        place = self.chunks.index(chunk)
        del self.chunks[place]
        for half in (chunk.items[middle:], chunk.items[:middle]):
            tried = 0 if len(half) == 1 else CHUNK_TRIES - 1
            self.chunks.insert(place, _Chunk(half, failures=tried))

    def take(self) -> Iterator[Any]:
        """Yield the results that no earlier row is missing before."""
        while self.chunks and self.chunks[0].results is not None:
            yield from self.chunks.popleft().results or []

    def cancel(self) -> None:
        """End what is still asked for, at the end of the work or of its caller."""
        for task in self.running:
            self.ray.cancel(task, force=True)


def _work(function: Callable[[list[Item]], list[Result]], items: list[Item]) -> list[Result]:
    """In a worker: do a chunk. A function that loses a row is a fault of ours."""
    results = function(items)
    if len(results) != len(items):
        raise ValueError(f"{len(results)} results of {len(items)} rows")
    return results
