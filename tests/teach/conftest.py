"""A real chat server on loopback that behaves, or misbehaves, as a test says."""

import asyncio
import itertools
import json
import socket
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from cuvee.progress import Meter
from cuvee.recipe import Budget, Sampling
from cuvee.recipe.address import Place
from cuvee.records import Trace
from cuvee.teach.client import Books, Endpoint, Request, Usage, ask, request_seed
from cuvee.teach.ledger import Ledger

from .servers import Postgres, running

SAMPLING = Sampling(temperature=0.5, top_p=0.9, max_tokens=64)
NUMBERS = itertools.count()
Body = dict[str, Any]
Behaviour = Callable[[web.Request, Body, int], Awaitable[web.StreamResponse]]
"""(request, its body, which try of this prompt and seed: 1, 2, ...) -> response."""


def completion(content: str | None = "", **message: Any) -> Body:
    """Return the JSON of a chat completion; `finish_reason` and `usage` may be given."""
    finish = message.pop("finish_reason", "stop")
    return {
        "id": f"chatcmpl-{next(NUMBERS)}",
        "object": "chat.completion",
        "system_fingerprint": "fp-7",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "message": {"role": "assistant", "content": content, **message},
            }
        ],
        "usage": {"prompt_tokens": 11, "completion_tokens": 22, "total_tokens": 33},
    }


def content_of(body: Body) -> str:
    """Return the answer a well-behaved server gives: it repeats prompt and seed."""
    return f"<think>about {body['messages'][-1]['content']}</think>{body['seed']}"


async def answer_well(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
    return web.json_response(completion(content_of(body)))


def first_try(fault: Behaviour) -> Behaviour:
    """Misbehave on the first try of every request, then answer well."""

    async def behave(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        return await (fault if tries == 1 else answer_well)(request, body, tries)

    return behave


def endpoint(url: str, **changes: Any) -> Endpoint:
    usual = Endpoint("alice", url, "m", "id", concurrency=4, timeout=10.0, retries=2)
    return replace(usual, **changes)


def requests(count: int) -> list[Request]:
    return [
        Request(f"p{n}", "math", 0, f"question {n}", request_seed(1, f"p{n}", 0))
        for n in range(count)
    ]


def send(
    to: Endpoint,
    asked: list[Request],
    ledger: Ledger,
    *,
    budget: Budget | None = None,
    meter: Meter | None = None,
) -> tuple[list[Trace], Usage]:
    """Ask, and read all answers back."""
    books = Books(ledger, "run 1", budget)
    answers = ask(to, asked, sampling=SAMPLING, books=books, meter=meter)
    traces = list(answers)
    return traces, answers.usage()


def closed_port() -> str:
    """Return a URL where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


class Loopback:
    """What a test sees of the server: its URL, and everything it was asked."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.url = ""
        self.bodies: list[Body] = []
        self.headers: list[dict[str, str]] = []
        self.asked: Counter[tuple[str, int]] = Counter()
        self.in_flight = 0
        self.most_in_flight = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.text())
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        key = (body["messages"][-1]["content"], body["seed"])
        self.asked[key] += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self.behaviour(request, body, self.asked[key])
        finally:
            self.in_flight -= 1


@contextmanager
def loopback(behaviour: Behaviour) -> Iterator[Loopback]:
    """Serve in a thread of its own, on a free port, while the block runs."""
    server = Loopback(behaviour)
    ready = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []
    end = asyncio.Event()

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        app = web.Application()
        app.router.add_post("/v1/chat/completions", server.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        ready.set()
        await end.wait()
        await runner.cleanup()

    # `asyncio.run` also ends handlers that still sleep.
    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert ready.wait(10)
    try:
        yield server
    finally:
        loops[0].call_soon_threadsafe(end.set)
        thread.join(10)


Serve = Callable[[Behaviour], Loopback]
Raw = Callable[[asyncio.Transport, Body], None]
"""Called with each request that came; it writes what it likes, now or later."""
ServeRaw = Callable[[Raw], str]


class RawProtocol(asyncio.Protocol):
    """A server of bytes: for what no proper server would ever send."""

    def __init__(self, behaviour: Raw, opened: list[asyncio.Transport]) -> None:
        self.behaviour = behaviour
        self.opened = opened
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.opened.append(transport)

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, found, body = self.received.partition(b"\r\n\r\n")
        if not found:
            return
        size = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        if len(body) >= size:
            self.received = body[size:]
            self.behaviour(self.transport, json.loads(body[:size]))


@contextmanager
def raw_loopback(behaviour: Raw) -> Iterator[str]:
    """Serve bytes in a thread of its own while the block runs; yields the URL."""
    loop, opened = asyncio.new_event_loop(), list[asyncio.Transport]()

    def end() -> None:
        server.close()
        for transport in opened:
            transport.abort()
        loop.call_later(0.01, loop.stop)  # the aborted ones are closed a turn later

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    starting = loop.create_server(lambda: RawProtocol(behaviour, opened), "127.0.0.1", 0)
    server = asyncio.run_coroutine_threadsafe(starting, loop).result(10)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        loop.call_soon_threadsafe(end)
        thread.join(10)
        loop.close()


@pytest.fixture
def serve_raw() -> Iterator[ServeRaw]:
    """Start servers of bytes that end with the test."""
    with ExitStack() as stack:
        yield lambda behaviour: stack.enter_context(raw_loopback(behaviour))


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers that end with the test."""
    with ExitStack() as stack:
        yield lambda behaviour: stack.enter_context(loopback(behaviour))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Run a PostgreSQL server of the tests' own."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(running())
        except FileNotFoundError as error:
            pytest.skip(str(error))
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Return where there is no ledger yet: a file, and a database."""
    if request.param == "sqlite":
        return tmp_path / "l.sqlite"
    server: Postgres = request.getfixturevalue("postgres")
    return server.database()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.sqlite") as opened:
        yield opened
