"""The client: requests in, traces out, through the ledger and over HTTP.

`ask` answers from the ledger what it holds and sends the rest, with bounded concurrency,
retries and backoff. A request that cannot be answered is a trace with `finish_reason`
`error`; a teacher that cannot be reached, refuses the key or does not know the model raises
TeacherError instead of making thousands of such rows. The same client asks teachers,
specialists and the merged model. `stop` strings are never sent: they would fire within the
reasoning. Not here: starting what is asked (`cuvee.teach.endpoints`, `cuvee.models.engines`).
"""

import asyncio
import contextlib
import dataclasses
import os
import random
import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from cuvee.errors import DataError, RecipeError, TeacherError
from cuvee.progress import Tick, bar
from cuvee.recipe import Sampling
from cuvee.records import Message, Trace, content_hash, dumps
from cuvee.teach.exchange import Try, post, wait_before
from cuvee.teach.ledger import Answer, Ledger
from cuvee.teach.reply import Reply, UnreadableReplyError, read_reply

PATIENCE = 20
"""Requests that may fail before the first answer; then the teacher as a whole has failed."""
HOPELESS = {401, 402}
"""Key refused, account empty: no request will be answered any more."""
HOPELESS_AT_FIRST = {403, 404}
"""No access, no such model, wrong path; after a first answer they concern one request alone."""


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A model that can be asked."""

    name: str
    """The teacher's name, or `base`, a specialist's domain, `merged`; `Trace.model`."""
    url: str
    """Base URL of the OpenAI-style API, as a rule ending in `/v1`."""
    model: str
    """The model's name on that server."""
    identity: str
    """Part of the ledger's key: changes whenever the answers could change."""
    key_env: str | None = None
    """Environment variable that holds the API key."""
    concurrency: int = 16
    """Requests in flight at most."""
    timeout: float = 600.0
    """Seconds for one try."""
    retries: int = 5
    """Tries after the first."""
    system: str | None = None
    """System message."""


@dataclasses.dataclass(frozen=True)
class Request:
    """One question to one model, once."""

    problem_id: str
    domain: str
    sample: int
    prompt: str
    """The user message."""
    seed: int
    """Of the sampling; see `request_seed`."""


@dataclasses.dataclass(frozen=True)
class Usage:
    """What answering a list of requests took."""

    sent: int
    """Requests that left, whatever came of them; tries are not counted."""
    from_ledger: int
    failed: int
    """Traces without an answer; they are asked again whenever they are asked for again."""
    truncated: int
    """Answers cut at `max_tokens`."""
    prompt_tokens: int
    """Of all traces, those from the ledger too, as far as servers counted."""
    completion_tokens: int
    possibly_billed_twice: int
    """Tries sent while the fate of an earlier one was unknown (timeout, reset, kill)."""


@dataclasses.dataclass(frozen=True)
class _Outcome:
    trace: Trace
    sent: bool
    doubtful: int


@dataclasses.dataclass
class _Line:
    """An open line to an endpoint: its session, and what was heard on it so far."""

    endpoint: Endpoint
    session: aiohttp.ClientSession
    ledger: Ledger
    sampling: Sampling
    secret: str | None
    rng: random.Random
    heard: float = float("-inf")
    """When the server last said anything at all (`time.monotonic`)."""
    answers: int = 0
    failures: int = 0
    broken: TeacherError | None = None
    """Why nothing more is sent."""
    ended: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    """Set with `broken`: wakes who waits for the next try."""


def request_seed(seed: int, problem_id: str, sample: int) -> int:
    """Return the sampling seed of a request, in [0, 2^31), whatever the order of asking."""
    return int(content_hash(seed, problem_id, sample), 16) % 2**31


def api_key(endpoint: Endpoint) -> str | None:
    """Return the endpoint's API key from the environment; None where it needs none.

    Raises RecipeError naming the variable where it is not set.
    """
    if endpoint.key_env is None:
        return None
    key = os.environ.get(endpoint.key_env, "").strip()
    if not key:
        raise RecipeError(
            f"{endpoint.name}: the environment variable {endpoint.key_env} (key_env) is not set; "
            f"export {endpoint.key_env}=... and run again"
        )
    return key


def ask(
    endpoint: Endpoint,
    requests: Sequence[Request],
    *,
    sampling: Sampling,
    ledger: Ledger,
    label: str,
) -> tuple[list[Trace], Usage]:
    """Return one trace a request, in their order, and what it took.

    Synchronous; not to be called from within a running event loop. When it raises, or is
    interrupted, the answers that came are in the ledger. Raises RecipeError (key not set),
    TeacherError (unreachable, key or model refused, the first requests all failed), and
    DataError or OSError of the ledger.
    """
    secret = api_key(endpoint)
    with bar(label, total=len(requests), unit="answers") as tick:
        outcomes = asyncio.run(
            _ask_all(endpoint, requests, sampling=sampling, ledger=ledger, secret=secret, tick=tick)
        )
    return [outcome.trace for outcome in outcomes], _usage(outcomes)


async def _ask_all(
    endpoint: Endpoint,
    requests: Sequence[Request],
    *,
    sampling: Sampling,
    ledger: Ledger,
    secret: str | None,
    tick: Tick,
) -> list[_Outcome]:
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    local = urlsplit(endpoint.url).hostname in ("127.0.0.1", "localhost", "::1")
    connector = aiohttp.TCPConnector(limit=endpoint.concurrency, keepalive_timeout=30)
    # A proxy of the environment is for the world outside, not for engines on this machine.
    async with aiohttp.ClientSession(
        connector=connector, headers=headers, trust_env=not local
    ) as session:
        rng = random.Random(content_hash(endpoint.name))
        line = _Line(endpoint, session, ledger, sampling, secret, rng)
        outcomes: dict[int, _Outcome] = {}
        waiting = enumerate(requests)
        workers = [
            asyncio.create_task(_work(line, waiting, outcomes, tick))
            for _ in range(min(endpoint.concurrency, len(requests)))
        ]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
    # Raised only now: what was in flight had its time to come in.
    if line.broken is not None:
        raise line.broken
    return [outcomes[index] for index in range(len(requests))]


async def _work(
    line: _Line,
    waiting: Iterator[tuple[int, Request]],
    outcomes: dict[int, _Outcome],
    tick: Tick,
) -> None:
    """Take requests from the common iterator until it is empty or the line is broken."""
    for index, request in waiting:
        if line.broken is not None:
            return
        outcomes[index] = await _answer(line, request)
        tick(1)


async def _answer(line: _Line, request: Request) -> _Outcome:
    content = _key_content(line, request)
    key = content_hash(content)
    if (stored := line.ledger.get(key)) is not None:
        line.answers += 1
        await asyncio.sleep(0)  # a long row of stored answers must not starve what is in flight
        return _Outcome(_stored_trace(line, request, key, stored), sent=False, doubtful=0)
    last, doubtful = await _send(line, content, key)
    if last.fate == "answered":
        line.answers += 1
        writing = line.ledger.put(
            key,
            request=dumps(content),
            response=last.body,
            status=200,
            seconds=round(last.seconds, 4),
        )
        stored = await asyncio.wrap_future(writing)
        return _Outcome(_stored_trace(line, request, key, stored), sent=True, doubtful=doubtful)
    return _Outcome(_failed_trace(line, request, key, last), sent=True, doubtful=doubtful)


async def _send(line: _Line, content: dict[str, Any], key: str) -> tuple[Try, int]:
    """Try until answered, refused or out of tries; return the last try, and doubtful sendings."""
    endpoint = line.endpoint
    url = endpoint.url.rstrip("/") + "/chat/completions"
    body = {"model": endpoint.model, "messages": content["messages"], **content["sampling"]}
    body |= {"seed": content["seed"], "n": 1}
    begin, doubtful, reached = time.monotonic(), 0, False
    last = Try("unreachable", error="not sent")
    for tries in range(endpoint.retries + 1):
        if tries:
            wait = wait_before(tries, retry_after=last.retry_after, rng=line.rng)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(line.ended.wait(), wait)
        if line.broken is not None:
            break
        doubtful += await asyncio.wrap_future(line.ledger.mark_sent(key))
        last = await post(line.session, url, body, seconds=endpoint.timeout, secret=line.secret)
        if last.unbilled:
            await asyncio.wrap_future(line.ledger.unmark_sent(key))
        if last.fate != "unreachable":
            reached, line.heard = True, time.monotonic()
        if last.fate in ("answered", "refused"):
            break
    if last.fate != "answered":
        _note_failure(line, last, silent=not reached and line.heard < begin)
    return last, doubtful


def _note_failure(line: _Line, last: Try, *, silent: bool) -> None:
    """Count a failed request, and break the line where more requests would be in vain.

    `silent`: nothing was heard from the server while the request was being tried.
    """
    if line.broken is not None:
        return
    line.failures += 1
    endpoint, status = line.endpoint, last.status
    reason = None
    if silent:
        reason = f"cannot be reached ({last.error}); start it or correct `url`, then run again"
    elif status in HOPELESS or (status in HOPELESS_AT_FIRST and not line.answers):
        reason = f"{last.error}; {_advice(endpoint, status)}"
    elif not line.answers and line.failures >= PATIENCE:
        reason = f"the first {line.failures} requests all failed; the last one: {last.error}"
    if reason is not None:
        line.broken = TeacherError(f"{endpoint.name} at {endpoint.url}: {reason}")
        line.ended.set()


def _advice(endpoint: Endpoint, status: int | None) -> str:
    if status == 404:
        return f"check `url` (it ends in /v1 as a rule) and `model` ({endpoint.model!r})"
    if status == 402:
        return "top up the account and run again"
    if endpoint.key_env is None:
        return "it wants an API key: set `key_env` to the environment variable that holds one"
    return f"check the key in the environment variable {endpoint.key_env}"


def _key_content(line: _Line, request: Request) -> dict[str, Any]:
    """Return what the ledger's key is the hash of: all that decides the answer."""
    messages: list[Message] = [{"role": "user", "content": request.prompt}]
    if line.endpoint.system is not None:
        messages.insert(0, {"role": "system", "content": line.endpoint.system})
    sampling = line.sampling
    return {
        "identity": line.endpoint.identity,
        "messages": messages,
        "sampling": {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
        },
        "seed": request.seed,
        "sample": request.sample,
    }


def _stored_trace(line: _Line, request: Request, key: str, stored: Answer) -> Trace:
    try:
        reply = read_reply(stored.response)
    except UnreadableReplyError as error:
        raise DataError(f"{line.ledger.path}: answer {key} is damaged ({error})") from error
    return _trace(line.endpoint, request, key, reply, seconds=stored.seconds, error=None)


def _failed_trace(line: _Line, request: Request, key: str, last: Try) -> Trace:
    nothing = Reply("", "", "error", None, None, None)
    return _trace(line.endpoint, request, key, nothing, seconds=last.seconds, error=last.error)


def _trace(
    endpoint: Endpoint,
    request: Request,
    key: str,
    reply: Reply,
    *,
    seconds: float,
    error: str | None,
) -> Trace:
    return Trace(
        # Two teachers can be the same model, and two problems the same text: told apart here.
        id=content_hash(key, endpoint.name, request.problem_id),
        problem_id=request.problem_id,
        domain=request.domain,
        model=endpoint.name,
        sample=request.sample,
        reasoning=reply.reasoning,
        answer=reply.answer,
        finish_reason=reply.finish_reason,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        seconds=seconds,
        request=key,
        fingerprint=reply.fingerprint,
        error=error,
    )


def _usage(outcomes: Sequence[_Outcome]) -> Usage:
    traces = [outcome.trace for outcome in outcomes]
    return Usage(
        sent=sum(outcome.sent for outcome in outcomes),
        from_ledger=sum(not outcome.sent for outcome in outcomes),
        failed=sum(trace.finish_reason == "error" for trace in traces),
        truncated=sum(trace.finish_reason == "length" for trace in traces),
        prompt_tokens=sum(trace.prompt_tokens or 0 for trace in traces),
        completion_tokens=sum(trace.completion_tokens or 0 for trace in traces),
        possibly_billed_twice=sum(outcome.doubtful for outcome in outcomes),
    )
