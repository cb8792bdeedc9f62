"""A ledger on a server: what a file cannot meet (restarts, lost connections), and its refusals."""

import functools
import select
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cuvee.cli import app
from cuvee.errors import DataError, RecipeError
from cuvee.progress import Tick
from cuvee.recipe import Budget, parse_recipe
from cuvee.recipe.address import Server, place_of
from cuvee.records import content_hash, dumps
from cuvee.teach.ledger import Answer, Cost, Ledger, Payer
from cuvee.teach.ledger.check import verify
from cuvee.teach.ledger.stores import connect

from .servers import Postgres

PAYER = Payer("run", "alice")
COST = Cost(10, 1000, 0.25)
SILENT: Tick = lambda n: None  # noqa: E731


def key(number: int) -> str:
    return content_hash({"identity": "m", "number": number})


def put(ledger: Ledger, number: int, *, payer: Payer = PAYER) -> "Future[Answer]":
    return ledger.put(
        key(number),
        request=dumps({"identity": "m", "number": number}),
        response=dumps({"choices": [{"message": {"content": "x" * 300}}]}),
        status=200,
        seconds=1.5,
        payer=payer,
        cost=COST,
    )


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_a_server_that_restarts_in_the_middle_loses_nothing_and_doubles_nothing(
    postgres: Postgres, how: str
) -> None:
    """`immediate` is what a crash is: the server recovers from its log."""
    place = postgres.database()
    with Ledger.open(place) as ledger:
        done = threading.Event()
        numbers: list[int] = []

        def write() -> None:
            while not done.is_set():
                number = len(numbers)
                most = Cost(20, 2000, 0.5)
                ledger.mark_sent(key(number), payer=PAYER, reserved=most, budget=None).result()
                put(ledger, number).result()
                numbers.append(number)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            for _ in range(2):
                postgres.stop(how)
                postgres.start()
                assert ledger.count_answers() >= len(numbers) - 1, "reading goes on too"
        finally:
            done.set()
            thread.join()
        spent = ledger.spent("run").total
        assert (spent.answers, spent.in_doubt, spent.bought.nanodollars) == (
            len(numbers),
            0,
            len(numbers) * COST.nanodollars,
        )
        assert ledger.held([key(number) for number in numbers]) == {key(n) for n in numbers}
    found = verify(place, tick=SILENT)
    assert (found.answers, found.details) == (len(numbers), [])


Cut = Callable[[socket.socket, bytes], None]
"""What happens to a COMMIT on its way to the server, before its connection is cut."""


def relay(client: socket.socket, server: socket.socket, *, cuts: list[Cut]) -> None:
    """Carry bytes both ways; cut the connection at the first COMMIT while `cuts` has one."""
    with client, server, suppress(OSError):
        while True:
            for end in select.select([client, server], [], [], 60)[0]:
                data = end.recv(65536)
                if not data:
                    return
                if end is server:
                    client.sendall(data)
                elif b"COMMIT" in data and cuts:
                    cuts.pop()(server, data)
                    return
                else:
                    server.sendall(data)


@contextmanager
def between(postgres: Postgres, folder: Path) -> Iterator[tuple[Server, list[Cut]]]:
    """Stand between a new database and who connects; yields where to, and the cuts to come."""
    name = ".s.PGSQL.5432"
    cuts: list[Cut] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(postgres.folder / name))
                relaying = functools.partial(relay, client, server, cuts=cuts)
                threading.Thread(target=relaying, daemon=True).start()

    url = postgres.database().url.replace(str(postgres.folder), str(folder))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / name))
        listening.listen()
        threading.Thread(target=accept, daemon=True).start()
        yield Server(url), cuts
        listening.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Return a folder whose name is short enough for a socket in it."""
    with tempfile.TemporaryDirectory(prefix="cuvee-", dir="/tmp") as folder:
        yield Path(folder)


def lose_it(server: socket.socket, commit: bytes) -> None:
    """Keep a COMMIT from the server."""


def lose_its_reply(server: socket.socket, commit: bytes) -> None:
    """Have the server commit, and keep its reply."""
    server.sendall(commit)
    server.recv(65536)


@pytest.mark.parametrize("cut", [lose_it, lose_its_reply], ids=["COMMIT lost", "its reply lost"])
def test_a_connection_cut_around_a_commit_writes_once(
    postgres: Postgres, short_folder: Path, cut: Cut
) -> None:
    with between(postgres, short_folder) as (place, cuts), Ledger.open(place) as ledger:
        for number in range(5):
            cuts.append(cut)
            sent = ledger.mark_sent(key(number), payer=PAYER, reserved=COST, budget=None)
            assert not sent.result().again, "its own first try is no earlier sending"
            cuts.append(cut)
            put(ledger, number).result()
        assert cuts == []
        spent = ledger.spent("run").total
        assert (spent.answers, spent.in_doubt, spent.usd) == (5, 0, 5 * COST.usd)
        assert ledger.count_answers() == 5
        assert ledger.count_in_doubt() == 0


def test_a_write_undone_by_a_crash_is_not_mistaken_for_the_one_after_it(
    postgres: Postgres, short_folder: Path
) -> None:
    """The server gives the number of a transaction that a crash undid to the next one."""
    with between(postgres, short_folder) as (place, cuts), Ledger.open(place) as ledger:
        put(ledger, 1).result()

        def crash(server: socket.socket, commit: bytes) -> None:
            postgres.stop("immediate")
            postgres.start()
            direct = Server(place.url.replace(str(short_folder), str(postgres.folder)))
            with Ledger.open(direct) as other:
                put(other, 2).result()

        cuts.append(crash)
        put(ledger, 3).result()
        assert ledger.held([key(n) for n in (1, 2, 3)]) == {key(n) for n in (1, 2, 3)}
        assert ledger.spent("run").total.answers == 3


def test_many_accounts_in_one_commit_from_two_writers_do_not_wait_for_each_other(
    postgres: Postgres,
) -> None:
    """Locks of an account each, taken in two orders, would be a deadlock."""
    place = postgres.database()
    payers = [Payer(f"run {n}", "alice") for n in range(5)]
    with Ledger.open(place) as one, Ledger.open(place) as other:
        waiting = []
        for number in range(100):
            waiting.append(put(one, number, payer=payers[number % 5]))
            waiting.append(put(other, number, payer=payers[-number % 5]))
        for future in waiting:
            future.result(60)
        assert one.count_answers() == 100
        assert sum(one.spent(payer.account).total.answers for payer in payers) == 200


def test_it_waits_for_the_disk_where_the_database_does_not(postgres: Postgres) -> None:
    place = postgres.database()
    name = place.name
    postgres.sql(place, f"ALTER DATABASE {name} SET synchronous_commit = off")
    session = connect(place)
    assert session.execute("SHOW synchronous_commit").fetchall() == [("on",)]
    session.close()


def test_a_nul_which_the_server_cannot_hold_is_stored_as_json_writes_it(
    postgres: Postgres,
) -> None:
    with Ledger.open(postgres.database()) as ledger:
        stored = ledger.put(
            "k",
            request="{}",
            response='"a\0b\ud800"',
            status=200,
            seconds=1,
            payer=PAYER,
            cost=COST,
        ).result()
        assert stored.response == '"a\\u0000b\\ud800"'
        assert ledger.get("k") == stored


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("UPDATE answers SET response = replace(response, 'xxx', 'xyx')", "response"),
        ("UPDATE answers SET identity = 'other'", "identity"),
        ("UPDATE totals SET answers = 0", "accounts"),
    ],
)
def test_what_another_program_changed_is_found(postgres: Postgres, change: str, fault: str) -> None:
    place = postgres.database()
    with Ledger.open(place) as ledger:
        put(ledger, 1).result()
        assert verify(place, tick=SILENT).details == []
        postgres.sql(place, f"SET search_path = cuvee_ledger; {change}")
        assert list(verify(place, tick=SILENT).faults) == [fault]
        if fault == "response":
            with pytest.raises(DataError, match="is damaged"):
                ledger.get(key(1))


def test_what_is_not_there_is_not_made_by_reading(postgres: Postgres) -> None:
    place = postgres.database()
    with pytest.raises(DataError, match="no such ledger"):
        Ledger.open_to_read(place)
    names = "SELECT count(*) FROM pg_namespace WHERE nspname = 'cuvee_ledger'"
    assert postgres.sql(place, names) == [(0,)]
    Ledger.open(place).close()
    with Ledger.open_to_read(place) as ledger:
        assert ledger.count_answers() == 0
        with pytest.raises(ValueError, match="opened to be read"):
            put(ledger, 1)


def test_a_later_schema_is_refused_also_while_it_is_open(postgres: Postgres) -> None:
    place = postgres.database()
    with Ledger.open(place) as ledger:
        postgres.sql(place, "UPDATE cuvee_ledger.about SET schema = 99")
        with pytest.raises(DataError, match="schema 99"):
            put(ledger, 1).result()
    for open_ in (Ledger.open, Ledger.open_to_read):
        with pytest.raises(DataError, match=r"schema 99.*another database"):
            open_(place)


def test_what_cannot_be_reached_or_used_says_why_and_what_to_do(
    postgres: Postgres, tmp_path: Path
) -> None:
    latin = postgres.database("ENCODING 'LATIN1' TEMPLATE template0")
    postgres.sql(latin, "CREATE ROLE guest LOGIN")
    guest = Server(postgres.database().url.replace("cuvee@", "guest@"))
    cases = {
        f"postgresql://cuvee@/x?host={tmp_path}": "does the server run",
        "postgresql://cuvee@127.0.0.1:1/x": "does the server run",
        postgres.url("nowhere").url: "createdb",
        latin.url: "encoding is LATIN1, a ledger needs UTF8",
        guest.url: "needs CREATE on the database",
    }
    for url, message in cases.items():
        with pytest.raises(DataError, match=message):
            Ledger.open(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cret@host/db",
        "postgres://:s3cret@host/db",
        "postgresql://me@host/db?password=s3cret",
        "postgresql://host/db?PassWord=s3cret&sslmode=require",
        "postgresql://me@h1:1,h2:2/db?sslpassword=s3cret",
    ],
)
def test_a_password_in_an_address_is_refused_and_never_repeated(url: str) -> None:
    recipe = {
        "name": "r",
        "base": "random:two-layer",
        "ledger": url,
        "domains": {"math": {"problems": [{"source": "a.jsonl"}], "verifier": "math"}},
        "teachers": [{"name": "t", "url": "http://127.0.0.1:1/v1", "model": "m"}],
    }
    with pytest.raises(RecipeError, match="PGPASSWORD") as in_recipe:
        parse_recipe(recipe, where="r.yaml")
    with pytest.raises(RecipeError, match="PGPASSWORD") as opening:
        Ledger.open(url)
    assert "s3cret" not in str(in_recipe.value) + str(opening.value)
    result = cuvee("stats", url)
    assert result.exit_code == 2
    assert "s3cret" not in result.output


def test_an_address_without_one_is_kept_as_it_is() -> None:
    for url in ("postgresql://h1:1,h2:2/db?target_session_attrs=primary", "postgres:///db"):
        assert place_of(url) == Server(url)
    assert place_of("postgres.sqlite") == Path("postgres.sqlite").absolute()


def cuvee(*arguments: "str | Path | Server") -> Result:
    return CliRunner().invoke(app, ["ledger", *map(str, arguments)])


def said(result: Result, *, code: int = 0) -> str:
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def test_the_commands_work_on_a_server_as_on_a_file(postgres: Postgres, tmp_path: Path) -> None:
    place, out = postgres.database(), tmp_path / "o.parquet"
    assert "no such ledger" in said(cuvee("stats", place), code=1)
    with Ledger.open(place) as ledger:
        for number in range(5):
            put(ledger, number, payer=Payer("run", "alice" if number < 3 else "bob"))
        ledger.mark_sent("in doubt", payer=PAYER, reserved=COST, budget=Budget(usd=9)).result()
    assert "alice 3 30 3,000 0.7500 1 1.0000 20" in said(cuvee("stats", place))
    assert "m 5 50 5,000 1.2500 20" in said(cuvee("stats", place, "--by", "identity"))
    assert "run 5 50 5,000 1.2500 1 1.5000" in said(cuvee("stats", place, "--by", "account"))
    assert "2 answers" in said(cuvee("export", place, out, "--teacher", "bob"))
    other = postgres.database()
    assert "2 answers added, 0 were" in said(cuvee("import", other, out))
    assert "0 answers added, 2 were" in said(cuvee("import", other, out))
    assert "2 answers, all sound" in said(cuvee("verify", other))
    assert "5 answers, all sound" in said(cuvee("verify", place))
    assert "would remove 3" in said(cuvee("prune", place, "--teacher", "alice"))
    text = said(cuvee("prune", place, "--teacher", "alice", "--yes"))
    assert "removed 3 answers" in text
    assert "the server will use their space again" in text
    assert "alice 0 0 0 0.0000 1 1.0000 - -" in said(cuvee("stats", place)), "spent stays spent"
    assert "2 answers, all sound" in said(cuvee("verify", place))
