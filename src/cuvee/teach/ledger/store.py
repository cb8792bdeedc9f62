"""An open ledger: `get` an answer, `mark_sent` before a request leaves, `put` what came back.

`put` stores an answer (request JSON, the response body as the server sent it, its cost), and
`get` finds it again, so that nothing is bought twice. Before a request leaves, `mark_sent`
checks that its cost fits the payer's budget and writes it down as sent; the answer removes
that note. A note that is still there says: sent, and its fate is unknown, so sending it again
may be billed twice. Writes are futures, done when they are on the disk (`writer`). Not here:
what a request or an answer means (`cuvee.teach.client`).
"""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from cuvee.errors import DataError
from cuvee.recipe.address import Place, Server
from cuvee.teach.ledger import accounts, writer
from cuvee.teach.ledger.accounts import Totals
from cuvee.teach.ledger.entries import NANO, Answer, Cost, Payer, Sent, Spent
from cuvee.teach.ledger.file import digest_of, identity_of
from cuvee.teach.ledger.stores import (
    Connection,
    as_stored,
    connect,
    connect_to_read,
    explained,
    located,
)

if TYPE_CHECKING:
    from cuvee.recipe import Budget

FIELDS = [field.name for field in dataclasses.fields(Answer) if field.name != "usd"]
COLUMNS = ", ".join([*FIELDS, "nanodollars"])
"""Of the table `answers`, in the order of the fields of `Answer`."""
MARKS = ", ".join(f"?{number}" for number in range(1, len(FIELDS) + 5))
INSERT = (
    f"INSERT INTO answers (key, {COLUMNS}, digest, identity) "
    f"VALUES ({MARKS}) ON CONFLICT DO NOTHING"
)
SEND = (
    "INSERT INTO sent (key, created, account, teacher, prompt_tokens, completion_tokens, "
    "nanodollars) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)"
)
TAKE_BACK = (
    "DELETE FROM sent WHERE id = "
    "(SELECT max(id) FROM sent WHERE key = ?1 AND account = ?2 AND teacher = ?3) "
    "RETURNING prompt_tokens, completion_tokens, nanodollars"
)
MOST_KEYS = 500
"""Looked for in one question."""


class Ledger:
    """An open ledger. Use it in a `with`, or call `close`."""

    def __init__(self, place: Place, reader: Connection, jobs: writer.Jobs | None) -> None:
        """Take a connection and, where it may be written to, the queue for that."""
        self.place = place
        self._reader = reader
        self._reading = threading.Lock()
        self._closed = False
        self._jobs = jobs
        self._thread = None if jobs is None else writer.start(place, jobs)

    @classmethod
    def open(cls, ledger: Path | str | Server) -> Self:
        """Open the ledger at a path (`~` is expanded) or address, making it if need be.

        A file of schema 1 is migrated in place. Raises RecipeError for an address with a
        password, DataError where it is no ledger of a version we know, is damaged, or its
        server is not to be reached, OSError where a file cannot be opened or made.
        """
        place = located(ledger)
        with explained(place):
            return cls(place, connect(place), writer.Jobs())

    @classmethod
    def open_to_read(cls, ledger: Path | str | Server) -> Self:
        """Open a ledger that is there, without ever changing it: neither made nor migrated.

        What writes raises ValueError. Raises DataError where there is none or it is of
        another schema, OSError as `open`.
        """
        place = located(ledger)
        with explained(place):
            return cls(place, connect_to_read(place), None)

    def get(self, key: str) -> Answer | None:
        """Return the answer to a request, or None.

        Raises DataError where its response is not what was stored, DataError and OSError as
        `open`.
        """
        with self._read() as reader:
            found = read(reader, key)
        if found is None:
            return None
        answer, digest = found
        if digest_of(answer.response) != digest:
            raise DataError(
                f"{self.place}: answer {key} is damaged: its response is not what was stored; "
                "take a backup; `cuvee ledger verify` names all that is wrong"
            )
        return answer

    def holds(self, key: str) -> bool:
        """Say whether it has the answer to a request, without reading that. Raises as `get`."""
        return bool(self.held([key]))

    def held(self, keys: Sequence[str]) -> set[str]:
        """Return which of some requests it has answers to. Raises as `get`."""
        found: set[str] = set()
        for first in range(0, len(keys), MOST_KEYS):
            some = keys[first : first + MOST_KEYS]
            marks = ", ".join(f"?{number}" for number in range(1, len(some) + 1))
            query = f"SELECT key FROM answers WHERE key IN ({marks})"
            with self._read() as reader:
                found.update(key for (key,) in reader.execute(query, some).fetchall())
        return found

    def mark_sent(
        self, key: str, *, payer: Payer, reserved: Cost, budget: "Budget | None"
    ) -> Future[Sent]:
        """Note that a request is about to leave; await the future before it does.

        `reserved` is what it costs at most. In one transaction it is checked against what
        the payer's account has spent, all its teachers and everything in doubt included,
        and written. `Sent` says whether the request may leave. Raises ValueError for a
        reservation beyond belief (`check_cost`).
        """
        accounts.check_cost(reserved)

        def write(connection: Connection, totals: Totals) -> Sent:
            ((again, answered),) = connection.execute(
                "SELECT EXISTS (SELECT 1 FROM sent WHERE key = ?1), "
                "EXISTS (SELECT 1 FROM answers WHERE key = ?1)",
                (key,),
            ).fetchall()
            if answered:
                return Sent(bool(again), None, find(connection, key))
            if over := accounts.limit_passed(totals, payer.account, reserved, budget):
                return Sent(bool(again), over)
            row = (key, now(), payer.account, payer.teacher, *accounts.columns(reserved))
            connection.execute(SEND, row)
            accounts.reserve(totals, payer, reserved)
            return Sent(bool(again), None)

        return self._enqueue(write)

    def put(  # noqa: PLR0913 - what an answer consists of
        self,
        key: str,
        *,
        request: str,
        response: str,
        status: int,
        seconds: float,
        payer: Payer,
        cost: Cost | None,
    ) -> Future[Answer]:
        """Store an answer; the future gives what stands in the ledger once it is synced.

        That is another process's answer where that one came first: both go on with the
        same, and both are counted as bought. Takes the place of the payer's newest sending
        of this key; `cost` None (the server did not count) counts as that sending's
        reservation. Raises ValueError for a cost beyond belief (`check_cost`); the future
        raises DataError, OSError (disk full) with the path.
        """
        text = as_stored(self.place, response)
        answer = Answer(
            *(as_stored(self.place, request), text, status, seconds, now()),
            *(payer.account, payer.teacher),
            *_counted(cost),
        )

        def write(connection: Connection, totals: Totals) -> Answer:
            reserved = take_back(connection, totals, key, payer)
            accounts.charge(totals, payer, cost or reserved)
            if insert(connection, key, answer):
                return answer
            # Another process's came first.
            return find(connection, key) or answer

        return self._enqueue(write)

    def unmark_sent(self, key: str, *, payer: Payer) -> Future[None]:
        """Note that the payer's newest sending of a key was surely not billed."""

        def write(connection: Connection, totals: Totals) -> None:
            take_back(connection, totals, key, payer)

        return self._enqueue(write)

    def spent(self, account: str) -> Spent:
        """Return what an account has spent so far; cheap, whatever the ledger holds."""
        with self._read() as reader:
            return accounts.as_spent(accounts.read_totals(reader, account))

    def count_answers(self) -> int:
        """Return how many answers it holds."""
        return self._count("SELECT count(*) FROM answers")

    def count_in_doubt(self) -> int:
        """Return how many sendings are neither answered nor known not to be billed."""
        return self._count("SELECT count(*) FROM sent")

    def close(self) -> None:
        """Write what is still waiting, then close. Calling it again does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._jobs is not None and self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _count(self, query: str) -> int:
        with self._read() as reader:
            ((count,),) = reader.execute(query).fetchall()
        return int(count)

    @contextlib.contextmanager
    def _read(self) -> Iterator[Connection]:
        # Several threads may read; one after the other on the one connection.
        with self._reading, explained(self.place):
            yield self._reader

    def _enqueue(self, write: writer.Write) -> Future[Any]:
        if self._closed:
            raise ValueError(f"{self.place}: the ledger is closed")
        if self._jobs is None:
            raise ValueError(f"{self.place}: the ledger was opened to be read")
        future: Future[Any] = Future()
        self._jobs.put((write, future))
        return future


def find(connection: Connection, key: str) -> Answer | None:
    """Return the answer of a key, or None. Raises the store's errors."""
    found = read(connection, key)
    return found and found[0]


def read(connection: Connection, key: str) -> tuple[Answer, str] | None:
    """Return the answer of a key and the digest it was stored with, or None."""
    query = f"SELECT {COLUMNS}, digest FROM answers WHERE key = ?1"
    row = connection.execute(query, (key,)).fetchone()
    if row is None:
        return None
    *most, nanodollars, digest = row
    values = (*most, None if nanodollars is None else nanodollars / NANO)
    return Answer(*values), digest


def insert(connection: Connection, key: str, answer: Answer) -> bool:
    """Store an answer unless the key has one; say whether it was stored."""
    nanodollars = None if answer.usd is None else round(answer.usd * NANO)
    row = [getattr(answer, name) for name in FIELDS]
    computed = (digest_of(answer.response), identity_of(answer.request))
    return connection.execute(INSERT, (key, *row, nanodollars, *computed)).rowcount == 1


def take_back(connection: Connection, totals: Totals, key: str, payer: Payer) -> Cost | None:
    """Remove the payer's newest sending of a key; return its reservation, None without one."""
    row = connection.execute(TAKE_BACK, (key, payer.account, payer.teacher)).fetchone()
    if row is None:
        return None
    reserved = accounts.as_cost(*row)
    accounts.release(totals, payer, reserved)
    return reserved


def _counted(cost: Cost | None) -> tuple[int, int, float] | tuple[()]:
    """Return the last fields of an answer, with the money as it will be read again."""
    if cost is None:
        return ()
    accounts.check_cost(cost)
    return cost.prompt_tokens, cost.completion_tokens, cost.nanodollars / NANO


def now() -> str:
    """Return the time as the ledger writes it: UTC, whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
