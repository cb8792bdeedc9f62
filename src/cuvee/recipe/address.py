"""Where a ledger is: a file on this machine, or a database on a PostgreSQL server.

`ledger:` of a recipe in, a `Path` or a `Server` out. A password has no place in it: recipes
are shared and written into run folders, so an address with one is refused. Not here: opening
a ledger (`cuvee.teach.ledger`).
"""

import dataclasses
import urllib.parse
from pathlib import Path

SCHEMES = ("postgresql://", "postgres://")
SECRETS = {"password", "sslpassword", "oauth_client_secret"}
"""Parameters of libpq that may not stand in an address."""
HIDDEN = "in the environment (PGPASSWORD, PGPASSFILE) or in ~/.pgpass"


@dataclasses.dataclass(frozen=True)
class Server:
    """A database that holds a ledger, as libpq writes it: `postgresql://user@host:5432/name`."""

    url: str

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """Return the database's name, for people; the server's default where there is none."""
        return urllib.parse.urlsplit(self.url).path.strip("/") or "the ledger"


Place = Path | Server


def place_of(ledger: str | Path | Server) -> Place:
    """Return where a ledger is; `~` is expanded, a path made absolute.

    Raises ValueError where the address has a password; its message does not repeat it.
    """
    if isinstance(ledger, Server) or not str(ledger).startswith(SCHEMES):
        return ledger if isinstance(ledger, Server) else Path(ledger).expanduser().absolute()
    url = str(ledger)
    if _has_secret(url):
        raise ValueError(
            f"the address of a ledger must not hold a password; take it out, and leave it {HIDDEN}"
        )
    return Server(url)


def _has_secret(url: str) -> bool:
    parts = urllib.parse.urlsplit(url)
    user = parts.netloc.rpartition("@")[0]
    given = {name.lower() for name, _ in urllib.parse.parse_qsl(parts.query, True)}  # noqa: FBT003
    return ":" in user or bool(given & SECRETS)
