"""Why requests failed, by key, between asking and reading back; on disk, so memory stays flat.

Errors never enter the ledger: a failed request is asked again next time. Not here: what
fails for good (`cuvee.teach.line`).
"""

import dataclasses
import sqlite3
import weakref


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why there is no answer."""

    error: str
    refused: bool
    """The server will not answer this request, however often it is asked."""


class Failures:
    """The failures of one call of `ask`; they go when it goes."""

    def __init__(self) -> None:
        # The empty name is a database of this connection alone: in memory while it is small,
        # then in a temporary file. Read by whoever reads the answers, one thread at a time.
        self._rows = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._rows.execute("CREATE TABLE failed (key TEXT PRIMARY KEY, error TEXT, refused INT)")
        weakref.finalize(self, self._rows.close)

    def add(self, key: str, failure: Failure) -> None:
        """Note a failure; a later one of the same request takes its place."""
        error = failure.error.encode("utf-8", "replace").decode("utf-8")
        row = (key, error, int(failure.refused))
        self._rows.execute("INSERT OR REPLACE INTO failed VALUES (?, ?, ?)", row)

    def get(self, key: str) -> Failure | None:
        """Return why a request failed; None where it did not."""
        query = "SELECT error, refused FROM failed WHERE key = ?"
        row = self._rows.execute(query, (key,)).fetchone()
        return None if row is None else Failure(row[0], bool(row[1]))
