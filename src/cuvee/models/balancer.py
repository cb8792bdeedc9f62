"""Replicas of one model behind one URL: `python -m cuvee.models.balancer CONFIG`.

CONFIG is a JSON file with `engine` (what each replica is started with), `replicas`, `folder`,
`port` (0: any that is free), `start_seconds` and `silent_seconds`. When all replicas answer,
one JSON line `{"url": ...}` goes to stdout; where one of them does not start, or all have been
given up, the process ends with code 1.

A request goes to one replica (`cuvee.models.places`) and its answer comes back as it is
written, not gathered; a client that goes away takes its request along. A request that was
surely not sent goes to another replica; one that was in flight on a replica that died is
answered with 502 (or broken off, where the answer had begun), because it may have been
worked on: whether to ask again is for the client to decide, whose ledger says so. Replicas
check the token of a request themselves. Not here: their life (`cuvee.models.replicas`).
"""

import asyncio
import json
import resource
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from cuvee.models.places import Places, Replica
from cuvee.models.replicas import Group, keep, say

LARGEST_REQUEST = 64 << 20
"""Bytes of a request's body."""
CONNECT_SECONDS = 30.0
BACKLOG = 4096
"""Connections that may wait to be taken."""
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that concern one connection alone (RFC 9110, 7.6.1)."""
OF_REQUEST = HOP_BY_HOP | {"host", "content-length", "expect"}
"""Headers of a request that are made anew."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def relay(places: Places, session: aiohttp.ClientSession) -> Handler:
    """Return what hands each request to a replica."""

    async def handle(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        while True:
            async with places.place() as replica:
                try:
                    return await _pass_on(request, body, replica, session=session)
                except aiohttp.ClientConnectorError as error:  # nothing was sent
                    if not isinstance(error.os_error, ConnectionRefusedError):
                        return _error(503, f"{replica.name} cannot be reached: {error}")
                    replica.refused = True
                    places.remove(replica)

    return handle


def health(places: Places) -> Handler:
    """Return what says whether any replica is up."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return web.json_response({"status": "ok"}) if places.up else _error(503, "no replica is up")

    return handle


async def _pass_on(
    request: web.Request, body: bytes, replica: Replica, *, session: aiohttp.ClientSession
) -> web.StreamResponse:
    """Send a request to a replica and its answer to the client.

    Raises aiohttp.ClientConnectorError where there was no connection: nothing was sent.
    """
    reply: web.StreamResponse | None = None
    try:
        async with session.request(
            request.method,
            URL(replica.root + request.path_qs, encoded=True),
            data=body or None,
            headers=_without(request.headers, OF_REQUEST),
            allow_redirects=False,
        ) as answer:
            headers = _without(answer.headers, HOP_BY_HOP)
            reply = web.StreamResponse(status=answer.status, headers=headers)
            await reply.prepare(request)
            async for part in answer.content.iter_any():
                await reply.write(part)
            replica.answers += request.method == "POST" and answer.status == 200
            await reply.write_eof()
    except aiohttp.ClientConnectorError:
        raise
    except aiohttp.ClientError as error:
        if reply is None:
            return _error(502, f"{replica.name} ended while it answered: {error}")
        # Half an answer must not look like a whole one.
        if request.transport is not None:
            request.transport.abort()
    return reply


def _without(headers: Mapping[str, str], left_out: frozenset[str]) -> CIMultiDict[str]:
    kept = [(name, value) for name, value in headers.items() if name.lower() not in left_out]
    return CIMultiDict(kept)


def _error(status: int, message: str) -> web.Response:
    body = {"error": {"message": message, "type": "balancer", "code": status}}
    return web.json_response(body, status=status)


async def balance(config: Mapping[str, Any]) -> int:
    """Start all replicas and serve until SIGTERM (returns 0) or all is lost (returns 1).

    Raises OSError where the port cannot be had.
    """
    listening = socket.create_server(("127.0.0.1", config["port"]), backlog=BACKLOG)
    places, stop = Places(config["engine"]["slots"]), threading.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, places.close)
    group = Group(
        config["engine"], Path(config["folder"]), config["start_seconds"], config["silent_seconds"]
    )
    names = [f"{config['engine']['name']}.{n}" for n in range(1, config["replicas"] + 1)]
    about = {"places": places, "tell": loop.call_soon_threadsafe, "stop": stop}
    keepers = [threading.Thread(target=keep, args=(n, group), kwargs=about) for n in names]
    for keeper in keepers:
        keeper.start()
    try:
        return await _serve(places, listening, replicas=len(names))
    finally:
        stop.set()
        for keeper in keepers:
            await asyncio.to_thread(keeper.join)


async def _serve(places: Places, listening: socket.socket, *, replicas: int) -> int:
    """Serve while any replica may still answer."""
    await places.until(
        lambda: len(places.up) == replicas or bool(places.given_up) or places.closing
    )
    if places.given_up:
        say("no replica is served: not all of them started")
        return 1
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
    async with aiohttp.ClientSession(
        # A kept connection that the engine closes just then would lose a request.
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        timeout=timeout,
        auto_decompress=False,
        skip_auto_headers=["Accept", "Accept-Encoding", "Content-Type", "User-Agent"],
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        app = web.Application(client_max_size=LARGEST_REQUEST)
        app.router.add_get("/health", health(places))
        app.router.add_route("*", "/{path:.*}", relay(places, session))
        runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await runner.setup()
        try:
            await web.SockSite(runner, listening, backlog=BACKLOG).start()
            url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
            print(json.dumps({"url": url}), flush=True)
            await places.until(lambda: len(places.given_up) == replicas or places.closing)
        finally:
            await runner.cleanup()
    if not places.closing:
        say("all replicas were given up")
    return 0 if places.closing else 1


def main(arguments: list[str]) -> int:
    """Balance until ended; return the exit code."""
    config = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:  # a connection for each request that waits, two for each that is answered
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        return asyncio.run(balance(config))
    except OSError as error:
        say(f"port {config['port']}: {error.strerror}")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
