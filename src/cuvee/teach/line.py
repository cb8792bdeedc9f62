"""A line to one model: each question tried until answered, refused, or out of tries or time.

Before a question leaves it is booked in the ledger as sent, its cost reserved; its answer is
stored before it counts. What all questions share stands in `Line`: the pace, the API key,
what was heard so far, and why nothing more is sent (`broken`). Not here: which questions
there are, and traces (`cuvee.teach.client`); one try (`cuvee.teach.exchange`).
"""

import collections
import dataclasses
import math
import random
import time
from concurrent.futures import Future
from typing import Any

from cuvee.errors import BudgetError, CuveeError, TeacherError
from cuvee.progress import Meter
from cuvee.recipe import Budget
from cuvee.teach.exchange import NO_ROOM, Try, Wire, post, wait_before
from cuvee.teach.failures import Failure, Failures
from cuvee.teach.landing import Landings
from cuvee.teach.ledger import Cost, Ledger, Payer, Sent
from cuvee.teach.pace import Pace
from cuvee.teach.reply import Reply
from cuvee.teach.request import Endpoint, Question, cost_of

PATIENCE = 20
"""Requests that may fail before the first answer, or in a row (if no more are in flight);
then the teacher as a whole has failed."""
PATIENCE_SECONDS = 300.0
"""A refusal for lack of room uses up no try so long after the line's last answer."""
HOPELESS = {401, 402}
"""Key refused, account empty: no request will be answered any more."""
HOPELESS_AT_FIRST = {403, 404}
"""No access, no such model, wrong path; after a first answer they concern one request alone."""


@dataclasses.dataclass(frozen=True)
class Books:
    """Where requests and answers are written, who pays for them, and how much at most."""

    ledger: Ledger
    account: str = ""
    """The run that pays (`Run.account`)."""
    budget: Budget | None = None
    """Of the account, all its teachers together; None is no limit."""


@dataclasses.dataclass
class Line:
    """An open line to an endpoint, and what was heard on it so far."""

    endpoint: Endpoint
    wire: Wire
    books: Books
    pace: Pace
    meter: Meter
    failures: Failures
    rng: random.Random
    begun: float = dataclasses.field(default_factory=time.monotonic)
    heard: float = -math.inf
    """When the server last said anything at all (`time.monotonic`)."""
    answered: float = -math.inf
    """When the last answer came."""
    answers: int = 0
    """Of this line, now: they show that the model answers."""
    sent: int = 0
    """Questions that left."""
    doubtful: int = 0
    """Sendings while the fate of an earlier one of the same question was unknown."""
    failed: int = 0
    """Questions without an answer."""
    in_a_row: int = 0
    """Of these, since the last answer: those that were not refused."""
    broken: CuveeError | None = None
    """Why nothing more is sent."""
    asking: set[str] = dataclasses.field(default_factory=set)
    """Keys of the questions that are being asked."""
    writing: collections.deque[Future[Any]] = dataclasses.field(default_factory=collections.deque)
    """What is on its way to the disk, in order."""
    landings: Landings = dataclasses.field(default_factory=Landings)

    @property
    def payer(self) -> Payer:
        """Return under whose name the ledger books."""
        return Payer(self.books.account, self.endpoint.name)

    def end(self, error: CuveeError) -> None:
        """Send nothing more; what is in flight may come in. The first error stands."""
        self.broken = self.broken or error
        self.pace.end()


async def answer(line: Line, question: Question) -> None:
    """Ask a question; in the end its answer is in the ledger, or its failure is noted.

    Or neither, where the line ends before. Raises what the ledger raises.
    """
    if question.key in line.asking:  # another request of the same content is on its way
        _note_stored(line)
        return
    line.asking.add(question.key)
    begin = time.monotonic()
    last = await _send(line, question)
    line.asking.discard(question.key)
    if last is not None and last.fate != "answered":
        _note_failure(line, question, last, silent=line.heard < begin)


async def settle(line: Line) -> None:
    """Wait until all that came is on the disk. Raises what the ledger raises."""
    while line.writing:
        await line.landings.wait(line.writing.popleft())


async def _send(line: Line, question: Question) -> Try | None:
    """Try until answered, refused, or out of tries or time; None where the line ended."""
    retries, deadline = line.endpoint.retries, line.endpoint.deadline or math.inf
    last: Try | None = None
    used, end = 0, math.inf
    while True:
        sent = await _booked(line, question, end=end)
        if sent is None:
            return None if line.pace.ended.is_set() else _too_late(last, deadline)
        if sent.answer is not None:
            _note_stored(line)
            line.pace.leave()
            return Try("answered")
        if last is None:
            line.sent += 1
            end = time.monotonic() + deadline
        line.doubtful += sent.again
        last = await _exchange(line, question, left=end - time.monotonic())
        if last.fate in ("answered", "refused"):
            return last
        used += not _is_free(line, last)
        if used > retries:
            return last
        wait = wait_before(max(used, 1), retry_after=last.retry_after, rng=line.rng)
        if time.monotonic() + wait >= end:
            return _too_late(last, deadline)
        await line.pace.pause(wait)


async def _booked(line: Line, question: Question, *, end: float) -> Sent | None:
    """Wait for a turn and book the sending; None, without a turn, where the line or time ends.

    Where the budget lacks room while others are in flight, their true cost may make some.
    """
    books = line.books
    while await line.pace.turn():
        if time.monotonic() >= end:
            line.pace.leave()
            return None
        booking = books.ledger.mark_sent(
            question.key, payer=line.payer, reserved=question.reserved, budget=books.budget
        )
        sent = await line.landings.wait(booking)
        # The ledger writes in order: what was put before this was booked is on the disk.
        while line.writing and line.writing[0].done():
            line.writing.popleft().result()
        if sent.over is None:
            return sent
        if line.pace.in_flight == 1:
            line.end(_over_budget(line, question.reserved, sent.over))
        line.pace.narrow()
        line.pace.leave()
    return None


async def _exchange(line: Line, question: Question, *, left: float) -> Try:
    """Send a booked question once, book what came of it, and give the turn back."""
    pace, ledger = line.pace, line.books.ledger
    since = time.monotonic()
    line.meter.in_flight += 1
    last = await post(line.wire, question.body, timeout=line.endpoint.timeout, left=left)
    line.meter.in_flight -= 1
    if last.reply is not None:
        _store(line, question, last, last.reply)
    elif last.unbilled:
        line.writing.append(ledger.unmark_sent(question.key, payer=line.payer))
    if last.fate != "unreachable":
        line.heard = time.monotonic()
    if last.fate in ("answered", "refused"):
        pace.had_room()
    elif last.status in NO_ROOM:
        wait = wait_before(max(pace.cuts, 1), retry_after=last.retry_after, rng=line.rng)
        pace.refused(since=since, wait=wait)
    if last.retry_after:
        pace.close_for(last.retry_after)
    pace.leave()
    return last


def _store(line: Line, question: Question, last: Try, reply: Reply) -> None:
    """Hand an answer to the ledger, with what it cost."""
    cost: Cost | None = None
    if reply.prompt_tokens is not None and reply.completion_tokens is not None:
        cost = cost_of(
            line.endpoint.prices,
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
        )
    line.writing.append(
        line.books.ledger.put(
            question.key,
            request=question.content,
            response=last.body,
            status=200,
            seconds=round(last.seconds, 4),
            payer=line.payer,
            cost=cost,
        )
    )
    line.answers += 1
    line.in_a_row = 0
    line.answered = time.monotonic()
    line.meter.answers += 1


def _note_stored(line: Line) -> None:
    line.meter.answers += 1
    line.meter.from_ledger += 1


def _is_free(line: Line, last: Try) -> bool:
    """Return whether a try does not count: the server said `wait`, and others are answered."""
    answered = max(line.answered, line.begun)
    return last.status == 429 and time.monotonic() - answered < PATIENCE_SECONDS


def _too_late(last: Try | None, deadline: float) -> Try:
    last = last or Try("busy", error="it was never sent")
    return dataclasses.replace(
        last, error=f"given up after {deadline:g} s (deadline); {last.error}"
    )


def _over_budget(line: Line, needed: Cost, limit: str) -> BudgetError:
    """Return the error that says which limit, what is spent and what to do."""
    total = line.books.ledger.spent(line.books.account).total
    amounts = {
        "usd": (total.usd, total.reserved.usd, needed.usd),
        "tokens": (total.tokens, total.reserved.tokens, needed.tokens),
        "requests": (total.requests, total.in_doubt, 1),
    }
    spent, doubtful, more = amounts[limit]
    return BudgetError(
        f"{line.endpoint.name}: the budget covers no further request: budget.{limit} is "
        f"{getattr(line.books.budget, limit):g}, {spent:.10g} of it is used ({doubtful:.10g} by "
        f"{total.in_doubt} requests in flight or in doubt), and the next request may take "
        f"{more:.10g} (at `max_tokens`); raise budget.{limit} and run again: it goes on from here"
    )


def _note_failure(line: Line, question: Question, last: Try, *, silent: bool) -> None:
    """Note a failed question, and end the line where more questions would be in vain.

    `silent`: nothing was heard from the server while the question was being tried.
    """
    refused = last.fate == "refused"
    line.failures.add(question.key, Failure(last.error or last.fate, refused=refused))
    line.meter.failed += 1
    line.failed += 1
    endpoint, status = line.endpoint, last.status
    line.in_a_row += not refused or status in HOPELESS_AT_FIRST
    reason = None
    if silent:
        reason = f"cannot be reached ({last.error}); start it or correct `url`, then run again"
    elif _is_hopeless(line, last):
        reason = f"{last.error}; {_advice(endpoint, last)}"
    elif not line.answers and line.failed >= PATIENCE:
        reason = f"the first {line.failed} requests all failed; the last one: {last.error}"
    elif line.in_a_row >= max(PATIENCE, endpoint.concurrency):
        reason = (
            f"the last {line.in_a_row} requests all failed; the last one: {last.error}; what was "
            "answered is kept: run again"
        )
    if reason is not None:
        line.end(TeacherError(f"{endpoint.name} at {endpoint.url}: {reason}"))


def _is_hopeless(line: Line, last: Try) -> bool:
    hopeless = HOPELESS if line.answers else HOPELESS | HOPELESS_AT_FIRST
    return last.out_of_money or last.status in hopeless


def _advice(endpoint: Endpoint, last: Try) -> str:
    if last.status == 404:
        return f"check `url` (it ends in /v1 as a rule) and `model` ({endpoint.model!r})"
    if last.status == 402 or last.out_of_money:
        return "top up the account and run again"
    if endpoint.key_env is None:
        return "it wants an API key: set `key_env` to the environment variable that holds one"
    return f"check the key in the environment variable {endpoint.key_env}"
