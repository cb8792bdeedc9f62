"""Threads that share numbered work, and the buffers each keeps.

The kernels and the reads release the interpreter's lock. Results come back by number, so
nothing depends on which thread did what.
"""

import dataclasses
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from math import prod
from threading import Event
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Threads:
    """A pool of `count` threads (one: the caller's own)."""

    count: int
    executor: ThreadPoolExecutor | None = None

    def map(self, items: int, function: Callable[[int], T]) -> list[T]:
        """Return [function(0), ..., function(items - 1)]; the first error stops the rest."""

        def step(found: dict[int, T], number: int) -> None:
            found[number] = function(number)

        results: dict[int, T] = {}
        for found in self.fold(items, dict[int, T], step):
            results |= found
        return [results[number] for number in range(items)]

    def fold(self, items: int, start: Callable[[], T], step: Callable[[T, int], None]) -> list[T]:
        """Call `step(state, number)` for each number below `items`; return the states.

        Every thread that takes part has a state of its own, made by `start()`: which numbers
        went into which is open, so states must be such that their sum does not depend on it
        (integer counts, results by number). The first error stops the rest and is raised.
        """
        # next() of a count is atomic under the interpreter's lock.
        numbers, stop = itertools.count(), Event()

        def work() -> T:
            state = start()
            try:
                while not stop.is_set() and (number := next(numbers)) < items:
                    step(state, number)
            except BaseException:
                stop.set()
                raise
            return state

        if self.executor is None or items < 2:
            return [work()]
        futures = [self.executor.submit(work) for _ in range(min(self.count, items))]
        try:
            wait(futures)
        finally:  # an interrupt reaches the waiting thread alone
            stop.set()
            wait(futures)
        return [future.result() for future in futures]


ONE_THREAD = Threads(1)


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def open_threads(count: int) -> Iterator[Threads]:
    """Yield a pool of `count` >= 1 threads, ended on leaving. Raises ValueError for less."""
    if count < 1:
        raise ValueError(f"threads {count}: at least one is needed")
    if count == 1:
        yield Threads(1)
        return
    with ThreadPoolExecutor(count, thread_name_prefix="merge") as executor:
        yield Threads(count, executor)


_local = threading.local()


def scratch(key: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return an uninitialised float32 array that this thread keeps under `key`.

    What the thread took under the same key before is overwritten: memory that is used again
    stays in the cache, and the system need not hand out and clear new pages.
    """
    size = prod(shape)
    kept: dict[str, NDArray[np.float32]] = _local.__dict__.setdefault("kept", {})
    if key not in kept or kept[key].size < size:
        kept[key] = np.empty(size, np.float32)
    return kept[key][:size].reshape(shape)
