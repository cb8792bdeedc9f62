"""A real PostgreSQL server for tests: Debian's programs, its own folder, a socket, no port."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

from cuvee.recipe.address import Server

NUMBERS = count()


def programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, the newest; None where there are none."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if found:
        return max(found, key=lambda path: int(path.parent.name))
    elsewhere = shutil.which("initdb")
    return Path(elsewhere).resolve().parent if elsewhere else None


class Postgres:
    """A server that a test may stop, kill and start again."""

    def __init__(self, folder: Path, bin_: Path) -> None:
        self.folder, self.bin = folder, bin_

    def run(self, program: str, *arguments: str) -> str:
        """Run one of PostgreSQL's programs as a user that it accepts: it refuses root."""
        user: Sequence[str] = ()
        if os.getuid() == 0:
            user = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
        done = subprocess.run(
            [*user, str(self.bin / program), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=60,
            cwd="/",
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def start(self) -> None:
        options = f"-k {self.folder} -c listen_addresses='' -c max_connections=40"
        log = self.folder / "log"
        self.run(
            "pg_ctl", "-D", f"{self.folder}/data", "-o", options, "-l", str(log), "-w", "start"
        )

    def stop(self, how: str = "fast") -> None:
        self.run("pg_ctl", "-D", f"{self.folder}/data", "-m", how, "-w", "stop")

    def url(self, database: str) -> Server:
        return Server(f"postgresql://cuvee@/{database}?host={self.folder}")

    def database(self, *options: str) -> Server:
        """Make an empty database; return where it is."""
        name = f"d{os.getpid()}_{next(NUMBERS)}"
        self.sql(self.url("postgres"), f"CREATE DATABASE {name} {' '.join(options)}")
        return self.url(name)

    def sql(self, place: Server, query: str) -> list[tuple[Any, ...]]:
        """Run a query as another program would; return its rows."""
        with psycopg.connect(place.url, autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []


@contextmanager
def running() -> Iterator[Postgres]:
    """Make a server and run it while the block runs. Raises FileNotFoundError without programs."""
    found = programs()
    if found is None:
        raise FileNotFoundError("no PostgreSQL: apt-get install postgresql")
    # Sockets have short names, and a user that is not root must get at the folder.
    folder = Path(tempfile.mkdtemp(prefix="cuvee-pg-", dir="/tmp"))
    try:
        if os.getuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        server = Postgres(folder, found)
        flags = ("-U", "cuvee", "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync")
        server.run("initdb", "-D", f"{folder}/data", *flags)
        server.start()
        try:
            yield server
        finally:
            with suppress(AssertionError):  # a test has stopped it
                server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
