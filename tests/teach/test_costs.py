"""The cost table: what it adds up, how it looks, and that it goes on without the ledger."""

import io
import time
from types import MappingProxyType

import pytest
from rich.console import Console

from cuvee import progress
from cuvee.errors import DataError
from cuvee.progress import Meter, live, metered
from cuvee.recipe import Budget
from cuvee.teach.costs import Costs, lines, rows, table
from cuvee.teach.ledger import Cost, Spending, Spent

ALICE = Spending(40, Cost(12_000, 800_000, 1.5), 10, Cost(1_000, 99_000, 0.5))
BOB = Spending(2, Cost(100, 200, 0.0), 0, Cost(0, 0, 0.0))
BOTH = Spending(42, Cost(12_100, 800_200, 1.5), 10, Cost(1_000, 99_000, 0.5))


def costs(budget: Budget, spent: Spent | None = None) -> Costs:
    """Return a table of two teachers, the second of which was not begun."""
    known = spent or Spent(BOTH, MappingProxyType({"alice": ALICE, "bob": BOB}))
    made = Costs(lambda: known, budget, {"alice": [], "bob": []})
    for answers, failed in ((30, 1), (20, 2)):
        meter = made.meter("alice")
        meter.total, meter.answers, meter.failed = 60, answers, failed
        meter.from_ledger, meter.in_flight = 5, 4
    return made


def test_a_row_adds_the_domains_of_a_teacher_and_all_stands_last() -> None:
    alice, everyone = rows(costs(Budget(usd=4, requests=1000)))
    assert (alice.teacher, alice.total, alice.answers, alice.failed) == ("alice", 120, 50, 3)
    assert (alice.from_ledger, alice.in_flight, alice.spending) == (10, 8, ALICE)
    assert (alice.share, alice.limit) == (0.5, "usd"), "1.5 spent and 0.5 in flight of 4"
    assert (everyone.teacher, everyone.spending) == ("all", BOTH)


def test_the_nearest_limit_is_shown_and_none_without_a_budget() -> None:
    row = rows(costs(Budget(usd=4, tokens=1_000_000)))[0]
    assert (row.share, row.limit) == (0.912, "tokens")
    assert rows(costs(Budget()))[0].share is None


def test_one_teacher_alone_needs_no_row_for_all() -> None:
    alone = costs(Budget(), Spent(ALICE, MappingProxyType({"alice": ALICE})))
    assert [row.teacher for row in rows(alone)] == ["alice"]


def test_lines_say_everything_in_words() -> None:
    assert lines(costs(Budget(usd=4)))[0] == (
        "alice: 50/120 answers (10 from the ledger), 8 in flight, 812k tokens, $1.50, "
        "50% of budget.usd, 3 errors"
    )
    assert "budget" not in lines(costs(Budget()))[0]


def test_the_table_fits_a_terminal_of_100_columns() -> None:
    drawn = io.StringIO()
    Console(file=drawn, width=100).print(table(costs(Budget(usd=4))))
    heading, alice, everyone = drawn.getvalue().splitlines()
    assert heading.split()[:3] == ["teacher", "answers", "ledger"]
    assert alice.split() == [
        "alice", "50/120", "10", "8", "12k", "800k", "$1.50", "50%", "usd", "3",
    ]  # fmt: skip
    assert everyone.split()[0] == "all"


def test_a_ledger_that_cannot_be_read_leaves_the_last_costs() -> None:
    answers = [Spent(ALICE, MappingProxyType({"alice": ALICE}))]

    def spent() -> Spent:
        if not answers:
            raise DataError("damaged")
        return answers.pop()

    made = Costs(spent, Budget(), {"alice": [Meter()]})
    first = rows(made)
    assert rows(made) == first
    assert first[0].spending == ALICE


def terminal(monkeypatch: pytest.MonkeyPatch, *, is_one: bool) -> io.StringIO:
    """Put a console that is (no) terminal in place of stderr; return what it prints."""
    said = io.StringIO()
    made = Console(file=said, force_terminal=is_one, width=100, soft_wrap=True)
    monkeypatch.setattr(progress, "console", made)
    return said


def test_off_a_terminal_lines_come_now_and_then_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = terminal(monkeypatch, is_one=False)
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.05)
    counted = iter(range(1000))
    with live(lambda: "", lambda: [f"line {next(counted)}"]):
        time.sleep(0.4)
    shown = said.getvalue().split("\n")
    assert 2 < len(shown) < 12
    assert shown[:2] == ["  line 0", "  line 1"]


def test_the_last_state_is_shown_after_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    said = terminal(monkeypatch, is_one=False)

    def fail() -> None:
        with live(lambda: "", lambda: ["what it cost"]):
            raise DataError("damaged")

    with pytest.raises(DataError):
        fail()
    assert said.getvalue() == "  what it cost\n"


def test_on_a_terminal_the_last_state_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    said = terminal(monkeypatch, is_one=True)
    made = costs(Budget())
    with live(lambda: table(made), lambda: lines(made)):
        made.meter("bob").total = 77
    assert "0/77" in said.getvalue()


@pytest.mark.parametrize("is_one", [True, False])
def test_a_metered_bar_ends_with_all_that_came(
    monkeypatch: pytest.MonkeyPatch, is_one: bool
) -> None:
    said = terminal(monkeypatch, is_one=is_one)
    with metered("ask", total=5) as meter:
        meter.answers += 3
        meter.failed += 2
    assert "5/5" in said.getvalue()
