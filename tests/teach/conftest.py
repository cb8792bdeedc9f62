"""A real chat server on loopback that behaves, or misbehaves, as a test says."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from cuvee.teach.ledger import Ledger

Body = dict[str, Any]
Behaviour = Callable[[web.Request, Body, int], Awaitable[web.StreamResponse]]
"""(request, its body, which try of this prompt and seed: 1, 2, ...) -> response."""


def completion(content: str | None = "", **message: Any) -> Body:
    """Return the JSON of a chat completion; `finish_reason` and `usage` may be given."""
    finish = message.pop("finish_reason", "stop")
    return {
        "id": "chatcmpl-1",
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


@pytest.fixture
def serve() -> Iterator[Callable[[Behaviour], Loopback]]:
    """Start servers that end with the test."""
    with ExitStack() as stack:
        yield lambda behaviour: stack.enter_context(loopback(behaviour))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.sqlite") as opened:
        yield opened
