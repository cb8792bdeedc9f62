"""The ledger: every answer that was ever received, kept by the hash of its request.

One SQLite file, shared by all runs of a machine and by several processes at once. `put`
stores an answer (request JSON, the response body as the server sent it, status, seconds);
`get` finds it again, so that nothing is bought twice. Before a request leaves, `mark_sent`
notes it; an answer removes the note. A note that is still there says: sent, and its fate is
unknown, so sending it again may be billed twice.

Writes go through one thread, which commits together whatever came in during the commit
before (a few milliseconds, SQLite `synchronous=FULL`): a future is done when its write is
on the disk. Not here: what a request or an answer means (`cuvee.teach.client`). Errors are
no answers and are never stored; neither are API keys.
"""

import contextlib
import dataclasses
import errno
import queue
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cuvee.errors import CuveeError, DataError

APPLICATION_ID = 0x63757665
"""Marks the file as ours (`cuve`), so that no other program's database is written to."""
SCHEMA_VERSION = 1
BUSY_SECONDS = 60.0
"""How long one write waits for other processes before it gives up."""
FULL_BYTES = 1 << 20
"""With less free space than this an I/O error of SQLite means a full disk."""
GROUP = 1000
"""Writes committed together at most."""

TABLES = """
CREATE TABLE answers (
  key TEXT PRIMARY KEY, request TEXT NOT NULL, response TEXT NOT NULL,
  status INTEGER NOT NULL, seconds REAL NOT NULL, created TEXT NOT NULL
) STRICT;
CREATE TABLE sent (key TEXT PRIMARY KEY, created TEXT NOT NULL) STRICT, WITHOUT ROWID;
"""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a server sent back to one request."""

    request: str
    """Canonical JSON of what the key is the hash of."""
    response: str
    """The body as it came, JSON."""
    status: int
    seconds: float
    """From sending to the last byte."""
    created: str
    """UTC, `2026-01-31T12:00:00Z`."""


Write = Callable[[sqlite3.Connection], Any]
Job = tuple[Write, Future[Any]]


class Ledger:
    """An open ledger. Use it in a `with`, or call `close`."""

    def __init__(self, path: Path, reader: sqlite3.Connection) -> None:
        self.path = path
        self._reader = reader
        self._closed = False
        self._writes: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=_write_loop, args=(path, self._writes), name="ledger", daemon=True
        )
        self._thread.start()

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open the ledger at a path (`~` is expanded), making file and folder if need be.

        Raises DataError where the file is no ledger of this version or is damaged, OSError
        where it cannot be opened or made.
        """
        place = Path(path).expanduser().absolute()
        place.parent.mkdir(parents=True, exist_ok=True)
        with _explained(place):
            return cls(place, _connect(place))

    def get(self, key: str) -> Answer | None:
        """Return the answer to a request, or None. Raises DataError, OSError as `open`."""
        columns = ", ".join(field.name for field in dataclasses.fields(Answer))
        with _explained(self.path):
            row = self._reader.execute(
                f"SELECT {columns} FROM answers WHERE key = ?", (key,)
            ).fetchone()
        return None if row is None else Answer(*row)

    def put(
        self, key: str, *, request: str, response: str, status: int, seconds: float
    ) -> Future[Answer]:
        """Store an answer; the future gives what stands in the ledger once it is synced.

        That is another process's answer where that one came first: both go on with the
        same. The future raises DataError, OSError (disk full) with the path.
        """
        answer = Answer(_utf8(request), _utf8(response), status, seconds, _now())

        def write(connection: sqlite3.Connection) -> Answer:
            connection.execute(
                "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (key, *dataclasses.astuple(answer)),
            )
            connection.execute("DELETE FROM sent WHERE key = ?", (key,))
            row = connection.execute(
                "SELECT request, response, status, seconds, created FROM answers WHERE key = ?",
                (key,),
            ).fetchone()
            return Answer(*row)

        return self._enqueue(write)

    def mark_sent(self, key: str) -> Future[bool]:
        """Note that a request is about to leave; await the future before it does.

        It gives True where an earlier sending has an unknown fate: this one may be billed
        a second time.
        """

        def write(connection: sqlite3.Connection) -> bool:
            added = connection.execute(
                "INSERT INTO sent VALUES (?, ?) ON CONFLICT DO NOTHING", (key, _now())
            ).rowcount
            return added == 0

        return self._enqueue(write)

    def unmark_sent(self, key: str) -> Future[None]:
        """Note that a request was not answered for sure: refused, or never delivered."""

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM sent WHERE key = ?", (key,))

        return self._enqueue(write)

    def count_answers(self) -> int:
        """Return how many answers it holds."""
        with _explained(self.path):
            return int(self._reader.execute("SELECT count(*) FROM answers").fetchone()[0])

    def count_in_doubt(self) -> int:
        """Return how many requests were sent and neither answered nor refused (so far)."""
        with _explained(self.path):
            return int(self._reader.execute("SELECT count(*) FROM sent").fetchone()[0])

    def close(self) -> None:
        """Write what is still waiting, then close. Calling it again does nothing."""
        if self._closed:
            return
        self._closed = True
        self._writes.put(None)
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

    def _enqueue(self, write: Write) -> Future[Any]:
        if self._closed:
            raise ValueError(f"{self.path}: the ledger is closed")
        future: Future[Any] = Future()
        self._writes.put((write, future))
        return future


def _write_loop(path: Path, writes: "queue.SimpleQueue[Job | None]") -> None:
    """Commit what the queue holds, group by group, until it yields None."""
    connection: sqlite3.Connection | None = None
    last = False
    while not last:
        group = _next_group(writes)
        last = group[-1] is None
        jobs = [job for job in group if job is not None]
        if not jobs:
            break
        # Whoever waited may have been cancelled (Ctrl-C); the write is done all the same.
        waiting = [future.set_running_or_notify_cancel() for _, future in jobs]
        try:
            with _explained(path):
                connection = connection or _connect(path)
                results = _commit(connection, [write for write, _ in jobs])
        except (CuveeError, OSError) as error:
            for (_, future), waits in zip(jobs, waiting, strict=True):
                if waits:
                    future.set_exception(error)
            continue
        for (_, future), waits, result in zip(jobs, waiting, results, strict=True):
            if waits:
                future.set_result(result)
    if connection is not None:
        connection.close()


def _next_group(
    writes: "queue.SimpleQueue[Job | None]",
) -> list[Job | None]:
    """Return everything that waits, at least one; None (the end) can only be the last."""
    group = [writes.get()]
    with contextlib.suppress(queue.Empty):
        while group[-1] is not None and len(group) < GROUP:
            group.append(writes.get_nowait())
    return group


def _commit(connection: sqlite3.Connection, writes: list[Write]) -> list[Any]:
    """Do all writes in one transaction, on disk when this returns, or none of them."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        results = [write(connection) for write in writes]
        connection.execute("COMMIT")
    except (sqlite3.Error, CuveeError):
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return results


def _connect(path: Path) -> sqlite3.Connection:
    # Read from the caller's thread(s), written from the ledger's: SQLite itself serialises.
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        _prepare(connection, path)
    except (sqlite3.Error, CuveeError):
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Check that the file is a ledger, or make it one where it is empty."""
    # Nothing is written before the file is known to be ours.
    if _pragma(connection, "application_id") != APPLICATION_ID:
        _commit(connection, [lambda within: _make_tables(within, path)])
    if (version := _pragma(connection, "user_version")) != SCHEMA_VERSION:
        raise DataError(
            f"{path}: a ledger of schema {version}, this version of cuvee reads "
            f"{SCHEMA_VERSION}; set `ledger:` in the recipe to another file"
        )
    if _set_wal(connection) != "wal":
        raise DataError(f"{path}: SQLite's WAL does not work here; put `ledger:` on a local disk")
    connection.execute("PRAGMA synchronous = FULL")


def _make_tables(connection: sqlite3.Connection, path: Path) -> None:
    # Asked again within the lock: another process may just have made them.
    if _pragma(connection, "application_id") == APPLICATION_ID:
        return
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise DataError(
            f"{path}: an SQLite file, but no ledger of cuvee; "
            "set `ledger:` in the recipe to another file"
        )
    for statement in TABLES.strip().split(";"):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _set_wal(connection: sqlite3.Connection) -> str:
    # The switch to WAL does not wait for other processes by itself (no busy handler).
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours: OSError for the disk, DataError for the file."""
    try:
        yield
    except sqlite3.Error as error:
        raise _explain(error, path) from error


def _explain(error: sqlite3.Error, path: Path) -> CuveeError | OSError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the primary code
    full = code == sqlite3.SQLITE_IOERR and shutil.disk_usage(path.parent).free < FULL_BYTES
    if code == sqlite3.SQLITE_FULL or full:  # the WAL's shared memory fails with IOERR alone
        return OSError(errno.ENOSPC, "no space left for the ledger", str(path))
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return OSError(errno.EACCES, f"cannot write the ledger: {error}", str(path))
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
        return OSError(errno.EIO, f"cannot read or write the ledger: {error}", str(path))
    if code == sqlite3.SQLITE_BUSY:
        return DataError(
            f"{path}: another process kept the ledger locked for {BUSY_SECONDS:.0f} s; "
            "end it, or set `ledger:` in the recipe to another file"
        )
    return DataError(
        f"{path}: not a readable ledger ({error}); move it away, or set `ledger:` in the recipe "
        "to another file"
    )


def _utf8(text: str) -> str:
    """Replace lone surrogates, which SQLite cannot hold; servers send none (`exchange.post`)."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
