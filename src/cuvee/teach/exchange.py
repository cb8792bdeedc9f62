"""One try of one request over HTTP, and what became of it.

`post` sends a chat request once and says which of six things happened; whether to try again
is the caller's decision (`cuvee.teach.line`), how long to wait first is `wait_before`'s.
An answer is read in bounded memory, whole or as a stream. Not here: the ledger, traces, what
a reply holds (`cuvee.teach.reply`).
"""

import asyncio
import dataclasses
import datetime
import email.utils
import random
import time
from typing import Literal

import aiohttp

from cuvee.teach.keepalive import Repeats, StaleConnectionError
from cuvee.teach.reply import (
    Reply,
    UnreadableReplyError,
    is_out_of_money,
    is_too_long,
    read_error,
    read_reply,
)
from cuvee.teach.streaming import Assembly

Fate = Literal["answered", "refused", "busy", "garbled", "lost", "unreachable"]

BUSY = {408, 409, 425, 429}
"""With the other 5xx: errors that may pass, and for which nothing was generated."""
GATEWAY = {502, 504, 524}
"""A gateway gave up; the server behind it may have gone on (and billed)."""
NO_ROOM = {429, 503, 529}
"""Errors that say: not so many at once."""
CONNECT_SECONDS = 30.0
GOODBYE_SECONDS = 0.5
"""How long the end of a stream may follow its last piece, for the connection to be kept."""
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 60.0
LONGEST_RETRY_AFTER_SECONDS = 900.0
LARGEST_REPLY = 64 << 20
"""Bytes of a reply; and characters of what a stream is put together to."""
LIMITS = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
"""Of the session; the limit of a try is `post`'s own."""
HEADERS = {"Content-Type": "application/json"}
"""Of the session, that they need not be put together for each request."""


class TooLargeError(Exception):
    """The reply is larger than `LARGEST_REPLY`."""


@dataclasses.dataclass(frozen=True)
class Wire:
    """Where requests of one endpoint go."""

    session: aiohttp.ClientSession
    url: str
    stream: bool
    """Whether answers come in pieces; then the time limit of a try is one of silence."""
    secret: str | None = dataclasses.field(default=None, repr=False)
    """The API key: blotted out wherever the server repeats it."""
    repeats: Repeats = dataclasses.field(default_factory=Repeats)


@dataclasses.dataclass(frozen=True)
class Try:
    """What became of one sending."""

    fate: Fate
    """`answered`; `refused` (trying again would not help); `busy` (429, 5xx); `garbled` (half
    a body, or no completion); `lost` (reset or timeout after sending); `unreachable`."""
    body: str = ""
    status: int | None = None
    """None where nothing came back."""
    seconds: float = 0.0
    error: str | None = None
    """What happened, for people; None where answered."""
    retry_after: float | None = None
    """Seconds the server asked to wait."""
    reply: Reply | None = None
    """What the body says, where answered."""
    out_of_money: bool = False

    @property
    def unbilled(self) -> bool:
        """Return whether the server surely generated nothing."""
        return self.fate in ("refused", "busy", "unreachable")


async def post(wire: Wire, body: bytes, *, timeout: float, left: float) -> Try:
    """Send `body` once; wait at most `timeout` for the reply, and never more than `left` s.

    The `timeout` of a stream begins anew with each piece of the answer. Raises nothing of
    the network: every failure is a Try.
    """
    begin = time.monotonic()
    while True:
        try:
            done = await _post(wire, body, timeout=timeout, left=left)
        except StaleConnectionError:
            continue  # it is closed now and nothing was sent; the next one is another
        seconds = time.monotonic() - begin
        return dataclasses.replace(done, seconds=seconds, error=_blotted(wire, done.error))


async def _post(wire: Wire, body: bytes, *, timeout: float, left: float) -> Try:
    assembly = Assembly()
    try:
        async with asyncio.timeout(min(timeout, left)) as limit:
            # A redirected POST would arrive as a GET; it is refused with the new address instead.
            async with wire.session.post(wire.url, data=body, allow_redirects=False) as response:
                if wire.stream and _is_stream(response):
                    await _assemble(response, assembly, limit, timeout=timeout, left=left)
                    return _judged_stream(wire, assembly)
                return _judged(wire, await _whole(response), response)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        return Try("unreachable", error=f"cannot connect: {error}")
    except TooLargeError:
        return Try("garbled", error=f"a reply of more than {LARGEST_REPLY} bytes")
    except (TimeoutError, aiohttp.ClientError) as error:
        if assembly.complete:  # the answer is here; what was lost is how streams say goodbye
            return _judged_stream(wire, assembly)
        return _broken_off(error, seconds=min(timeout, left), stream=wire.stream)


def _broken_off(error: Exception, *, seconds: float, stream: bool) -> Try:
    if isinstance(error, TimeoutError):
        what = "nothing more of the answer" if stream else "no complete answer"
        return Try("lost", error=f"{what} within {seconds:g} s")
    if isinstance(error, aiohttp.ClientPayloadError):
        return Try("garbled", error="the connection ended in the middle of the reply")
    return Try("lost", error=f"connection lost: {str(error) or type(error).__name__}")


async def _whole(response: aiohttp.ClientResponse) -> str:
    parts, size = [], 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > LARGEST_REPLY:
            raise TooLargeError
    # A byte that is no UTF-8 becomes U+FFFD: visible in the text, and no reason to ask again.
    return b"".join(parts).decode("utf-8", "replace")


def _is_stream(response: aiohttp.ClientResponse) -> bool:
    # Some servers answer whole all the same, and errors always come whole.
    return response.status == 200 and response.content_type == "text/event-stream"


async def _assemble(
    response: aiohttp.ClientResponse,
    assembly: Assembly,
    limit: asyncio.Timeout,
    *,
    timeout: float,
    left: float,
) -> None:
    """Read a stream to its end; each piece of the answer puts the time limit off."""
    now = asyncio.get_running_loop().time
    end, buffer = now() + left, bytearray()
    async for chunk in response.content.iter_any():
        buffer += chunk
        if len(buffer) + assembly.characters > LARGEST_REPLY:
            raise TooLargeError
        if b"\n" not in chunk:
            continue
        *lines, rest = bytes(buffer).split(b"\n")
        buffer = bytearray(rest)
        if sum(assembly.take(line) for line in lines):
            limit.reschedule(min(now() + timeout, end))
        if assembly.ended or assembly.error:
            break
    assembly.take(bytes(buffer))
    if assembly.ended:  # a connection can be used again once it is read to the end
        limit.reschedule(min(now() + GOODBYE_SECONDS, end))
        await response.content.read(1)


def _judged_stream(wire: Wire, assembly: Assembly) -> Try:
    if assembly.error is not None:
        return _judged_body(wire, assembly.error)
    if not assembly.complete:
        return Try("garbled", status=200, error="the stream ended before the answer did")
    return _judged_body(wire, assembly.body())


def _judged_body(wire: Wire, text: str) -> Try:
    """Judge what came with status 200."""
    text = _blotted(wire, text) or ""
    try:
        reply = read_reply(text)
    except UnreadableReplyError as error:
        fate: Fate = "refused" if is_too_long(text) else "garbled"
        return Try(fate, text, 200, error=str(error))
    if reply.id is not None and wire.repeats.has(reply.id, text):
        return Try("garbled", text, 200, error="the answer to another request, again")
    return Try("answered", text, 200, reply=reply)


def _judged(wire: Wire, text: str, response: aiohttp.ClientResponse) -> Try:
    status = response.status
    if status == 200:
        return _judged_body(wire, text)
    text = _blotted(wire, text) or ""
    message = f"HTTP {status}: {read_error(text)}"
    if 300 <= status < 400:
        message = f"HTTP {status}: moved to {response.headers.get('Location')}"
    poor, fate = is_out_of_money(text), _fate(status)
    if is_too_long(text):
        fate = "refused"
        message += " (prompt and max_tokens must fit into the model's context)"
    if poor:
        fate = "refused"
    return Try(fate, text, status, 0.0, message, _retry_after(response), out_of_money=poor)


def _fate(status: int) -> Fate:
    if status in GATEWAY:
        return "lost"
    return "busy" if status in BUSY or status >= 500 else "refused"


def _blotted(wire: Wire, text: str | None) -> str | None:
    if not wire.secret or not text:
        return text
    # Some servers write a slash in JSON as \/.
    for form in (wire.secret, wire.secret.replace("/", "\\/")):
        text = text.replace(form, "[API key]")
    return text


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    """Return the header `Retry-After` (seconds or an HTTP date) in seconds; None if unusable."""
    value = response.headers.get("Retry-After", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            then = email.utils.parsedate_to_datetime(value)
        except ValueError:
            return None
        # A date without a zone is GMT: HTTP allows no other.
        then = then if then.tzinfo else then.replace(tzinfo=datetime.UTC)
        seconds = (then - datetime.datetime.now(datetime.UTC)).total_seconds()
    if not seconds < float("inf"):
        return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS)


def wait_before(tries: int, *, retry_after: float | None, rng: random.Random) -> float:
    """Return the seconds to wait after `tries` (>= 1) failed tries.

    Doubles from `FIRST_WAIT_SECONDS` to `LONGEST_WAIT_SECONDS`, times a jitter in
    [0.5, 1.5), so that what failed together does not come back together; never less than
    the server asked for.
    """
    # The exponent is bounded: with many refusals 2.0 ** tries would overflow.
    backoff = min(FIRST_WAIT_SECONDS * 2.0 ** min(tries - 1, 20), LONGEST_WAIT_SECONDS)
    return max(backoff * (0.5 + rng.random()), retry_after or 0.0)
