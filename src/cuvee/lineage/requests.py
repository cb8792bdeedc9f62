"""The request behind a trace, as the ledger keeps it: who asked what, how, when, for how much.

Keys of requests in, what the ledger says of them out. The ledger is opened only if there is
one: explaining a run makes no file. Not here: what the answer was (that is the trace).
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cuvee.errors import DataError
from cuvee.recipe.address import Place
from cuvee.records import Message, Trace
from cuvee.runfolder import Run
from cuvee.teach.ledger import Answer, Ledger, located


@dataclasses.dataclass(frozen=True)
class Request:
    """A request of the ledger and who paid for its answer."""

    key: str
    identity: str
    """Of the model: a hash of its weights or of its address and name."""
    messages: tuple[Message, ...]
    sampling: Mapping[str, Any]
    seed: int
    sample: int
    created: str
    """When the answer was received, UTC."""
    account: str
    """The run that bought it; empty where an old ledger does not say."""
    own: bool
    """Whether that is this run; otherwise the answer cost this run nothing."""
    prompt_tokens: int | None
    completion_tokens: int | None
    usd: float | None
    """What it cost when it was bought; None where nobody counted."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """A trace with the request it answers."""

    trace: Trace
    request: Request | None
    no_request: str | None
    """Why there is no request to show."""


@dataclasses.dataclass(frozen=True)
class Books:
    """A run's ledger, open for looking up requests."""

    path: Place
    ledger: Ledger | None
    """None where there is no such file, or it cannot be read."""
    closed: str
    """Why there is no ledger."""
    account: str | None
    """The run's; None where the run has bought nothing yet."""

    def asked(self, trace: Trace) -> Asked:
        """Return a trace with its request. Raises DataError where the entry is damaged."""
        return Asked(trace, *self.request(trace))

    def request(self, trace: Trace) -> tuple[Request | None, str | None]:
        """Return the request of a trace, or None and why there is none to show.

        Raises DataError where the ledger's entry is damaged.
        """
        if not trace.request:
            return None, "published: nothing was asked"
        if self.ledger is None:
            return None, f"not looked up: {self.closed}"
        answer = self.ledger.get(trace.request)
        if answer is None:
            why = "the request failed" if trace.error is not None else "pruned, or another ledger"
            return None, f"not in the ledger {self.path} ({why})"
        return _read(trace.request, answer, books=self), None


@contextmanager
def open_books(run: Run) -> Iterator[Books]:
    """Open the ledger of a run's recipe, where there is one that can be read."""
    path = located(run.recipe.ledger)
    account = run.account() if (run.path / "account.txt").exists() else None
    if isinstance(path, Path) and not path.is_file():
        yield Books(path, None, f"no ledger at {path}", account)
        return
    try:
        # A file may be one of schema 1; a ledger on a server would be made by opening it.
        ledger = Ledger.open(path) if isinstance(path, Path) else Ledger.open_to_read(path)
    except (DataError, OSError) as error:
        yield Books(path, None, str(error), account)
        return
    with ledger:
        yield Books(path, ledger, "", account)


def _read(key: str, answer: Answer, *, books: Books) -> Request:
    try:
        content = json.loads(answer.request)
        return Request(
            key=key,
            identity=content["identity"],
            messages=tuple(content["messages"]),
            sampling=content["sampling"],
            seed=content["seed"],
            sample=content["sample"],
            created=answer.created,
            account=answer.account,
            own=bool(answer.account) and answer.account == books.account,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            usd=answer.usd,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{books.path}: the request {key} is damaged ({error!r})") from error
