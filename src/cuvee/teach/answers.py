"""The answers to a list of requests, read back from the ledger as traces, in order.

In: requests of which the ledger holds the answers, and the failures of the rest. Out: one
`Trace` a request, one at a time, so memory stays flat however many there are; and what they
took (`Usage`). Not here: asking (`cuvee.teach.client`).
"""

import dataclasses
from collections.abc import Iterator

from cuvee.errors import DataError
from cuvee.recipe import Sampling
from cuvee.records import Trace, content_hash
from cuvee.teach.failures import Failure, Failures
from cuvee.teach.ledger import Ledger
from cuvee.teach.reply import Reply, UnreadableReplyError, read_reply
from cuvee.teach.request import Endpoint, Request, Requests, cost_of, request_key

NOTHING = Reply("", "", "error", None, None, None, None)
"""What a failed request has in place of a reply."""


@dataclasses.dataclass(frozen=True)
class Usage:
    """What answering a list of requests took."""

    sent: int
    """Requests that left, whatever came of them; tries are not counted."""
    from_ledger: int
    """Traces whose answer was there, or came for another request of the same content."""
    failed: int
    """Traces without an answer; they are asked again whenever they are asked for again."""
    refused: int
    """Of `failed`: those that the server will not answer, however often it is asked."""
    truncated: int
    """Answers cut at `max_tokens`."""
    prompt_tokens: int
    """Of all traces, those from the ledger too, as far as servers counted."""
    completion_tokens: int
    possibly_billed_twice: int
    """Tries sent while the fate of an earlier one was unknown (timeout, reset, kill)."""
    usd: float | None
    """Of all traces, by the teacher's prices; None without prices."""
    first_error: str | None
    """Of the first failed trace."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """What asking took; the rest of `Usage` shows when the answers are read."""

    sent: int = 0
    bought: int = 0
    doubtful: int = 0


@dataclasses.dataclass
class _Tally:
    """What was read so far."""

    traces: int = 0
    failed: int = 0
    refused: int = 0
    truncated: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float = 0.0
    first_error: str | None = None

    def add(self, trace: Trace) -> None:
        self.traces += 1
        self.failed += trace.error is not None
        self.truncated += trace.finish_reason == "length"
        self.prompt_tokens += trace.prompt_tokens or 0
        self.completion_tokens += trace.completion_tokens or 0
        self.usd += trace.usd or 0.0
        self.first_error = self.first_error or trace.error


class Answers:
    """The traces of all requests: one a request, in their order, read from the ledger.

    Iterate it as often as need be, while the ledger is open. `usage` is known after that.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        requests: Requests,
        *,
        sampling: Sampling,
        ledger: Ledger,
        failures: Failures,
        asked: Asked,
    ) -> None:
        self._endpoint = endpoint
        self._requests = requests
        self._sampling = sampling
        self._ledger = ledger
        self._failures = failures
        self._asked = asked
        self._tally: _Tally | None = None

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Trace]:
        """Yield the traces. Raises DataError, OSError of the ledger."""
        tally = _Tally()
        for request in self._requests:
            key = request_key(self._endpoint, request, self._sampling)
            failure = None
            if (stored := self._ledger.get(key)) is not None:
                reply, seconds = self._read(key, stored.response), stored.seconds
            else:
                failure = self._failure(key)
                reply, seconds = NOTHING, 0.0
                tally.refused += failure.refused
            trace = _trace(
                self._endpoint, request, key, reply=reply, seconds=seconds, failure=failure
            )
            tally.add(trace)
            yield trace
        self._tally = tally

    def usage(self) -> Usage:
        """Return what it took. Raises ValueError before the traces were read to the end."""
        tally, asked = self._tally, self._asked
        if tally is None:
            raise ValueError("the usage is known once the traces have been read")
        return Usage(
            sent=asked.sent,
            from_ledger=tally.traces - tally.failed - asked.bought,
            failed=tally.failed,
            refused=tally.refused,
            truncated=tally.truncated,
            prompt_tokens=tally.prompt_tokens,
            completion_tokens=tally.completion_tokens,
            possibly_billed_twice=asked.doubtful,
            usd=None if self._endpoint.prices is None else tally.usd,
            first_error=tally.first_error,
        )

    def _read(self, key: str, response: str) -> Reply:
        try:
            return read_reply(response)
        except UnreadableReplyError as error:
            raise DataError(f"{self._ledger.place}: answer {key} is damaged ({error})") from error

    def _failure(self, key: str) -> Failure:
        failure = self._failures.get(key)
        if failure is None:
            raise DataError(
                f"{self._ledger.place}: answer {key} is gone; was the ledger pruned meanwhile? "
                "Run again"
            )
        return failure


def _trace(
    endpoint: Endpoint,
    request: Request,
    key: str,
    *,
    reply: Reply,
    seconds: float,
    failure: Failure | None,
) -> Trace:
    usd = None
    counted = reply.prompt_tokens is not None and reply.completion_tokens is not None
    if endpoint.prices is not None and counted:
        usd = cost_of(
            endpoint.prices,
            prompt_tokens=reply.prompt_tokens or 0,
            completion_tokens=reply.completion_tokens or 0,
        ).usd
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
        error=None if failure is None else failure.error,
        usd=usd,
    )
