"""`cuvee ledger` as it is typed: what it prints, what it refuses, what it leaves alone."""

import datetime
import sqlite3
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from aiohttp import web
from typer.testing import CliRunner, Result

from cuvee.cli import app
from cuvee.records import content_hash, dumps
from cuvee.teach.ledger import Cost, Ledger, Payer

from .conftest import Body, Serve, completion, endpoint, requests, send


def cuvee(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["ledger", *map(str, arguments)])


def said(result: Result, *, code: int = 0) -> str:
    """Return what a command that ends with `code` printed, on one line."""
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a ledger: alice has 3 answers of two runs, bob one that nobody counted."""
    place = tmp_path / "l.sqlite"
    payers = [Payer("run-1", "alice"), Payer("run-1", "alice"), Payer("run-2", "alice")]
    with Ledger.open(place) as ledger:
        for number, payer in enumerate([*payers, Payer("run-1", "bob")]):
            request = {"identity": f"model of {payer.teacher}", "number": number}
            ledger.put(
                content_hash(request),
                request=dumps(request),
                response=dumps({"choices": [{"message": {"content": "x" * 10_000}}]}),
                status=200,
                seconds=1.0,
                payer=payer,
                cost=None if payer.teacher == "bob" else Cost(10, 1000, 1.25),
            )
        ledger.mark_sent(
            "in doubt", payer=Payer("run-2", "bob"), reserved=Cost(1, 1, 9.5), budget=None
        )
    return place


def days_later(path: Path, days: int) -> None:
    """Make everything in a ledger older."""
    then = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE answers SET created = ?", (then.strftime("%Y-%m-%dT%H:%M:%SZ"),))
    connection.commit()
    connection.close()


def test_stats_by_teacher_model_and_run(path: Path) -> None:
    text = said(cuvee("stats", path))
    assert "alice 3 30 3,000 3.7500 0 3.7500 20" in text
    assert "bob 1 0 0 0.0000 1 9.5000 20" in text
    assert "1 answers whose server did not count" in text
    assert "model of alice 3 30 3,000 3.7500 20" in said(cuvee("stats", path, "--by", "identity"))
    text = said(cuvee("stats", path, "--by", "account"))
    assert "run-1 3 20 2,000 2.5000 0 2.5000 20" in text
    assert "run-2 1 10 1,000 1.2500 1 10.7500 20" in text


def test_names_are_shown_as_they_are_whatever_they_look_like(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    with Ledger.open(path) as ledger:
        payer = Payer("[red]run[/]", "t")
        ledger.put("k", request="{}", response="{}", status=200, seconds=1, payer=payer, cost=None)
    assert "[red]run[/]" in said(cuvee("stats", path, "--by", "account"))
    assert "(not known)" in said(cuvee("stats", path, "--by", "identity"))


def test_an_empty_ledger_has_nothing_and_is_sound(tmp_path: Path) -> None:
    Ledger.open(tmp_path / "l.sqlite").close()
    assert "answers" in said(cuvee("stats", tmp_path / "l.sqlite"))
    assert "0 answers, all sound" in said(cuvee("verify", tmp_path / "l.sqlite"))


@pytest.mark.parametrize("command", ["stats", "verify", "export", "prune"])
def test_a_ledger_that_is_not_there_is_not_made(tmp_path: Path, command: str) -> None:
    more = {"export": [str(tmp_path / "o.parquet")], "prune": ["--teacher", "alice"]}
    result = cuvee(command, tmp_path / "no.sqlite", *more.get(command, []))
    assert "no such ledger" in said(result, code=1)
    assert list(tmp_path.iterdir()) == []


def test_export_and_import_say_what_they_did(path: Path, tmp_path: Path) -> None:
    out, new = tmp_path / "alice.parquet", tmp_path / "new.sqlite"
    assert "3 answers" in said(cuvee("export", path, out, "--teacher", "alice", "--note", "MIT"))
    text = said(cuvee("import", new, out, out))
    assert "3 answers added, 0 were there already" in text
    assert "0 answers added, 3 were there already" in text
    assert "MIT" in text
    text = said(cuvee("stats", new))
    assert "alice 3 30 3,000 3.7500" in text
    assert "bob" not in text


def test_an_export_of_nothing_or_under_another_name_is_refused(path: Path, tmp_path: Path) -> None:
    result = cuvee("export", path, tmp_path / "o.parquet", "--teacher", "nobody")
    assert "of teacher nobody: no such answers" in said(result, code=1)
    assert "end in .parquet" in said(cuvee("export", path, tmp_path / "o.csv"), code=2)
    assert not (tmp_path / "o.parquet").exists()


def test_an_import_with_a_bad_row_says_which_and_fails(path: Path, tmp_path: Path) -> None:
    out, new = tmp_path / "o.parquet", tmp_path / "new.sqlite"
    said(cuvee("export", path, out))
    table = pq.read_table(out)
    keys = ["0" * 16, *table["key"].to_pylist()[1:]]
    pq.write_table(table.set_column(0, "key", [keys]), out)
    text = said(cuvee("import", new, out), code=1)
    assert "row 0: its request has the hash" in text
    assert "1 rows were refused; all others are in" in text
    assert "3 answers, all sound" in said(cuvee("verify", new))


def test_pruning_says_what_would_go_and_does_it_with_yes(path: Path) -> None:
    before = path.stat().st_size
    choice = ("prune", path, "--teacher", "alice", "--account", "run-1")
    text = said(cuvee(*choice))
    assert "would remove 2 answers (of teacher alice, of run run-1), bought for 2.50 USD" in text
    assert path.stat().st_size == before
    assert "removed 2 answers" in said(cuvee(*choice, "--yes"))
    assert path.stat().st_size < before
    assert "nothing to remove" in said(cuvee(*choice, "--yes"))
    text = said(cuvee("stats", path))
    assert "alice 1 10 1,000 1.2500 0 3.7500" in text, "what was spent stays spent"
    assert "all sound" in said(cuvee("verify", path))


def test_pruning_by_age_and_by_model(path: Path) -> None:
    assert "nothing to remove" in said(cuvee("prune", path, "--older-than", "1", "--yes"))
    days_later(path, days=3)
    text = said(cuvee("prune", path, "--older-than", "2", "--identity", "model of bob", "--yes"))
    assert "removed 1 answers" in text
    assert "nothing to remove" in said(cuvee("prune", path, "--older-than", "4", "--yes"))
    assert "removed 3 answers" in said(cuvee("prune", path, "--older-than", "2", "--yes"))
    text = said(cuvee("stats", path, "--by", "account"))
    assert "run-2 0 0 0 0.0000 1 10.7500 - -" in text


def test_pruning_needs_a_choice(path: Path) -> None:
    assert "say what to remove" in said(cuvee("prune", path, "--yes"), code=2)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("UPDATE answers SET key = 'abc' WHERE teacher = 'bob'", "key 1"),
        ("UPDATE answers SET request = request || ' ' || 'x'", "key 4"),
        ("UPDATE answers SET response = replace(response, 'xxx', 'xyx')", "response 4"),
        ("UPDATE answers SET response = '{}'", "response 4"),
        ("UPDATE answers SET identity = 'm' WHERE teacher = 'bob'", "identity 1"),
        ("UPDATE totals SET answers = 0", "accounts 3"),
        ("UPDATE totals SET nanodollars = 0", "accounts 2"),
        ("DELETE FROM sent", "accounts 1"),
        ("DELETE FROM totals", "accounts 4"),
    ],
)
def test_verify_finds_what_was_changed(path: Path, change: str, fault: str) -> None:
    assert "4 answers, all sound" in said(cuvee("verify", path))
    connection = sqlite3.connect(path)
    connection.execute(change)
    connection.commit()
    connection.close()
    assert f"faults ({fault})" in said(cuvee("verify", path), code=1)


def test_a_byte_that_is_no_text_is_a_fault_of_its_answer(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("UPDATE answers SET response = CAST(x'22ff22' AS TEXT) WHERE rowid = 2")
    connection.commit()
    connection.close()
    assert "faults (response 1)" in said(cuvee("verify", path), code=1)


def test_a_file_that_is_no_ledger_is_refused_by_every_command(tmp_path: Path) -> None:
    path = tmp_path / "notes.sqlite"
    path.write_text("my notes " * 1000)
    for command in (["stats"], ["verify"], ["prune", "--older-than", "1"]):
        result = cuvee(command[0], path, *command[1:])
        assert "not a readable ledger" in said(result, code=1)
    assert path.read_text() == "my notes " * 1000


def test_no_api_key_gets_into_a_ledger_an_export_or_what_is_printed(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def echo(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        return web.json_response(completion(f"you sent {request.headers['Authorization']}"))

    monkeypatch.setenv("MY_KEY", "sk-secret-123")
    path, out = tmp_path / "l.sqlite", tmp_path / "o.parquet"
    with Ledger.open(path) as ledger:
        send(endpoint(serve(echo).url, key_env="MY_KEY"), requests(3), ledger)
    printed = [said(cuvee("stats", path, "--by", "identity")), said(cuvee("export", path, out))]
    kept = [str(row) for row in pq.read_table(out).to_pylist()]
    assert all("you sent" in row for row in kept)
    assert "sk-secret" not in "".join([*printed, *kept])
    assert b"sk-secret" not in path.read_bytes() + out.read_bytes()
