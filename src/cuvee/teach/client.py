"""The client: requests in, traces out, through the ledger and over HTTP.

`ask` sends what the ledger lacks, with bounded concurrency, retries and backoff, and gives
what reads all answers back in the order of the requests: memory stays flat however many
there are. A request that cannot be answered is a trace with `finish_reason` `error`; a
teacher that cannot be reached, refuses the key or does not know the model raises
TeacherError instead of making thousands of such rows. The same client asks teachers,
specialists and the merged model. Not here: starting what is asked
(`cuvee.teach.endpoints`, `cuvee.models.engines`), one question's tries (`cuvee.teach.line`).
"""

import asyncio
import dataclasses
import itertools
import random
import resource
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import aiohttp

from cuvee.errors import RecipeError
from cuvee.progress import Meter
from cuvee.recipe import Sampling
from cuvee.records import content_hash
from cuvee.teach.answers import Answers, Asked, Usage
from cuvee.teach.exchange import HEADERS, LIMITS, Wire
from cuvee.teach.failures import Failures
from cuvee.teach.keepalive import FreshRequest
from cuvee.teach.ledger import Ledger
from cuvee.teach.line import Books, Line, answer, settle
from cuvee.teach.pace import Pace
from cuvee.teach.request import (
    Endpoint,
    Question,
    Request,
    Requests,
    api_key,
    question,
    request_key,
    request_seed,
)

__all__ = [
    "Answers",
    "Books",
    "Endpoint",
    "Request",
    "Requests",
    "Usage",
    "all_answered",
    "api_key",
    "ask",
    "request_seed",
]

KEEP_ALIVE_SECONDS = 30.0
STOP_SECONDS = 0.2
"""How often `stop` is looked at."""
BLOCK = 100
"""Requests that are looked up at once."""
OTHER_FILES = 256
"""Files and sockets that this process has open beside those of one line, at most."""


def all_answered(
    endpoint: Endpoint, requests: Requests, *, sampling: Sampling, ledger: Ledger
) -> bool:
    """Return whether the ledger answers every request: then `ask` needs no URL and no key.

    Raises DataError, OSError of the ledger.
    """
    return all(ledger.holds(request_key(endpoint, request, sampling)) for request in requests)


def ask(
    endpoint: Endpoint,
    requests: Requests,
    *,
    sampling: Sampling,
    books: Books,
    meter: Meter | None = None,
    stop: threading.Event | None = None,
) -> Answers:
    """Ask all that the ledger does not hold; return what reads one trace a request.

    Synchronous; not to be called from within a running event loop, but from any thread.
    `meter` is counted on as things happen. When it raises, or is interrupted, the answers
    that came are in the ledger. Raises RecipeError (key not set, more connections than the
    system allows), TeacherError (unreachable, key or model refused, the first or the last
    requests all failed), BudgetError, DataError or OSError of the ledger, and
    KeyboardInterrupt where `stop` is set.
    """
    meter, stop = meter or Meter(), stop or threading.Event()
    meter.total += len(requests)
    failures, asked = Failures(), Asked()
    waiting = _unanswered(endpoint, requests, sampling=sampling, ledger=books.ledger, meter=meter)
    # Where nothing is to be sent no key is wanted, and no server.
    first = next((found for found in waiting if stop.is_set() or found is not None), None)
    if first is not None and not stop.is_set():
        secret = api_key(endpoint)
        _allow_files(endpoint)
        asked = asyncio.run(
            _ask_all(
                _Job(endpoint, books, meter, failures, secret, stop),
                itertools.chain([first], waiting),
            )
        )
    if stop.is_set():
        raise KeyboardInterrupt
    return Answers(
        endpoint,
        requests,
        sampling=sampling,
        ledger=books.ledger,
        failures=failures,
        asked=asked,
    )


@dataclasses.dataclass(frozen=True)
class _Job:
    """What the event loop is given."""

    endpoint: Endpoint
    books: Books
    meter: Meter
    failures: Failures
    secret: str | None = dataclasses.field(repr=False)
    stop: threading.Event


def _unanswered(
    endpoint: Endpoint,
    requests: Requests,
    *,
    sampling: Sampling,
    ledger: Ledger,
    meter: Meter,
) -> Iterator[Question | None]:
    """Yield what the ledger lacks; None after a block of requests that it holds entirely.

    Looked up a block at a time: beside the ledger's writer each look costs a wait for the
    interpreter. What was answered since, `mark_sent` finds.
    """
    rest = iter(requests)
    while block := [question(endpoint, r, sampling) for r in itertools.islice(rest, BLOCK)]:
        held = ledger.held([asked.key for asked in block])
        missing = [asked for asked in block if asked.key not in held]
        meter.answers += len(block) - len(missing)
        meter.from_ledger += len(block) - len(missing)
        yield from missing
        if not missing:
            yield None


async def _ask_all(job: _Job, waiting: Iterator[Question | None]) -> Asked:
    """Ask all questions; return what it took. Raises why the line broke, once it is quiet."""
    endpoint = job.endpoint
    async with _session(endpoint, job.secret) as session:
        url = endpoint.url.rstrip("/") + "/chat/completions"
        line = Line(
            endpoint=endpoint,
            wire=Wire(session, url, endpoint.stream, job.secret),
            books=job.books,
            pace=Pace(endpoint.concurrency, limit=endpoint.concurrency),
            meter=job.meter,
            failures=job.failures,
            rng=random.Random(content_hash(endpoint.name)),
        )
        workers = [asyncio.create_task(_work(line, waiting)) for _ in range(endpoint.concurrency)]
        work = asyncio.gather(*workers)
        try:
            await _all_or_stop(work, job.stop)
            await settle(line)
        finally:
            work.cancel()
            # Its own error too: one that nobody asks for is printed by asyncio.
            await asyncio.gather(work, *workers, return_exceptions=True)
    # Raised only now: what was in flight had its time to come in.
    if line.broken is not None:
        raise line.broken
    return Asked(line.sent, line.answers, line.doubtful)


async def _work(line: Line, waiting: Iterator[Question | None]) -> None:
    """Take questions from the common iterator until it is empty or the line is broken."""
    for asked in waiting:
        if line.broken is not None:
            return
        if asked is None:
            await asyncio.sleep(0)  # a long row of stored answers must not starve the others
        else:
            await answer(line, asked)


async def _all_or_stop(work: asyncio.Future[list[None]], stop: threading.Event) -> None:
    """Wait until the work is done or `stop` is set. Raises what the work raises."""
    while not stop.is_set():
        await asyncio.wait([work], timeout=STOP_SECONDS)
        if work.done():
            work.result()
            return


def _session(endpoint: Endpoint, secret: str | None) -> aiohttp.ClientSession:
    headers = HEADERS | ({"Authorization": f"Bearer {secret}"} if secret else {})
    local = urlsplit(endpoint.url).hostname in ("127.0.0.1", "localhost", "::1")
    return aiohttp.ClientSession(
        # How many there are at once is the line's business.
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
        headers=headers,
        timeout=LIMITS,
        request_class=FreshRequest,
        # A proxy of the environment is for the world outside, not for engines on this machine.
        trust_env=not local,
        cookie_jar=aiohttp.DummyCookieJar(),
    )


def _allow_files(endpoint: Endpoint) -> None:
    """Let this process open as many connections as the endpoint wants.

    Raises RecipeError where the system's hard limit is lower.
    """
    needed = endpoint.concurrency + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise RecipeError(
            f"{endpoint.name}: concurrency {endpoint.concurrency} needs {needed} open files, "
            f"the system allows {hard} (ulimit -Hn); lower `concurrency` or raise that limit"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
