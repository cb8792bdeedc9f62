"""`cuvee ledger copy`: a whole ledger moves, in either direction, or nothing is called done."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cuvee.cli import app
from cuvee.errors import DataError
from cuvee.progress import Tick
from cuvee.recipe import Budget
from cuvee.recipe.address import Place
from cuvee.records import content_hash, dumps
from cuvee.teach.ledger import Answer, Cost, Ledger, Payer
from cuvee.teach.ledger.check import verify
from cuvee.teach.ledger.copies import Copied, copy
from cuvee.teach.ledger.stores import commit, connect
from cuvee.teach.ledger.survey import Chosen, prune, survey

from .servers import Postgres

ALICE, BOB = Payer("run", "alice"), Payer("run", "bob")
MOST = Cost(5, 2000, 0.7)
SILENT: Tick = lambda n: None  # noqa: E731


def key(number: int) -> str:
    return content_hash({"identity": "m", "number": number})


def fill(place: Place, numbers: range) -> None:
    """Buy answers: bob's server does not count, every tenth sending stays in doubt."""
    with Ledger.open(place) as ledger:
        for number in numbers:
            payer = BOB if number % 3 == 0 else ALICE
            ledger.put(
                key(number),
                request=dumps({"identity": "m", "number": number}),
                response=dumps({"choices": [{"message": {"content": f"Grüße 日本 {number}"}}]}),
                status=200,
                seconds=0.1 * number,
                payer=payer,
                cost=None if payer is BOB else Cost(1, number, number / 7),
            )
            if number % 10 == 0:
                ledger.mark_sent(f"doubt {number}", payer=payer, reserved=MOST, budget=None)


def contents(place: Place, numbers: range) -> list[object]:
    """Return all that a run sees of a ledger."""
    with Ledger.open(place) as ledger:
        found: list[Answer | None] = [ledger.get(key(number)) for number in numbers]
        marks = ledger.mark_sent("doubt 10", payer=ALICE, reserved=MOST, budget=Budget(requests=1))
        return [*found, ledger.spent("run"), ledger.count_in_doubt(), marks.result()]


@pytest.fixture(params=["file to server", "server to file", "file to file"])
def way(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Place, Place]:
    """Return where a ledger comes from, and goes to."""
    server: Postgres = request.getfixturevalue("postgres")
    file = tmp_path / "l.sqlite"
    ways: dict[str, tuple[Place, Place]] = {
        "file to server": (file, server.database()),
        "server to file": (server.database(), file),
        "file to file": (file, tmp_path / "new" / "other.sqlite"),
    }
    return ways[request.param]


def test_everything_moves_and_a_second_copy_has_nothing_to_do(way: tuple[Place, Place]) -> None:
    source, target = way
    fill(source, range(230))
    prune(source, Chosen(before="2000-01-01T00:00:00Z"))
    ticks: list[int] = []
    assert copy(source, target, tick=ticks.append) == Copied(230, 0, 23, 0)
    assert sum(ticks) == 3 * 230
    assert contents(target, range(231)) == contents(source, range(231))
    assert survey(target, "teacher") == survey(source, "teacher")
    assert verify(target, tick=SILENT).details == []
    assert copy(source, target, tick=SILENT) == Copied(230, 230, 23, 0)


def test_a_copy_that_was_cut_off_goes_on_where_it_was(way: tuple[Place, Place]) -> None:
    source, target = way
    fill(source, range(350))
    ticks: list[int] = []

    def cut(rows: int) -> None:
        ticks.append(rows)
        if sum(ticks) >= 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy(source, target, tick=cut)
    with Ledger.open(target) as ledger:
        assert ledger.count_answers() == 200
        assert ledger.spent("run").total.answers == 0, "the accounts come last"
    fill(source, range(350, 360))  # keys are hashes: some stand before where the copy stopped
    assert copy(source, target, tick=SILENT) == Copied(360, 200, 36, 0)
    assert contents(target, range(361)) == contents(source, range(361))


def test_a_ledger_that_is_in_use_is_not_copied_over(way: tuple[Place, Place]) -> None:
    source, target = way
    fill(source, range(5))
    fill(target, range(3, 9))
    before = contents(target, range(10))
    with pytest.raises(DataError, match=r"accounts of its own.*export.*import"):
        copy(source, target, tick=SILENT)
    assert contents(target, range(10)) == before


def test_a_run_that_begins_to_write_to_the_target_meanwhile_is_noticed(
    way: tuple[Place, Place],
) -> None:
    source, target = way
    fill(source, range(5))

    def meanwhile(rows: int) -> None:
        if rows:
            fill(target, range(900, 901))

    with pytest.raises(DataError, match=r"written to it meanwhile|not hold the same answers"):
        copy(source, target, tick=meanwhile)


def test_damage_is_carried_as_it_is_and_counted(way: tuple[Place, Place]) -> None:
    source, target = way
    fill(source, range(4))
    connection = connect(source)
    change = "UPDATE answers SET response = replace(response, 'Gr', 'gr') WHERE key = ?1"
    commit(connection, lambda within: within.execute(change, (key(2),)))
    connection.close()
    assert copy(source, target, tick=SILENT).damaged == 1
    assert dict(verify(target, tick=SILENT).faults) == {"response": 1}


def test_the_command_says_what_it_did_and_what_is_wrong(postgres: Postgres, tmp_path: Path) -> None:
    source, target = tmp_path / "l.sqlite", postgres.database()

    def cuvee(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["ledger", *map(str, arguments)])
        return result.exit_code, " ".join(result.output.split())

    code, text = cuvee("copy", source, target)
    assert (code, "no such ledger" in text) == (1, True)
    fill(source, range(20))
    code, text = cuvee("copy", source, target)
    assert code == 0, text
    assert "60/60 answers" in text
    assert "20 answers (0 were there already), 2 requests in doubt, all accounts" in text
    code, text = cuvee("copy", target, target)
    assert (code, "cannot be copied to where it is" in text) == (1, True)
