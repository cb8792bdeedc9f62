"""The accounts: spent is what was put and what is in doubt, and a budget is never passed."""

import subprocess
import sys
import textwrap
from collections import defaultdict
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.recipe import Budget
from cuvee.recipe.address import Place
from cuvee.teach.ledger import Cost, Ledger, Limit, Payer, Sent, Spending, Spent
from cuvee.teach.ledger.entries import NANO


@pytest.fixture
def ledger(place: Place) -> Iterator[Ledger]:
    """Open a new ledger, in either store."""
    with Ledger.open(place) as opened:
        yield opened


ALICE, BOB = Payer("run", "alice"), Payer("run", "bob")
NOTHING = Cost(0, 0, 0.0)


def mark(
    ledger: Ledger, key: str, payer: Payer, reserved: Cost, *, budget: Budget | None = None
) -> Sent:
    return ledger.mark_sent(key, payer=payer, reserved=reserved, budget=budget).result()


def put(ledger: Ledger, key: str, payer: Payer, cost: Cost | None) -> None:
    ledger.put(
        key, request="{}", response="{}", status=200, seconds=0.1, payer=payer, cost=cost
    ).result()


def test_an_account_that_never_paid_has_spent_nothing(ledger: Ledger) -> None:
    assert ledger.spent("nobody") == Spent(Spending(0, NOTHING, 0, NOTHING), {})


def test_a_reservation_becomes_the_cost_of_its_answer(ledger: Ledger) -> None:
    mark(ledger, "a", ALICE, Cost(100, 200, 0.5))
    assert ledger.spent("run").teachers == {
        "alice": Spending(0, NOTHING, 1, Cost(100, 200, 0.5)),
    }
    put(ledger, "a", ALICE, Cost(90, 20, 0.125))
    assert ledger.spent("run").teachers == {"alice": Spending(1, Cost(90, 20, 0.125), 0, NOTHING)}


def test_teachers_stand_apart_and_the_total_is_their_sum(ledger: Ledger) -> None:
    put(ledger, "a", ALICE, Cost(1, 2, 0.25))
    mark(ledger, "b", BOB, Cost(10, 20, 0.5))
    mark(ledger, "c", Payer("another run", "alice"), Cost(7, 7, 7.0))
    spent = ledger.spent("run")
    assert spent.teachers == {
        "alice": Spending(1, Cost(1, 2, 0.25), 0, NOTHING),
        "bob": Spending(0, NOTHING, 1, Cost(10, 20, 0.5)),
    }
    assert spent.total == Spending(1, Cost(1, 2, 0.25), 1, Cost(10, 20, 0.5))
    assert (spent.total.requests, spent.total.tokens, spent.total.usd) == (2, 33, 0.75)


def test_an_answer_that_nobody_counted_counts_as_much_as_was_reserved(ledger: Ledger) -> None:
    mark(ledger, "a", ALICE, Cost(100, 200, 0.5))
    put(ledger, "a", ALICE, None)
    assert ledger.spent("run").total == Spending(1, Cost(100, 200, 0.5), 0, NOTHING)
    answer = ledger.get("a")
    assert answer is not None
    assert (answer.prompt_tokens, answer.completion_tokens, answer.usd) == (None, None, None)


def test_an_answer_that_came_second_was_bought_all_the_same(ledger: Ledger) -> None:
    for payer in (ALICE, BOB):
        mark(ledger, "a", payer, Cost(9, 9, 0.9))
    for payer in (ALICE, BOB):
        put(ledger, "a", payer, Cost(1, 1, 0.1))
    assert ledger.spent("run").total == Spending(2, Cost(2, 2, 0.2), 0, NOTHING)


def test_money_is_exact_over_many_small_sums(ledger: Ledger) -> None:
    futures = [
        ledger.mark_sent(str(n), payer=ALICE, reserved=Cost(1, 1, 0.1), budget=Budget(usd=100))
        for n in range(1001)
    ]
    assert [future.result().over for future in futures] == [None] * 1000 + ["usd"]
    assert ledger.spent("run").total.usd == 100


@pytest.mark.parametrize(
    ("budget", "over"),
    [
        (Budget(), None),
        (Budget(usd=2), None),
        (Budget(usd=1.99), "usd"),
        (Budget(tokens=60), None),
        (Budget(tokens=59), "tokens"),
        (Budget(requests=3), None),
        (Budget(requests=2), "requests"),
    ],
    ids=str,
)
def test_bought_in_doubt_and_the_new_one_together_may_reach_a_limit_not_pass_it(
    ledger: Ledger, budget: Budget, over: Limit | None
) -> None:
    put(ledger, "bought", ALICE, Cost(10, 10, 0.5))
    mark(ledger, "in doubt", BOB, Cost(5, 15, 1.0))
    before = ledger.spent("run")
    assert mark(ledger, "new", ALICE, Cost(15, 5, 0.5), budget=budget) == Sent(
        again=False, over=over
    )
    assert (ledger.spent("run") == before) is (over is not None), "over: nothing is written"
    other = Payer("another run", "alice")
    assert mark(ledger, "new", other, Cost(15, 5, 0.5), budget=budget).over is None


COSTS = st.builds(
    Cost,
    st.integers(0, 50),
    st.integers(0, 50),
    st.integers(0, 10**9).map(lambda nano: nano / NANO),
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["mark", "put", "uncounted", "unmark"]),
        st.sampled_from(["k1", "k2", "k3"]),
        st.sampled_from([ALICE, BOB, Payer("other", "alice")]),
        COSTS,
    ),
    max_size=40,
)
BUDGET = Budget(usd=4, tokens=300, requests=12)


def sum_of(costs: list[Cost]) -> Cost:
    return Cost(
        sum(cost.prompt_tokens for cost in costs),
        sum(cost.completion_tokens for cost in costs),
        sum(cost.nanodollars for cost in costs) / NANO,
    )


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_whatever_happens_spent_is_what_was_put_and_what_is_in_doubt(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[str, str, Payer, Cost]],
) -> None:
    """A plain model beside the ledger: lists of costs. No answer costs more than reserved."""
    bought: dict[Payer, list[Cost]] = defaultdict(list)
    doubts: dict[tuple[Payer, str], list[Cost]] = defaultdict(list)
    answered: set[str] = set()
    with Ledger.open(tmp_path_factory.mktemp("any") / "l.sqlite") as ledger:
        for action, key, payer, cost in steps:
            sendings = doubts[payer, key]
            if action == "mark":
                known = any(costs for (_, other), costs in doubts.items() if other == key)
                sent = mark(ledger, key, payer, cost, budget=BUDGET)
                assert sent.again is known
                assert (sent.answer is not None) is (key in answered)
                sendings += [cost] * (sent.over is None and sent.answer is None)
            elif action == "unmark":
                ledger.unmark_sent(key, payer=payer).result()
                del sendings[-1:]
            elif sendings:
                reserved = sendings.pop()
                fits = all(
                    (
                        cost.prompt_tokens <= reserved.prompt_tokens,
                        cost.completion_tokens <= reserved.completion_tokens,
                        cost.usd <= reserved.usd,
                    )
                )
                paid = cost if action == "put" and fits else None
                put(ledger, key, payer, paid)
                answered.add(key)
                bought[payer].append(paid or reserved)
            for account in ("run", "other"):
                spent = ledger.spent(account)
                for name, spending in spent.teachers.items():
                    who = Payer(account, name)
                    open_ = [c for (p, _), costs in doubts.items() if p == who for c in costs]
                    assert spending == Spending(
                        len(bought[who]), sum_of(bought[who]), len(open_), sum_of(open_)
                    )
                total = spent.total
                assert 0 <= total.requests <= 12
                assert 0 <= total.tokens <= 300
                assert 0 <= total.usd <= 4
                assert ledger.count_answers() == len(answered)


def test_many_processes_at_one_budget_never_pass_it(place: Place) -> None:
    code = """
        import sys
        from cuvee.recipe import Budget
        from cuvee.teach.ledger import Cost, Ledger, Payer
        most, budget, sent = Cost(50, 50, 0.01), Budget(tokens=10_000), 0
        payer = Payer("run", sys.argv[2])
        with Ledger.open(sys.argv[1]) as ledger:
            for number in range(100):
                key = f"{payer.teacher}-{number}"
                marked = ledger.mark_sent(key, payer=payer, reserved=most, budget=budget)
                if marked.result().over:
                    break
                sent += 1
                if number % 3 == 0:  # every third answer costs all that was reserved
                    ledger.put(key, request="{}", response="{}", status=200, seconds=1,
                               payer=payer, cost=most).result()
                elif number % 3 == 1:  # every third is refused
                    ledger.unmark_sent(key, payer=payer).result()
                assert ledger.spent("run").total.tokens <= 10_000
        print(sent)
        """
    children = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), str(place), str(number)],
            stdout=subprocess.PIPE,
        )
        for number in range(4)
    ]
    sent = [int(child.communicate()[0]) for child in children]
    assert [child.returncode for child in children] == [0] * 4
    with Ledger.open(place) as ledger:
        spent = ledger.spent("run")
    # Two thirds of all sendings stay counted, 100 tokens each; at the end not one more fits.
    assert spent.total.tokens == 10_000
    assert spent.total.requests == 100
    assert sum(sent) > 100 * 3 / 2 - 4 * 2
