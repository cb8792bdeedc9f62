"""The ledger keeps what was answered and finds it again, whatever became of the senders."""

import os
import sqlite3
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.errors import DataError
from cuvee.recipe.address import Place
from cuvee.teach.ledger import Answer, Cost, Ledger, Payer, Sent


@pytest.fixture
def ledger(place: Place) -> Iterator[Ledger]:
    """Open a new ledger, in either store."""
    with Ledger.open(place) as opened:
        yield opened


PAYER = Payer("run-1", "alice")
MOST = Cost(100, 200, 0.5)
"""A reservation."""


def put(ledger: Ledger, key: str, response: str = "{}") -> "Future[Answer]":
    return ledger.put(
        key,
        request='{"identity":"m"}',
        response=response,
        status=200,
        seconds=1.5,
        payer=PAYER,
        cost=Cost(11, 22, 0.25),
    )


def mark(ledger: Ledger, key: str) -> Sent:
    return ledger.mark_sent(key, payer=PAYER, reserved=MOST, budget=None).result()


def test_an_answer_is_found_again_as_it_came_after_reopening(place: Place) -> None:
    path = place / "deep" / "l.sqlite" if isinstance(place, Path) else place
    with Ledger.open(path) as ledger:
        assert ledger.get("k") is None
        assert not ledger.holds("k")
        stored = put(ledger, "k", '{"text": "Grüße \\ud800 日本"}').result()
    with Ledger.open(path) as ledger:
        found = ledger.get("k")
        assert ledger.holds("k")
    assert found == stored
    assert found is not None
    assert found.response == '{"text": "Grüße \\ud800 日本"}'
    assert (found.request, found.status, found.seconds) == ('{"identity":"m"}', 200, 1.5)
    assert (found.account, found.teacher) == ("run-1", "alice")
    assert (found.prompt_tokens, found.completion_tokens, found.usd) == (11, 22, 0.25)


def test_which_of_many_keys_are_answered(ledger: Ledger) -> None:
    for number in range(0, 1500, 3):
        put(ledger, str(number))
    put(ledger, "last").result()
    asked = [str(number) for number in range(1500)]
    assert ledger.held(asked) == {str(number) for number in range(0, 1500, 3)}
    assert ledger.held([]) == set()


def test_opened_to_be_read_it_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a b?#%.sqlite"
    with Ledger.open(path) as ledger:
        stored = put(ledger, "k").result()
        with Ledger.open_to_read(path) as reader:
            put(ledger, "later").result()
            assert reader.holds("later")
    before = path.read_bytes()
    with Ledger.open_to_read(path) as reader:
        assert reader.get("k") == stored
        assert reader.spent("run-1").total.answers == 2
        with pytest.raises(ValueError, match="opened to be read"):
            put(reader, "new")
    assert path.read_bytes() == before


def test_what_is_not_there_or_is_no_ledger_is_not_made_one_by_reading(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such ledger"):
        Ledger.open_to_read(tmp_path / "no.sqlite")
    (tmp_path / "empty.sqlite").touch()
    with pytest.raises(DataError, match="no ledger of cuvee"):
        Ledger.open_to_read(tmp_path / "empty.sqlite")
    assert [(f.name, f.stat().st_size) for f in tmp_path.iterdir()] == [("empty.sqlite", 0)]


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
    assert mark(ledger, "a") == Sent(again=False, over=None)
    assert mark(ledger, "b") == Sent(again=False, over=None)
    assert ledger.count_in_doubt() == 2
    put(ledger, "a").result()
    ledger.unmark_sent("b", payer=PAYER).result()
    assert ledger.count_in_doubt() == 0
    assert mark(ledger, "b") == Sent(again=False, over=None)


def test_a_second_sending_is_told_and_the_first_stays_in_doubt(ledger: Ledger) -> None:
    mark(ledger, "a")
    assert mark(ledger, "a").again, "the fate of the first is unknown: possibly billed twice"
    put(ledger, "a").result()
    assert ledger.count_in_doubt() == 1, "the first may have been billed all the same"
    mark(ledger, "b")
    mark(ledger, "b")
    ledger.unmark_sent("b", payer=PAYER).result()
    assert mark(ledger, "b").again


def test_what_was_answered_meanwhile_is_not_to_be_sent(ledger: Ledger) -> None:
    stored = put(ledger, "a").result()
    assert mark(ledger, "a") == Sent(again=False, over=None, answer=stored)
    assert ledger.count_in_doubt() == 0


def test_what_waits_is_written_when_it_closes(place: Place) -> None:
    with Ledger.open(place) as ledger:
        for number in range(500):
            put(ledger, str(number))
    ledger.close()
    with pytest.raises(ValueError, match="closed"):
        put(ledger, "late")
    with Ledger.open(place) as again:
        assert again.count_answers() == 500


def test_a_cancelled_wait_does_not_lose_the_answer(ledger: Ledger) -> None:
    futures = [put(ledger, str(number)) for number in range(200)]
    for future in futures:
        future.cancel()
    put(ledger, "last").result()
    assert ledger.count_answers() == 201


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


def test_text_that_is_no_unicode_is_stored_as_json_writes_it(ledger: Ledger) -> None:
    assert put(ledger, "k", '"a\ud800b"').result(10).response == '"a\\ud800b"'


@pytest.mark.parametrize(
    "cost", [Cost(2**31, 0, 0.0), Cost(0, 2**40, 0.0), Cost(1, 1, 1e6)], ids=str
)
def test_a_cost_beyond_belief_is_refused_before_it_is_written(ledger: Ledger, cost: Cost) -> None:
    with pytest.raises(ValueError, match="one request costs less than"):
        ledger.mark_sent("k", payer=PAYER, reserved=cost, budget=None)
    with pytest.raises(ValueError, match="one request costs less than"):
        ledger.put(
            "k", request="{}", response="{}", status=200, seconds=1.0, payer=PAYER, cost=cost
        )
    assert put(ledger, "k").result().usd == 0.25


@pytest.mark.parametrize("given", [(-1, 0, 0.0), (0, -1, 0.0), (0, 0, -0.1), (0, 0, float("nan"))])
def test_no_cost_is_negative_or_no_number(given: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError, match="must be 0 or more"):
        Cost(*given)


def test_a_response_that_is_not_what_was_stored_is_not_given_out(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    with Ledger.open(path) as ledger:
        put(ledger, "k", '"hello"').result()
        other = sqlite3.connect(path)
        other.execute("UPDATE answers SET response = replace(response, 'h', 'j')")
        other.commit()
        other.close()
        with pytest.raises(DataError, match="answer k is damaged"):
            ledger.get("k")


def test_groups_make_many_writes_cheap(ledger: Ledger) -> None:
    begin = os.times()
    for future in [put(ledger, str(number), "x" * 1000) for number in range(2000)]:
        future.result()
    used = os.times()
    assert used.user + used.system - begin.user - begin.system < 2, "0.2 s was seen"


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


def test_a_later_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    Ledger.open(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(DataError, match="schema 99"):
        Ledger.open(path)


def test_a_folder_in_its_place_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot read or write the ledger"):
        Ledger.open(tmp_path)
