"""Requests go to the replica with the fewest outstanding, in order, and never past its slots."""

import asyncio
from contextlib import AsyncExitStack

from cuvee.models.places import Places, Replica


def test_the_replica_with_the_fewest_outstanding_requests_is_next() -> None:
    async def names() -> list[str]:
        places = Places(slots=3)
        for name in ("a", "b"):
            places.add(Replica(name, ""))
        async with AsyncExitStack() as held:
            return [(await held.enter_async_context(places.place())).name for _ in range(6)]

    assert asyncio.run(names()) == ["a", "b", "a", "b", "a", "b"]


def test_what_does_not_fit_waits_in_order_and_is_woken_when_a_place_is_free() -> None:
    async def order() -> list[int]:
        places, served = Places(slots=1), list[int]()
        most = 0

        async def one(number: int) -> None:
            nonlocal most
            async with places.place() as replica:
                most = max(most, replica.outstanding)
                served.append(number)
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(one(n)) for n in range(5)]
        await asyncio.sleep(0.01)
        assert not served  # no replica is up yet
        places.add(Replica("a", ""))
        await asyncio.gather(*tasks)
        assert most == 1
        return served

    assert asyncio.run(order()) == [0, 1, 2, 3, 4]


def test_who_goes_away_while_waiting_takes_no_place_with_it() -> None:
    async def check() -> None:
        places = Places(slots=1)
        replica = Replica("a", "")
        places.add(replica)

        async def hold() -> None:
            async with places.place():
                await asyncio.sleep(60)

        holder, early, late = (asyncio.create_task(hold()) for _ in range(3))
        await asyncio.sleep(0)
        early.cancel()  # while it waits
        holder.cancel()
        await asyncio.sleep(0)
        late.cancel()  # in the moment it is given its place
        await asyncio.gather(holder, early, late, return_exceptions=True)
        assert replica.outstanding == 0
        async with asyncio.timeout(5), places.place() as free:
            assert free is replica

    asyncio.run(check())


def test_a_replica_that_was_removed_gets_nothing_more() -> None:
    async def check() -> None:
        places = Places(slots=4)
        dead, alive = Replica("dead", ""), Replica("alive", "")
        places.add(dead)
        async with places.place() as first:
            assert first is dead
            places.add(alive)
            places.remove(dead)
            places.remove(dead)
            async with places.place() as second:
                assert second is alive
        assert (dead.outstanding, alive.outstanding) == (0, 0)

    asyncio.run(check())


def test_until_waits_for_what_happens_to_the_replicas() -> None:
    async def check() -> None:
        places = Places(slots=1)
        waits = asyncio.create_task(places.until(lambda: len(places.given_up) == 2))
        for name in ("a", "b"):
            await asyncio.sleep(0)
            assert not waits.done()
            places.give_up(name)
        async with asyncio.timeout(5):
            await waits

    asyncio.run(check())
