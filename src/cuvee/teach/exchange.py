"""One try of one request over HTTP, and what became of it.

`post` sends a chat request once and says which of six things happened; whether to try again
is the caller's decision (`cuvee.teach.client`), how long to wait first is `wait_before`'s.
Not here: the ledger, traces, what a reply holds (`cuvee.teach.reply`).
"""

import dataclasses
import datetime
import email.utils
import random
import time
from collections.abc import Mapping
from typing import Any, Literal

import aiohttp

from cuvee.teach.reply import UnreadableReplyError, read_error, read_reply

Fate = Literal["answered", "refused", "busy", "garbled", "lost", "unreachable"]

BUSY = {408, 409, 425, 429}
"""With the other 5xx: errors that may pass, and for which nothing was generated."""
GATEWAY = {502, 504, 524}
"""A gateway gave up; the server behind it may have gone on (and billed)."""
CONNECT_SECONDS = 30.0
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 60.0
LONGEST_RETRY_AFTER_SECONDS = 900.0


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

    @property
    def unbilled(self) -> bool:
        """Return whether the server surely generated nothing."""
        return self.fate in ("refused", "busy", "unreachable")


async def post(
    session: aiohttp.ClientSession,
    url: str,
    body: Mapping[str, Any],
    *,
    seconds: float,
    secret: str | None,
) -> Try:
    """Send `body` once; wait at most `seconds` for the whole reply.

    `secret` (the API key) is blotted out wherever the server repeats it. Raises nothing of
    the network: every failure is a Try.
    """
    begin = time.monotonic()
    limits = aiohttp.ClientTimeout(total=seconds, sock_connect=min(seconds, CONNECT_SECONDS))

    def failed(fate: Fate, error: str) -> Try:
        return Try(fate, seconds=time.monotonic() - begin, error=error)

    try:
        # A redirected POST would arrive as a GET; it is refused with the new address instead.
        sending = session.post(url, json=body, timeout=limits, allow_redirects=False)
        async with sending as response:
            raw = await response.read()
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        return failed("unreachable", f"cannot connect: {error}")
    except TimeoutError:
        return failed("lost", f"no complete answer within {seconds:g} s")
    except aiohttp.ClientPayloadError:
        return failed("garbled", "the connection ended in the middle of the reply")
    except aiohttp.ClientError as error:
        return failed("lost", f"connection lost: {str(error) or type(error).__name__}")
    took = time.monotonic() - begin
    # A byte that is no UTF-8 becomes U+FFFD: visible in the text, and no reason to ask again.
    text = raw.decode("utf-8", "replace")
    if secret:
        text = text.replace(secret, "[API key]")
    return _judged(text, response, took)


def _judged(text: str, response: aiohttp.ClientResponse, seconds: float) -> Try:
    status = response.status
    if status == 200:
        try:
            read_reply(text)
        except UnreadableReplyError as error:
            return Try("garbled", text, status, seconds, str(error))
        return Try("answered", text, status, seconds)
    message = f"HTTP {status}: {read_error(text)}"
    if 300 <= status < 400:
        message = f"HTTP {status}: moved to {response.headers.get('Location')}"
    fate: Fate = "refused"
    if status in GATEWAY:
        fate = "lost"
    elif status in BUSY or status >= 500:
        fate = "busy"
    return Try(fate, text, status, seconds, message, _retry_after(response))


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
    backoff = min(FIRST_WAIT_SECONDS * 2.0 ** (tries - 1), LONGEST_WAIT_SECONDS)
    return max(backoff * (0.5 + rng.random()), retry_after or 0.0)
