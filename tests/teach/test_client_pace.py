"""How many requests are in flight, and when: limits, 429, Retry-After, deadlines."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from random import Random

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.errors import TeacherError
from cuvee.progress import Meter
from cuvee.teach import line
from cuvee.teach.ledger import Ledger
from cuvee.teach.pace import Pace

from .conftest import Body, Serve, answer_well, endpoint, requests, send


async def no_room(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
    return web.json_response({"error": {"message": "slow down"}}, status=429)


def pace_of(most: int) -> Pace:
    return Pace(most, limit=most)


def in_loop(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await work()

    asyncio.run(main())


# The pace by itself


def test_a_refusal_halves_the_limit_once_for_all_that_left_before_it() -> None:
    async def work() -> None:
        pace = pace_of(64)
        for _ in range(64):
            assert await pace.turn()
        since = time.monotonic()
        for _ in range(30):
            pace.refused(since=since, wait=0.0)
            pace.leave()
        assert pace.limit == 32
        pace.refused(since=time.monotonic(), wait=0.0)
        assert pace.limit == 16

    in_loop(work)


@pytest.mark.parametrize(("limit", "rounds"), [(256.0, 6), (4.0, 4 + 36), (1.0, 7 + 36)])
def test_answers_win_the_most_back_in_a_few_rounds(limit: float, rounds: int) -> None:
    """One more a round up to 8, then an eighth: 8 * 1.125**36 > 512."""
    pace, took = Pace(512, limit=limit), 0
    while pace.limit < 512:
        for _ in range(int(pace.limit)):
            pace.had_room()
        took += 1
    assert abs(took - rounds) <= 4


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 8), st.lists(st.sampled_from(["answered", "refused", "narrow"]), max_size=60))
def test_the_limit_stays_within_bounds_and_no_turn_is_lost(most: int, events: list[str]) -> None:
    async def work() -> None:
        pace = pace_of(most)

        async def one(event: str) -> None:
            assert await pace.turn()
            assert pace.in_flight <= most
            since = time.monotonic()
            await asyncio.sleep(0)
            if event == "answered":
                pace.had_room()
            elif event == "refused":
                pace.refused(since=since, wait=0.0)
            else:
                pace.narrow()
            assert 1 <= pace.limit <= most
            pace.leave()

        await asyncio.wait_for(asyncio.gather(*map(one, events)), 10)
        assert pace.in_flight == 0

    in_loop(work)


def test_a_closed_line_lets_nobody_through_and_then_everyone() -> None:
    async def work() -> None:
        pace, begin = pace_of(4), time.monotonic()
        pace.close_for(0.05)
        pace.close_for(0.15)
        times: list[float] = []

        async def one() -> None:
            assert await pace.turn()
            times.append(time.monotonic() - begin)
            pace.leave()

        await asyncio.gather(*(one() for _ in range(9)))
        assert len(times) == 9
        assert min(times) >= 0.15

    in_loop(work)


def test_the_end_of_a_line_wakes_all_who_wait() -> None:
    async def work() -> None:
        pace = pace_of(1)
        assert await pace.turn()
        waiting = [asyncio.create_task(pace.turn()) for _ in range(5)]
        pausing = asyncio.create_task(pace.pause(600))
        await asyncio.sleep(0.01)
        pace.end()
        assert await asyncio.gather(*waiting) == [False] * 5
        await pausing
        assert not await pace.turn()

    in_loop(work)


# On a line


def test_a_storm_of_429_costs_no_answer_and_the_line_finds_the_servers_room(
    serve: Serve, ledger: Ledger
) -> None:
    room, refused = 6, 0

    async def small(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        nonlocal refused
        if server.in_flight > room:
            refused += 1
            return await no_room(request, body, tries)
        await asyncio.sleep(0.02)
        return await answer_well(request, body, tries)

    server = serve(small)
    _, usage = send(endpoint(server.url, concurrency=64, retries=0), requests(200), ledger)
    assert (usage.sent, usage.failed, usage.possibly_billed_twice) == (200, 0, 0)
    assert refused < 200, "not one refusal an answer"
    assert ledger.count_in_doubt() == 0


def test_retry_after_holds_the_whole_line(serve: Serve, ledger: Ledger) -> None:
    arrived: list[float] = []

    async def once(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        arrived.append(time.monotonic())
        if len(arrived) == 1:
            return web.Response(status=429, headers={"Retry-After": "1"})
        await asyncio.sleep(0.05)
        return await answer_well(request, body, tries)

    send(endpoint(serve(once).url, concurrency=2), requests(8), ledger)
    begin = arrived[0]
    assert all(at - begin < 0.5 or at - begin >= 1 for at in arrived)
    assert sum(at - begin < 0.5 for at in arrived) <= 2, "what had left already"


def test_a_deadline_covers_all_tries_and_says_so(serve: Serve, ledger: Ledger) -> None:
    begin = time.monotonic()
    to = endpoint(serve(no_room).url, deadline=1.0)
    traces, usage = send(to, requests(2), ledger)
    assert time.monotonic() - begin < 3
    assert traces[0].error == "given up after 1 s (deadline); HTTP 429: slow down"
    assert (usage.failed, usage.refused) == (2, 0)


def test_a_deadline_ends_a_try_as_well(serve: Serve, ledger: Ledger) -> None:
    async def sleeps(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    begin = time.monotonic()
    traces, _ = send(endpoint(serve(sleeps).url, deadline=0.3), requests(2), ledger)
    assert time.monotonic() - begin < 3
    assert "deadline" in str(traces[0].error)


def test_an_account_that_is_empty_stops_the_line_though_it_says_429(
    serve: Serve, ledger: Ledger
) -> None:
    async def empty(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        error = {"message": "You exceeded your current quota", "code": "insufficient_quota"}
        return web.json_response({"error": error}, status=429)

    server = serve(empty)
    with pytest.raises(TeacherError, match="top up the account"):
        send(endpoint(server.url), requests(500), ledger)
    assert len(server.bodies) <= 4


def test_a_server_that_fails_for_good_midway_ends_the_line(serve: Serve, ledger: Ledger) -> None:
    """Not a million rows, each after all its tries."""

    async def then_fails(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        if len(server.bodies) > 30:
            return web.json_response({"error": "broken"}, status=500)
        return await answer_well(request, body, tries)

    server = serve(then_fails)
    with pytest.raises(TeacherError, match=f"the last {line.PATIENCE} requests all failed"):
        send(endpoint(server.url, retries=0), requests(5000), ledger)
    assert ledger.count_answers() == 30
    assert len(server.bodies) < 60


def test_the_meter_shows_what_happens(serve: Serve, ledger: Ledger) -> None:
    meter, rng = Meter(), Random(1)
    most = 0

    async def look(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        nonlocal most
        await asyncio.sleep(rng.random() * 0.02)
        most = max(most, meter.in_flight)
        bad = body["messages"][-1]["content"] == "question 9"
        return web.Response(status=400) if bad else await answer_well(request, body, tries)

    server = serve(look)
    send(endpoint(server.url), requests(5), ledger)
    send(endpoint(server.url), requests(20), ledger, meter=meter)
    assert 1 <= most <= 4
    assert meter == Meter(total=20, answers=19, from_ledger=5, in_flight=0, failed=1)
