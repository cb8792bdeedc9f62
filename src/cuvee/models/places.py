"""Who gets the next request: of the replicas that are up, the one with the fewest outstanding.

A replica is given no more than its slots at once; what is more waits here, first come first
served. So a replica that dies takes no waiting request along, and its threads for HTTP stay
free for its health check. One event loop, no locks. Not here: HTTP (`cuvee.models.balancer`),
starting and replacing replicas (`cuvee.models.replicas`).
"""

import asyncio
import collections
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


@dataclasses.dataclass(eq=False)
class Replica:
    """One life of a replica: what takes its place when it dies is another."""

    name: str
    root: str
    """Its URL, without `/v1`."""
    token: str | None = dataclasses.field(default=None, repr=False)
    """What its engine wants in place of what clients bring; None: they bring it themselves."""
    outstanding: int = 0
    """Requests it has been sent and has not answered."""
    answers: int = 0
    refused: bool = False
    """Whether it took no connection: it is dead, or as good as dead."""


@dataclasses.dataclass
class Places:
    """The slots of all replicas that are up; create it within the event loop that uses it."""

    slots: int
    """Of each replica; >= 1."""
    up: list[Replica] = dataclasses.field(default_factory=list)
    given_up: list[str] = dataclasses.field(default_factory=list)
    """Names of the replicas that will not come up again."""
    closing: bool = False
    waiting: collections.deque[asyncio.Future[Replica]] = dataclasses.field(
        default_factory=collections.deque
    )
    changed: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Replica]:
        """Wait for a free slot, and hold it while the block runs."""
        replica = await self._take()
        try:
            yield replica
        finally:
            self._leave(replica)

    def add(self, replica: Replica) -> None:
        """Note that a replica is up."""
        self.up.append(replica)
        self._wake()
        self.changed.set()

    def remove(self, replica: Replica) -> None:
        """Send a replica nothing more; nothing happens where it was removed before."""
        if replica in self.up:
            self.up.remove(replica)
        self.changed.set()

    def give_up(self, name: str) -> None:
        """Note that a replica will not come up again."""
        self.given_up.append(name)
        self.changed.set()

    def close(self) -> None:
        """Note that all is to end."""
        self.closing = True
        self.changed.set()

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until something holds of replicas that come up, go, or are given up."""
        while not true():
            self.changed.clear()
            await self.changed.wait()

    async def _take(self) -> Replica:
        best = None if self.waiting else self._freest()
        if best is not None:
            best.outstanding += 1
            return best
        waits: asyncio.Future[Replica] = asyncio.get_running_loop().create_future()
        self.waiting.append(waits)
        try:
            return await waits
        except asyncio.CancelledError:
            if waits.done() and not waits.cancelled():  # it got its place as it went away
                self._leave(waits.result())
            raise

    def _leave(self, replica: Replica) -> None:
        replica.outstanding -= 1
        self._wake()

    def _freest(self) -> Replica | None:
        free = [replica for replica in self.up if replica.outstanding < self.slots]
        return min(free, key=lambda replica: replica.outstanding, default=None)

    def _wake(self) -> None:
        while self.waiting and (best := self._freest()) is not None:
            waits = self.waiting.popleft()
            if not waits.done():
                best.outstanding += 1
                waits.set_result(best)
