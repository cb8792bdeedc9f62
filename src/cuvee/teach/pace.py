"""How fast a line to a server goes: how many requests at once, and when the next may leave.

A refusal for lack of room (429) halves how many may be in flight, once for all that were sent
before; whatever else comes back lets it rise, by `RISE` of itself in a round and by one at
least (additive increase and multiplicative decrease, TCP's rule, but faster where there is
far to go). Refused again with nothing else in between, the line closes for a moment, twice as
long each time. `Retry-After` closes the line for everyone. One event loop, no locks. Not
here: what is sent, and what an answer is.
"""

import asyncio
import collections
import contextlib
import dataclasses
import time

RISE = 1 / 8
"""Share of the limit by which a round of answers, one each, raises it."""
TICK = 0.005
"""Seconds after which a timer has surely not rung too early."""


@dataclasses.dataclass
class Pace:
    """The turns of one line; create it within the event loop that uses it."""

    most: int
    """Requests in flight at most, ever; >= 1."""
    limit: float
    """Requests in flight at most, now; in [1, most]."""
    in_flight: int = 0
    """Turns that are taken."""
    opens: float = float("-inf")
    """Nothing leaves before (`time.monotonic`)."""
    fell: float = float("-inf")
    """When the limit was last cut."""
    cuts: int = 0
    """Since there was room."""
    ended: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    waiting: collections.deque[asyncio.Future[bool]] = dataclasses.field(
        default_factory=collections.deque
    )

    async def turn(self) -> bool:
        """Wait for a turn, first come first served; False where the line has ended."""
        if self.ended.is_set():
            return False
        if not self.waiting and self._is_open():
            self.in_flight += 1
            return True
        waits: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.waiting.append(waits)
        return await waits

    def leave(self) -> None:
        """Give a turn back, whatever came of it."""
        self.in_flight -= 1
        self._wake()

    def had_room(self) -> None:
        """Note that a request got its answer, be it that it is wrong."""
        self.cuts = 0
        self.limit = min(self.most, self.limit + max(1.0 / self.limit, RISE))

    def refused(self, *, since: float, wait: float) -> None:
        """Note a refusal for lack of room, of a request that left at `since`.

        What left before the last cut met the old limit and says nothing of the new one. At
        the second cut with no room in between the line closes for `wait` seconds.
        """
        if since >= self.fell:
            self.limit = max(1.0, min(self.limit, self.in_flight) / 2)
            self.fell = time.monotonic()
            self.cuts += 1
            if self.cuts > 1:
                self.close_for(wait)

    def narrow(self) -> None:
        """Allow no more than are in flight beside the one that asks."""
        self.limit = max(1.0, min(self.limit, self.in_flight - 1))

    def close_for(self, seconds: float) -> None:
        """Let nothing leave for so long."""
        self.opens = max(self.opens, time.monotonic() + seconds)
        asyncio.get_running_loop().call_later(seconds + TICK, self._wake)

    async def pause(self, seconds: float) -> None:
        """Wait without a turn; until the line has ended at most."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.ended.wait(), seconds)

    def end(self) -> None:
        """Give no more turns, and wake everyone who waits."""
        self.ended.set()
        self._wake()

    def _is_open(self) -> bool:
        return self.in_flight < int(self.limit) and time.monotonic() >= self.opens

    def _wake(self) -> None:
        while self.waiting and (self.ended.is_set() or self._is_open()):
            waits = self.waiting.popleft()
            if waits.done():
                continue
            self.in_flight += not self.ended.is_set()
            waits.set_result(not self.ended.is_set())
