"""The ledger's file: SQLite in WAL mode, its schema, and SQLite's errors in our words.

`connect` gives a connection to a ledger of today's schema: an empty or missing file becomes
one, a ledger of schema 1 is migrated in place, anything else is refused and left as it was.
Not here: what is read and written through the connection.
"""

import contextlib
import errno
import hashlib
import json
import shutil
import sqlite3
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from cuvee.errors import CuveeError, DataError

APPLICATION_ID = 0x63757665
"""Marks the file as ours (`cuve`), so that no other program's database is written to."""
SCHEMA_VERSION = 2
BUSY_SECONDS = 60.0
"""How long one write waits for other processes before it gives up."""
FULL_BYTES = 1 << 20
"""With less free space than this an I/O error of SQLite means a full disk."""

ANSWERS_1 = """
CREATE TABLE answers (
  key TEXT PRIMARY KEY, request TEXT NOT NULL, response TEXT NOT NULL,
  status INTEGER NOT NULL, seconds REAL NOT NULL, created TEXT NOT NULL
) STRICT
"""
"""The table as schema 1 has it; `ANSWERS_2` makes it today's, in a new file too."""
ANSWERS_2 = (
    "ALTER TABLE answers ADD COLUMN account TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE answers ADD COLUMN teacher TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE answers ADD COLUMN prompt_tokens INTEGER",
    "ALTER TABLE answers ADD COLUMN completion_tokens INTEGER",
    "ALTER TABLE answers ADD COLUMN nanodollars INTEGER",
    "ALTER TABLE answers ADD COLUMN identity TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE answers ADD COLUMN digest TEXT NOT NULL DEFAULT ''",
    # Holds all that is counted and filtered by, so that the long texts are not read for it.
    """CREATE INDEX held ON answers (
      identity, account, teacher, created, prompt_tokens, completion_tokens, nanodollars, key
    )""",
)
SENT_2 = (
    # One row a sending; it goes when the sending is known to be answered or not billed.
    """CREATE TABLE sent (
      id INTEGER PRIMARY KEY, key TEXT NOT NULL, created TEXT NOT NULL,
      account TEXT NOT NULL DEFAULT '', teacher TEXT NOT NULL DEFAULT '',
      prompt_tokens INTEGER NOT NULL DEFAULT 0, completion_tokens INTEGER NOT NULL DEFAULT 0,
      nanodollars INTEGER NOT NULL DEFAULT 0
    ) STRICT""",
    "CREATE INDEX sent_key ON sent (key)",
)
TOTALS_2 = """
CREATE TABLE totals (
  account TEXT NOT NULL, teacher TEXT NOT NULL,
  answers INTEGER NOT NULL DEFAULT 0,
  prompt_tokens INTEGER NOT NULL DEFAULT 0,
  completion_tokens INTEGER NOT NULL DEFAULT 0,
  nanodollars INTEGER NOT NULL DEFAULT 0,
  in_doubt INTEGER NOT NULL DEFAULT 0 CHECK (in_doubt >= 0),
  reserved_prompt_tokens INTEGER NOT NULL DEFAULT 0 CHECK (reserved_prompt_tokens >= 0),
  reserved_completion_tokens INTEGER NOT NULL DEFAULT 0 CHECK (reserved_completion_tokens >= 0),
  reserved_nanodollars INTEGER NOT NULL DEFAULT 0 CHECK (reserved_nanodollars >= 0),
  PRIMARY KEY (account, teacher)
) STRICT, WITHOUT ROWID
"""
"""What every payer has spent; `accounts` keeps it in step with the other two."""

T = TypeVar("T")


def identity_of(request: str) -> str:
    """Return what the column `identity` holds: the model, as a request names it, or nothing."""
    try:
        content = json.loads(request)
    except (ValueError, RecursionError):
        return ""
    identity = content.get("identity") if isinstance(content, dict) else None
    return identity if isinstance(identity, str) else ""


def digest_of(response: str) -> str:
    """Return what the column `digest` holds, so that a changed byte does not go unseen."""
    return hashlib.sha256(response.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def connect(path: Path) -> sqlite3.Connection:
    """Connect to the ledger at a path, making or migrating it if need be.

    Raises DataError where the file is no ledger of a version we know, and sqlite3.Error:
    see `explained`.
    """
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


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Connect to a ledger without ever changing it: it is neither made nor migrated.

    Raises DataError where there is none or of another schema, and sqlite3.Error.
    """
    check_exists(path)
    place = urllib.parse.quote(str(path.absolute()))
    connection = sqlite3.connect(
        f"file:{place}?mode=ro",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        _check_version(connection, path)
    except (sqlite3.Error, CuveeError):
        connection.close()
        raise
    return connection


def check_exists(path: Path) -> None:
    """Raise DataError where there is no such file."""
    if not path.exists():
        raise DataError(f"{path}: no such ledger")


def commit(connection: sqlite3.Connection, write: Callable[[sqlite3.Connection], T]) -> T:
    """Do a write in one transaction, on disk when this returns, or not at all."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = write(connection)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return result


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours: OSError for the disk, DataError for the file."""
    try:
        yield
    except sqlite3.Error as error:
        raise _explain(error, path) from error


def version_of(connection: sqlite3.Connection) -> int | None:
    """Return the schema's number; None where the file is no ledger."""
    if _pragma(connection, "application_id") != APPLICATION_ID:
        return None
    return _pragma(connection, "user_version")


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Check that the file is a ledger, make it one where it is empty, migrate it if it is old."""
    # Nothing is written before the file is known to be ours.
    version = version_of(connection)
    if version is None or version < SCHEMA_VERSION:
        commit(connection, lambda within: _bring_up(within, path))
    _check_version(connection, path)
    if _set_wal(connection) != "wal":
        raise DataError(f"{path}: SQLite's WAL does not work here; put `ledger:` on a local disk")
    connection.execute("PRAGMA synchronous = FULL")


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    version = version_of(connection)
    if version is None:
        raise DataError(f"{path}: no ledger of cuvee")
    if version < SCHEMA_VERSION:
        raise DataError(
            f"{path}: a ledger of schema {version}; the next run that opens it, or "
            "`cuvee ledger import`, brings it up to date"
        )
    if version > SCHEMA_VERSION:
        raise DataError(
            f"{path}: a ledger of schema {version}, this version of cuvee reads "
            f"{SCHEMA_VERSION}; set `ledger:` in the recipe to another file"
        )


def _bring_up(connection: sqlite3.Connection, path: Path) -> None:
    # Asked again within the lock: another process may just have done it.
    version = version_of(connection)
    if version is None and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise DataError(
            f"{path}: an SQLite file, but no ledger of cuvee; "
            "set `ledger:` in the recipe to another file"
        )
    if version is None:
        for statement in (ANSWERS_1, *ANSWERS_2, *SENT_2, TOTALS_2):
            connection.execute(statement)
    elif version == 1:
        _migrate(connection)
    else:
        return
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _migrate(connection: sqlite3.Connection) -> None:
    """Make a ledger of schema 1 one of schema 2; who paid, and what, stays unknown."""
    connection.create_function("digest_of", 1, digest_of, deterministic=True)
    connection.create_function("identity_of", 1, identity_of, deterministic=True)
    for statement in (
        *ANSWERS_2,
        "UPDATE answers SET identity = identity_of(request), digest = digest_of(response)",
        "ALTER TABLE sent RENAME TO sent_1",
        *SENT_2,
        "INSERT INTO sent (key, created) SELECT key, created FROM sent_1",
        "DROP TABLE sent_1",
        TOTALS_2,
        "INSERT INTO totals (account, teacher, answers, in_doubt) "
        "SELECT '', '', (SELECT count(*) FROM answers), (SELECT count(*) FROM sent)",
    ):
        connection.execute(statement)


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
