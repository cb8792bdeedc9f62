"""A loopback server whose sleeps decide how long everything takes."""

import asyncio
import dataclasses
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from aiohttp import web


@dataclasses.dataclass
class Behaviour:
    """What the server does; times in seconds."""

    kind: str = "llama.cpp"
    """`llama.cpp` and `vllm` have /tokenize; `chat` has not."""
    first: float = 0.0
    """Before the first piece."""
    gap: float = 0.01
    """Before each other piece."""
    a_piece: int = 1
    """Tokens in a piece."""
    most_tokens: int = 1000
    cached: int = 0
    slots: int = 1000
    fail: Callable[[dict[str, Any]], int | None] = lambda body: None
    """Status of an error in place of an answer."""
    usage: bool = True
    secret: str | None = None
    bodies: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """What was asked for an answer."""


Serve = Callable[[Behaviour], str]


def app(behaviour: Behaviour) -> web.Application:
    places = asyncio.Semaphore(behaviour.slots)

    async def tokenize(request: web.Request) -> web.Response:
        text = (await request.json())["content"]
        said: dict[str, Any] = {"tokens": [10 + ord(c) % 50 for c in text]}
        if behaviour.kind == "vllm":
            said |= {"max_model_len": 4096, "count": len(text)}
        return web.json_response(said)

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        behaviour.bodies.append(body)
        if status := behaviour.fail(body):
            key = request.headers.get("Authorization", "")
            return web.json_response({"error": {"message": f"broken {key}"}}, status=status)
        async with places:
            return await stream(request, body)

    async def stream(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        tokens = min(body["max_tokens"], behaviour.most_tokens)
        for number, done in enumerate(range(0, tokens, behaviour.a_piece)):
            await asyncio.sleep(behaviour.gap if number else behaviour.first)
            text = "a" * min(behaviour.a_piece, tokens - done)
            await send(response, [choice(body, text)])
        reason = "length" if tokens == body["max_tokens"] else "stop"
        await send(response, [choice(body, "") | {"finish_reason": reason}])
        await send(response, [], usage(body, tokens) if behaviour.usage else {})
        await response.write(b"data: [DONE]\n\n")
        return response

    def usage(body: dict[str, Any], tokens: int) -> dict[str, Any]:
        return {
            "usage": {
                "prompt_tokens": prompt_tokens(body),
                "completion_tokens": tokens,
                "prompt_tokens_details": {"cached_tokens": behaviour.cached},
            }
        }

    made = web.Application()
    if behaviour.kind == "chat":
        made.router.add_post("/v1/chat/completions", answer)
    else:
        made.router.add_post("/tokenize", tokenize)
        made.router.add_post("/v1/completions", answer)
    return made


def prompt_tokens(body: dict[str, Any]) -> int:
    """Count ids; of a chat 7 tokens of a template and one a word."""
    if "prompt" in body:
        return len(body["prompt"])
    return 7 + len(body["messages"][0]["content"].split())


def choice(body: dict[str, Any], text: str) -> dict[str, Any]:
    said = {"text": text} if "prompt" in body else {"delta": {"content": text}}
    return {"index": 0, "finish_reason": None, **said}


async def send(
    response: web.StreamResponse, choices: list[dict[str, Any]], more: dict[str, Any] | None = None
) -> None:
    piece = {"id": "x", "choices": choices, **(more or {})}
    await response.write(b"data: " + json.dumps(piece).encode() + b"\n\n")


@contextmanager
def served(behaviour: Behaviour) -> Iterator[str]:
    """Serve in a thread while the block runs; yield the base URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> tuple[web.AppRunner, int]:
        runner = web.AppRunner(app(behaviour))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner, runner.addresses[0][1]

    runner, port = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def behaviour() -> type[Behaviour]:
    """Return what says how a server behaves."""
    return Behaviour


@pytest.fixture
def fake() -> Iterator[Serve]:
    """Return what serves a behaviour until the test ends."""
    with ExitStack() as running:
        yield lambda behaviour: running.enter_context(served(behaviour))
