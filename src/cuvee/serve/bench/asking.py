"""One request to a server, timed: when it was sent, when each piece of the answer came.

A request's body in, an `Answer` out; a failure of the network or the server is one too, with
its reason. Tokens are those that the server counts (`usage`), never pieces. Times are of this
machine's monotonic clock, in seconds. Not here: what is asked (`prompts`), what the times
say (`figures`).
"""

import dataclasses
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from cuvee.teach.exchange import CONNECT_SECONDS, HEADERS, LARGEST_REPLY
from cuvee.teach.reply import read_error
from cuvee.teach.streaming import Assembly

SILENCE_SECONDS = 3600.0
"""Without a byte from the server: a long prompt of a large model on a CPU takes its time."""
LONGEST_ERROR = 1 << 16

Clock = Callable[[], float]


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came of one request."""

    sent: float
    """When the request left, by a connection that was open."""
    pieces: tuple[float, ...] = ()
    """When each piece with text came."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt: what the server says it had read before."""
    tokens: int = 0
    """Of the answer, reasoning included."""
    finish_reason: str | None = None
    failed: str | None = None
    """Why there is no answer to count with; None where there is."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where requests go."""

    session: aiohttp.ClientSession
    url: str
    """Base URL of the OpenAI-style API, without a slash at its end."""
    model: str
    secret: str | None = dataclasses.field(default=None, repr=False)
    """The API key: blotted out where the server repeats it."""


@asynccontextmanager
async def opened(url: str, model: str, *, secret: str | None) -> AsyncIterator[Place]:
    """Open what requests to a server go through; each has a connection of its own.

    Servers close a connection after a stream, and a request must neither wait for another's
    connection nor be lost in a closed one.
    """
    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(_note_sending)
    local = urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        headers=HEADERS | ({"Authorization": f"Bearer {secret}"} if secret else {}),
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS
        ),
        trace_configs=[trace],
        trust_env=not local,
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        yield Place(session, url.rstrip("/"), model, secret)


async def ask(place: Place, path: str, body: Mapping[str, Any]) -> Answer:
    """POST a request that streams its answer to `URL/path`; raises nothing of the network."""
    sending: list[float] = []
    whole = {
        "model": place.model,
        **body,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    begin = time.monotonic()
    try:
        async with place.session.post(
            f"{place.url}/{path}", json=whole, allow_redirects=False, trace_request_ctx=sending
        ) as response:
            begin = sending[0] if sending else begin
            if response.status != 200:
                said = (await response.content.read(LONGEST_ERROR)).decode("utf-8", "replace")
                failed = f"HTTP {response.status}: {read_error(said)}"
                answer = Answer(begin, failed=failed)
            else:
                answer = await read(response.content, sent=begin)
    except aiohttp.ClientConnectorError as error:
        answer = Answer(begin, failed=f"cannot connect: {error}")
    except (TimeoutError, aiohttp.ClientError) as error:
        what = str(error) or type(error).__name__
        answer = Answer(begin, failed=f"the connection was lost: {what}")
    if answer.failed and place.secret:
        blotted = answer.failed.replace(place.secret, "[API key]")
        answer = dataclasses.replace(answer, failed=blotted)
    return answer


async def read(
    lines: AsyncIterable[bytes], *, sent: float, clock: Clock = time.monotonic
) -> Answer:
    """Read the lines of a `text/event-stream` as they come; `sent` and `clock` in seconds."""
    assembly, pieces, last = Assembly(), [], 0
    try:
        async for line in lines:
            assembly.take(line)
            if assembly.characters > last:  # what opens or ends a stream holds no text
                pieces.append(clock())
                last = assembly.characters
            if assembly.ended or assembly.error or last > LARGEST_REPLY:
                break
    except ValueError:  # aiohttp's, of a line longer than its buffer
        return Answer(sent, failed="a line of the stream is too long to be read")
    return _judged(assembly, tuple(pieces), sent=sent)


def _judged(assembly: Assembly, pieces: tuple[float, ...], *, sent: float) -> Answer:
    """Return the answer, or why it cannot be counted with."""
    if assembly.error is not None:
        return Answer(sent, failed=f"an error in the stream: {read_error(assembly.error)}")
    if not assembly.complete:
        return Answer(sent, failed="the stream ended before the answer did")
    usage = assembly.usage if isinstance(assembly.usage, dict) else {}
    prompt, tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not isinstance(prompt, int) or not isinstance(tokens, int):
        return Answer(sent, failed="the server does not say how many tokens it counts (usage)")
    if not pieces:
        return Answer(sent, failed=f"no text came with the {tokens} tokens of the answer")
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return Answer(
        sent,
        pieces,
        prompt_tokens=prompt,
        cached_tokens=cached if isinstance(cached, int) else 0,
        tokens=tokens,
        finish_reason=assembly.finish_reason,
    )


async def _note_sending(
    session: aiohttp.ClientSession, context: SimpleNamespace, sent: Any
) -> None:
    """Write down when a request's headers left; the list is `ask`'s."""
    if context.trace_request_ctx is not None:
        context.trace_request_ctx.append(time.monotonic())
