"""The ledger keeps what was answered, whatever happens to the processes around it."""

import errno
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import textwrap
from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.errors import DataError
from cuvee.teach.ledger import Answer, Ledger


def put(ledger: Ledger, key: str, response: str = "{}") -> "Future[Answer]":
    return ledger.put(key, request='{"a":1}', response=response, status=200, seconds=1.5)


def python(code: str, *args: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *args], stdout=subprocess.PIPE, text=True
    )


def test_an_answer_is_found_again_as_it_came_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        assert ledger.get("k") is None
        stored = put(ledger, "k", '{"text": "Grüße \\ud800 日本"}').result()
    with Ledger.open(path) as ledger:
        found = ledger.get("k")
    assert found == stored
    assert found is not None
    assert found.response == '{"text": "Grüße \\ud800 日本"}'
    assert (found.request, found.status, found.seconds) == ('{"a":1}', 200, 1.5)


def test_the_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    Ledger.open("~/cache/l.sqlite").close()
    assert (tmp_path / "cache" / "l.sqlite").exists()


def test_the_first_of_two_answers_stays_and_both_senders_get_it(ledger: Ledger) -> None:
    first, second = put(ledger, "k", "first"), put(ledger, "k", "second")
    assert first.result() == second.result()
    assert second.result().response == "first"
    assert ledger.count_answers() == 1


def test_a_mark_stays_until_the_answer_or_a_refusal(ledger: Ledger) -> None:
    assert ledger.mark_sent("a").result() is False
    assert ledger.mark_sent("b").result() is False
    assert ledger.mark_sent("a").result() is True, "its fate is unknown: possibly billed twice"
    assert ledger.count_in_doubt() == 2
    put(ledger, "a").result()
    ledger.unmark_sent("b").result()
    assert ledger.count_in_doubt() == 0
    assert ledger.mark_sent("b").result() is False


def test_what_waits_is_written_when_it_closes(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    with Ledger.open(path) as ledger:
        for number in range(500):
            put(ledger, str(number))
    ledger.close()
    with pytest.raises(ValueError, match="closed"):
        put(ledger, "late")
    with Ledger.open(path) as again:
        assert again.count_answers() == 500


def test_a_cancelled_wait_does_not_lose_the_answer(ledger: Ledger) -> None:
    futures = [put(ledger, str(number)) for number in range(200)]
    for future in futures:
        future.cancel()
    put(ledger, "last").result()
    assert ledger.count_answers() == 201


def test_every_acknowledged_answer_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    child = python(
        """
        import sys
        from cuvee.teach.ledger import Ledger
        ledger = Ledger.open(sys.argv[1])
        for number in range(10**6):
            ledger.put(str(number), request="{}", response="x" * 2000, status=200, seconds=1
                       ).result()
            print(number, flush=True)
        """,
        str(path),
    )
    assert child.stdout is not None
    acknowledged = [int(child.stdout.readline()) for _ in range(100)]
    child.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in child.stdout if line.endswith("\n")]
    child.wait()
    child.stdout.close()
    with Ledger.open(path) as ledger:
        assert all(ledger.get(str(number)) for number in acknowledged)
        assert 0 <= ledger.count_answers() - len(acknowledged) <= 1


def test_processes_that_open_and_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    code = """
        import sys
        from cuvee.teach.ledger import Ledger
        with Ledger.open(sys.argv[1]) as ledger:
            for number in range(100):
                key = f"{sys.argv[2]}-{number}"
                ledger.put(key, request="{}", response=key, status=200, seconds=1).result()
        """
    children = [python(code, str(path), str(number)) for number in range(4)]
    for child in children:
        child.communicate()
        assert child.returncode == 0
    with Ledger.open(path) as ledger:
        assert ledger.count_answers() == 400
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_file_that_is_no_database_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes " * 1000)
    with pytest.raises(DataError, match=r"notes\.txt.*move it away"):
        Ledger.open(path)
    assert path.read_text() == "my notes " * 1000


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE answers (x)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(DataError, match="no ledger of cuvee"):
        Ledger.open(path)
    assert path.read_bytes() == before


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    Ledger.open(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(DataError, match="schema 99"):
        Ledger.open(path)


def test_a_damaged_ledger_says_so(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    with Ledger.open(path) as ledger:
        for number in range(200):
            put(ledger, str(number), "x" * 1000).result()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    with Ledger.open(path) as ledger, pytest.raises(DataError, match=r"l\.sqlite.*move it away"):
        ledger.get("7")


def test_a_folder_in_its_place_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot read or write the ledger"):
        Ledger.open(tmp_path)


def test_a_full_disk_is_an_os_error_with_the_path_and_the_rest_survives(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    with Ledger.open(path) as ledger:
        put(ledger, "before").result()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        # The kernel then refuses to make files longer, as a full disk does.
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100_000, hard))
        try:
            with pytest.raises(OSError, match="ledger") as caught:
                for number in range(1000):
                    put(ledger, str(number), "x" * 1_000_000).result()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert caught.value.filename == str(path)
        assert caught.value.errno in (errno.ENOSPC, errno.EIO)
        put(ledger, "after").result()
    with Ledger.open(path) as ledger:
        assert ledger.get("before")
        assert ledger.get("after")


@settings(max_examples=8, deadline=None)
@given(
    answers=st.dictionaries(st.text("abcdef", min_size=1), st.text(st.characters(codec="utf-8")))
)
def test_any_text_comes_back_under_its_own_key(
    tmp_path_factory: pytest.TempPathFactory, answers: dict[str, str]
) -> None:
    with Ledger.open(tmp_path_factory.mktemp("any") / "l.sqlite") as ledger:
        for key, text in answers.items():
            put(ledger, key, text)
        put(ledger, "0").result()
        for key, text in answers.items():
            found = ledger.get(key)
            assert found is not None
            assert found.response == text


def test_text_that_is_no_unicode_is_stored_with_a_mark_in_its_place(ledger: Ledger) -> None:
    assert put(ledger, "k", "a\ud800b").result(10).response == "a?b"


def test_groups_make_many_writes_cheap(ledger: Ledger) -> None:
    begin = os.times()
    for future in [put(ledger, str(number), "x" * 1000) for number in range(2000)]:
        future.result()
    used = os.times()
    assert used.user + used.system - begin.user - begin.system < 2, "0.1 s was seen"
