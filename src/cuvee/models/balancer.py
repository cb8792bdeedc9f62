"""Replicas of one model behind one URL: `python -m cuvee.models.balancer CONFIG`.

CONFIG is a JSON file with `engine` (what each replica is started with), `replicas`, `folder`,
`devices` (a list of GPU numbers to share out), `port` (0: any that is free), `start_seconds` and
`silent_seconds`. When all replicas answer, one JSON line `{"url": ...}` goes to stdout; where one
of them does not start, or all have been given up, the process ends with code 1.

A request goes to one replica (`cuvee.models.places`) and its answer comes back as it is
written, not gathered; a client that goes away takes its request along. A request that was
surely not sent goes to another replica; one that was in flight on a replica that died is
answered with 502 (or broken off, where the answer had begun), because it may have been
worked on: whether to ask again is for the client to decide, whose ledger says so. Replicas
check the token of a request themselves; one that has a token of its own gets that. Not here:
their life (`cuvee.models.replicas`), engines on other machines (`cuvee.workers.balancer`).
"""

import asyncio
import errno
import json
import resource
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from cuvee.models.door import LOOPBACK, shares
from cuvee.models.places import Places, Replica
from cuvee.models.replicas import Group, keep, on_this_machine, say

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

NOBODY_THERE = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH})
"""What a connection fails with where an engine, or its machine, is gone."""
LOST = {
    socket.TCP_KEEPIDLE: 20,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 2,
    socket.TCP_USER_TIMEOUT: 30_000,
}
"""When a connection to a machine that says nothing at all is given up, after 30 s: silent for 20 s,
and twice 5 s without a word that it is there (tcp(7); the last, in ms, where we had sent)."""

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
                    if error.os_error.errno not in NOBODY_THERE:
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
    headers = _without(request.headers, OF_REQUEST)
    if replica.token is not None:
        headers["Authorization"] = f"Bearer {replica.token}"
    try:
        async with session.request(
            request.method,
            URL(replica.root + request.path_qs, encoded=True),
            data=body or None,
            headers=headers,
            allow_redirects=False,
        ) as answer:
            said = _without(answer.headers, HOP_BY_HOP)
            reply = web.StreamResponse(status=answer.status, headers=said)
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


async def balance(group: Group, *, port: int) -> int:
    """Start all replicas and serve until SIGTERM (returns 0) or all is lost (returns 1).

    Raises OSError where the port cannot be had.
    """
    listening = socket.create_server((LOOPBACK, port), backlog=BACKLOG)
    places, stop = Places(group.slots), threading.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, places.close)
    about = {"places": places, "tell": loop.call_soon_threadsafe, "stop": stop}
    keepers = [threading.Thread(target=keep, args=(n, group), kwargs=about) for n in group.names]
    for keeper in keepers:
        keeper.start()
    try:
        return await _serve(places, listening, replicas=len(keepers))
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
        connector=aiohttp.TCPConnector(limit=0, force_close=True, socket_factory=watched_socket),
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
            url = f"http://{LOOPBACK}:{listening.getsockname()[1]}/v1"
            print(json.dumps({"url": url}), flush=True)
            await places.until(lambda: len(places.given_up) == replicas or places.closing)
        finally:
            await runner.cleanup()
    if not places.closing:
        say("all replicas were given up")
    return 0 if places.closing else 1


def watched_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Return a socket that notices when the machine at its other end is gone."""
    found = socket.socket(*address[:3])
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in LOST.items():
        found.setsockopt(socket.IPPROTO_TCP, option, value)
    return found


def names_of(name: str, replicas: int) -> tuple[str, ...]:
    """Return the names of a model's replicas: NAME.1, NAME.2, ..."""
    return tuple(f"{name}.{number}" for number in range(1, replicas + 1))


def run(group: Group, *, port: int) -> int:
    """Balance until ended; return the exit code."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:  # a connection for each request that waits, two for each that is answered
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        return asyncio.run(balance(group, port=port))
    except OSError as error:
        say(f"port {port}: {error.strerror}")
        return 1


def main(arguments: list[str]) -> int:
    """Balance between engines on this machine; return the exit code."""
    config = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    names = names_of(config["engine"]["name"], config["replicas"])
    devices = shares(config["devices"], len(names))
    start = on_this_machine(
        config["engine"],
        folder=Path(config["folder"]),
        seconds=config["start_seconds"],
        devices=dict(zip(names, devices, strict=True)),
    )
    group = Group(names, start, config["engine"]["slots"], config["silent_seconds"])
    return run(group, port=config["port"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
