"""The balancer hands on what comes, as it comes, and says truly what became of a request."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from cuvee.models.balancer import HOP_BY_HOP, health, relay
from cuvee.models.places import Places, Replica

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[str]:
    """Serve all paths on a free port; yield the root of its URLs."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def balanced(
    *roots: str, slots: int = 2
) -> AsyncIterator[tuple[str, Places, aiohttp.ClientSession]]:
    """Balance over replicas that stand at `roots`; yield the balancer's root and a client."""
    places = Places(slots)
    for number, root in enumerate(roots, 1):
        places.add(Replica(f"m.{number}", root))
    skipped = ["Accept", "Accept-Encoding", "Content-Type", "User-Agent"]
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with (
        asyncio.timeout(20),
        aiohttp.ClientSession(
            connector=connector, auto_decompress=False, skip_auto_headers=skipped
        ) as session,
        server(relay(places, session)) as root,
        aiohttp.ClientSession() as client,
    ):
        yield root, places, client


def dead_root() -> str:
    """Return the root of a server that takes no connections."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


async def settle(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.005)


def test_request_and_answer_pass_unchanged() -> None:
    async def engine(request: web.Request) -> web.Response:
        seen = {
            "method": request.method,
            "path": request.path_qs,
            "body": await request.text(),
            "key": request.headers.get("Authorization"),
            "hop": sorted(HOP_BY_HOP & {name.lower() for name in request.headers}),
            "agent": request.headers.get("User-Agent"),
        }
        return web.json_response(seen, status=418, headers={"X-Request-Id": "7"})

    async def check() -> None:
        async with server(engine) as upstream, balanced(upstream) as (root, places, client):
            headers = {"Authorization": "Bearer t", "TE": "trailers", "User-Agent": "mine"}
            url, body = f"{root}/v1/x%2Fy?q=%26", "\u00e9\n" * 70_000
            async with client.post(url, data=body.encode(), headers=headers) as answer:
                assert answer.status == 418
                assert answer.headers["X-Request-Id"] == "7"
                seen = await answer.json()
            assert seen.pop("hop") == ["connection"]  # its own: each connection is used once
            assert seen.pop("agent") == "mine"
            assert seen.pop("body") == body
            assert seen == {"method": "POST", "path": "/v1/x%2Fy?q=%26", "key": "Bearer t"}
            await settle(lambda: places.up[0].outstanding == 0)
            assert places.up[0].answers == 0  # no answer: an error

    asyncio.run(check())


def test_a_stream_comes_piece_by_piece() -> None:
    async def check() -> None:
        go = asyncio.Event()

        async def engine(request: web.Request) -> web.StreamResponse:
            reply = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await reply.prepare(request)
            await reply.write(b"data: one\n\n")
            await go.wait()
            await reply.write(b"data: two\n\n")
            return reply

        async with server(engine) as upstream, balanced(upstream) as (root, places, client):
            async with client.post(f"{root}/v1/chat/completions", data=b"{}") as answer:
                assert answer.content_type == "text/event-stream"
                assert await answer.content.readany() == b"data: one\n\n"
                assert places.up[0].answers == 0
                go.set()
                assert await answer.content.read() == b"data: two\n\n"
            assert places.up[0].answers == 1

    asyncio.run(check())


@pytest.mark.parametrize("begun", [False, True])
def test_a_client_that_goes_away_takes_its_request_along(begun: bool) -> None:
    async def check() -> None:
        events: list[str] = []

        async def engine(request: web.Request) -> web.StreamResponse:
            events.append("came")
            reply = web.StreamResponse()
            try:
                if begun:
                    await reply.prepare(request)
                    await reply.write(b"x")
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                events.append("gone")
                raise
            return reply

        async with server(engine) as upstream, balanced(upstream, slots=1) as (root, places, c):
            asks = [asyncio.create_task(c.post(root, data=b"{}")) for _ in range(2)]
            await settle(lambda: events == ["came"] and len(places.waiting) == 1)
            held = await asks[0] if begun else None
            if held is not None:
                held.close()
            for ask in asks:
                ask.cancel()
            await asyncio.gather(*asks, return_exceptions=True)
            await settle(lambda: "gone" in events)
            await settle(lambda: places.up[0].outstanding == 0)
            assert events == ["came", "gone"]  # the one that waited was never sent

    asyncio.run(check())


def test_a_replica_that_takes_no_connection_loses_nothing() -> None:
    async def engine(request: web.Request) -> web.Response:
        return web.json_response({"choices": []})

    async def check() -> None:
        async with (
            server(engine) as upstream,
            balanced(dead_root(), upstream) as (root, places, client),
        ):
            dead = places.up[0]
            for _ in range(3):
                async with client.post(root, data=b"{}") as answer:
                    assert answer.status == 200
            assert dead.refused
            assert [replica.name for replica in places.up] == ["m.2"]

    asyncio.run(check())


def test_what_was_in_flight_on_a_replica_that_died_is_a_502_and_not_sent_again() -> None:
    async def check() -> None:
        asked = 0

        async def engine(request: web.Request) -> web.Response:
            nonlocal asked
            asked += 1
            assert request.transport is not None
            request.transport.abort()
            return web.Response()

        async with server(engine) as upstream, balanced(upstream, upstream) as (root, places, c):
            async with c.post(root, data=b"{}") as answer:
                assert answer.status == 502
                assert "ended while it answered" in (await answer.json())["error"]["message"]
            assert asked == 1
            assert [replica.outstanding for replica in places.up] == [0, 0]

    asyncio.run(check())


@pytest.mark.parametrize("length", [None, 100])
def test_half_an_answer_never_looks_like_a_whole_one(length: int | None) -> None:
    async def engine(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse()
        reply.content_length = length
        await reply.prepare(request)
        await reply.write(b"half")
        assert request.transport is not None
        await asyncio.sleep(0.05)
        request.transport.abort()
        return reply

    async def check() -> None:
        async with server(engine) as upstream, balanced(upstream) as (root, places, client):
            with pytest.raises(aiohttp.ClientError):
                async with client.post(root, data=b"{}") as answer:
                    await answer.read()
            assert places.up[0].answers == 0

    asyncio.run(check())


def test_health_says_whether_any_replica_is_up() -> None:
    async def check() -> None:
        places = Places(slots=1)
        async with server(health(places)) as root, aiohttp.ClientSession() as client:
            async with client.get(root) as answer:
                assert answer.status == 503
                assert json.loads(await answer.text())["error"]["message"] == "no replica is up"
            places.add(Replica("m.1", ""))
            async with client.get(root) as answer:
                assert answer.status == 200

    asyncio.run(check())
