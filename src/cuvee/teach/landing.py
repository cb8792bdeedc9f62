"""Waiting, in an event loop, for writes that another thread does.

The ledger's thread finishes many writes at once; each wake-up of the loop from another
thread is a system call, so there is one for all of them. Not here: what is written.
"""

import asyncio
import collections
import contextlib
import dataclasses
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")
AT_ONCE = 8
"""Woken in one turn of the loop. Tasks that are woken together stay together from then on:
their requests leave at once, and their answers come at once."""


@dataclasses.dataclass
class Landings:
    """The writes that tasks of one event loop wait for; create it within that loop."""

    loop: asyncio.AbstractEventLoop = dataclasses.field(default_factory=asyncio.get_running_loop)
    landed: collections.deque[asyncio.Future[None]] = dataclasses.field(
        default_factory=collections.deque
    )
    rung: bool = False
    """Whether the loop has been told of what has landed."""

    async def wait(self, write: Future[Result]) -> Result:
        """Return the result of a write, or raise its error, once it is done."""
        if not write.done():
            waits: asyncio.Future[None] = self.loop.create_future()
            write.add_done_callback(lambda _: self._land(waits))
            await waits
        return write.result()

    def _land(self, waits: asyncio.Future[None]) -> None:
        """Note, in the writing thread, that a write is done."""
        self.landed.append(waits)
        if not self.rung:
            self.rung = True
            # A loop that was interrupted is closed by now, and nobody waits.
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        # First this: what lands from here on rings again.
        self.rung = False
        for _ in range(min(AT_ONCE, len(self.landed))):
            waits = self.landed.popleft()
            if not waits.done():
                waits.set_result(None)
        if self.landed and not self.rung:
            self.rung = True
            self.loop.call_soon(self._wake)
