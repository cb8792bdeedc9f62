"""A ledger of schema 1 becomes one of schema 2 where it stands, with all its answers."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from cuvee.errors import DataError
from cuvee.recipe import Budget
from cuvee.teach.ledger import Answer, Cost, Ledger, Payer, Sent

SCHEMA_1 = """
CREATE TABLE answers (
  key TEXT PRIMARY KEY, request TEXT NOT NULL, response TEXT NOT NULL,
  status INTEGER NOT NULL, seconds REAL NOT NULL, created TEXT NOT NULL
) STRICT;
CREATE TABLE sent (key TEXT PRIMARY KEY, created TEXT NOT NULL) STRICT, WITHOUT ROWID;
PRAGMA application_id = 0x63757665;
PRAGMA user_version = 1;
PRAGMA journal_mode = WAL;
"""
TIME = "2026-01-31T12:00:00Z"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Return a ledger as the first version wrote it: 300 answers, 2 requests in doubt."""
    path = tmp_path / "old.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(SCHEMA_1)
    rows = [
        (f"k{n}", f'{{"identity":"m{n % 2}"}}', "long " * n, 200, 0.5, TIME) for n in range(299)
    ]
    rows.append(("damaged", '{"identity', "{}", 200, 0.5, TIME))
    connection.executemany("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?)", rows)
    connection.executemany("INSERT INTO sent VALUES (?, ?)", [("s1", TIME), ("s2", TIME)])
    connection.commit()
    connection.close()
    return path


def shape(path: Path) -> list[tuple[object, ...]]:
    """Return all columns and indexes of a file."""
    connection = sqlite3.connect(path)
    query = (
        "SELECT m.type, m.name, c.cid, c.name, c.type, c.'notnull', c.dflt_value, c.pk "
        "FROM sqlite_master m LEFT JOIN pragma_table_xinfo(m.name) c ORDER BY 1, 2, 3"
    )
    found: list[tuple[object, ...]] = connection.execute(query).fetchall()
    connection.close()
    return found


def test_its_answers_are_kept_and_what_is_not_known_stays_unknown(old: Path) -> None:
    with Ledger.open(old) as ledger:
        assert ledger.count_answers() == 300
        assert ledger.get("k7") == Answer('{"identity":"m1"}', "long " * 7, 200, 0.5, TIME)
        assert ledger.spent("").total.answers == 300
        assert ledger.spent("").total.in_doubt == 2
        assert ledger.spent("").total.usd == 0


def test_requests_in_doubt_stay_in_doubt_and_count_for_no_account(old: Path) -> None:
    with Ledger.open(old) as ledger:
        payer, most = Payer("run", "alice"), Cost(1, 1, 0.5)
        sent = ledger.mark_sent("s1", payer=payer, reserved=most, budget=Budget(requests=1))
        assert sent.result() == Sent(again=True, over=None)


def test_reading_it_does_not_migrate_it(old: Path) -> None:
    before = shape(old)
    with pytest.raises(DataError, match=r"schema 1.*the next run"):
        Ledger.open_to_read(old)
    assert shape(old) == before


def test_it_has_the_shape_of_a_new_one(old: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.sqlite"
    Ledger.open(new).close()
    assert shape(old) != shape(new)
    Ledger.open(old).close()
    assert shape(old) == shape(new)


def test_the_model_of_each_answer_is_known(old: Path) -> None:
    Ledger.open(old).close()
    connection = sqlite3.connect(old)
    query = "SELECT identity, count(*) FROM answers GROUP BY 1 ORDER BY 1"
    assert connection.execute(query).fetchall() == [("", 1), ("m0", 150), ("m1", 149)]
    connection.close()


def test_many_processes_that_open_it_at_once_migrate_it_once(old: Path) -> None:
    code = "import sys; from cuvee.teach.ledger import Ledger; Ledger.open(sys.argv[1]).close()"
    children = [subprocess.Popen([sys.executable, "-c", code, str(old)]) for _ in range(4)]
    assert [child.wait() for child in children] == [0] * 4
    with Ledger.open(old) as ledger:
        assert ledger.count_answers() == 300


def test_a_migration_that_fails_changes_nothing(old: Path) -> None:
    connection = sqlite3.connect(old)
    connection.execute("CREATE TABLE totals (in_the_way)")
    connection.commit()
    connection.close()
    before = shape(old)
    with pytest.raises(DataError, match="totals"):
        Ledger.open(old)
    assert shape(old) == before
