"""The two stores of a ledger, behind the same few functions: an SQLite file, a PostgreSQL server.

A place in, a connection out. Both take the same SQL: what differs between them stands in
`file` and `postgres`, and here is only which of the two is meant. Queries are written with
numbered marks (`?1`), which the session with a server rewrites as its own (`$1`). The server's
library is loaded when a server is named. Not here: what is read and written.
"""

import contextlib
import importlib.util
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar, Union

from cuvee.errors import RecipeError
from cuvee.recipe.address import Place, Server, place_of
from cuvee.teach.ledger import file

if TYPE_CHECKING:
    from cuvee.teach.ledger.postgres import Session

Connection: TypeAlias = Union[sqlite3.Connection, "Session"]
"""Has `execute(query, values)`, `executemany(query, rows)` and `close()`, whichever it is."""
T = TypeVar("T")


def located(ledger: str | Path | Server) -> Place:
    """Return where a ledger is, from what a recipe or a user says.

    Raises RecipeError for an address with a password, or where the server's library is missing.
    """
    try:
        place = place_of(ledger)
    except ValueError as error:
        raise RecipeError(str(error)) from error
    if isinstance(place, Server) and importlib.util.find_spec("psycopg") is None:
        raise RecipeError(
            f"{place}: a ledger on a server needs psycopg: pip install 'cuvee[postgres]'"
        )
    return place


def connect(place: Place) -> Connection:
    """Connect to the ledger at a place, making or migrating it if need be.

    Raises DataError where there is no ledger of a version we know, and the store's own
    errors: see `explained`.
    """
    if isinstance(place, Path):
        place.parent.mkdir(parents=True, exist_ok=True)
        return file.connect(place)
    from cuvee.teach.ledger import postgres

    return postgres.connect(place)


def connect_to_read(place: Place) -> Connection:
    """Connect to a ledger without ever changing it: it is neither made nor migrated.

    Raises DataError where there is no ledger of today's schema, and the store's own errors.
    """
    if isinstance(place, Path):
        return file.connect_to_read(place)
    from cuvee.teach.ledger import postgres

    return postgres.connect_to_read(place)


@contextlib.contextmanager
def explained(place: Place) -> Iterator[None]:
    """Turn the store's errors into ours: OSError for a disk, DataError for all else."""
    if isinstance(place, Path):
        with file.explained(place):
            yield
        return
    from cuvee.teach.ledger import postgres

    with postgres.explained(place):
        yield


@contextlib.contextmanager
def opened(place: Place, *, writing: bool) -> Iterator[Connection]:
    """Connect to a ledger that is there already, while the block runs.

    Raises as `connect` and `connect_to_read`; the store's errors within the block are explained.
    """
    with explained(place):
        # On a server a session that reads says whether there is a ledger: writing would make it.
        if writing and isinstance(place, Server):
            connect_to_read(place).close()
        with contextlib.closing(_opened(place, writing=writing)) as connection:
            yield connection


def _opened(place: Place, *, writing: bool) -> Connection:
    if isinstance(place, Path):
        file.check_exists(place)
    return connect(place) if writing else connect_to_read(place)


def commit(connection: Connection, write: Callable[[Connection], T]) -> T:
    """Do a write in one transaction, on disk when this returns, or not at all.

    No other writer of the ledger is within such a transaction meanwhile, on any machine.
    `write` may be called a second time where the session with a server was lost.
    """
    if isinstance(connection, sqlite3.Connection):
        return file.commit(connection, write)
    return connection.commit(write)


@contextlib.contextmanager
def one_state(connection: Connection) -> Iterator[None]:
    """Read the ledger as it stands at one moment, while the block runs."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("BEGIN")
        try:
            yield
        finally:
            connection.execute("ROLLBACK")
        return
    with connection.one_state():
        yield


def by_held(connection: Connection) -> str:
    """Return the words that make SQLite use the index `held`; PostgreSQL chooses by itself."""
    return "INDEXED BY held" if isinstance(connection, sqlite3.Connection) else ""


def page_order(connection: Connection) -> tuple[str, int | str]:
    """Return the column by which all answers are read in pages, and what is before the first.

    SQLite's is the order of its file, which also reads where an index is damaged.
    """
    return ("rowid", 0) if isinstance(connection, sqlite3.Connection) else ("key", "")


def as_stored(place: Place, text: str) -> str:
    r"""Return a text as the store can hold it: what it cannot is written as JSON does (`\ud800`).

    Lone surrogates in both; on a server the character NUL too, which no JSON has as it is.
    """
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if isinstance(place, Path) else text.replace("\0", "\\u0000")
