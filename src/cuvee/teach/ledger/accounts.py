"""Who has spent what: reservations, and running totals that are kept with every change.

`Totals` lives within one transaction, so that a budget is checked and the reservation
written in one step, whatever other processes do. A sending is counted at its reservation
until it is known to be answered (then at its cost) or not billed (then not at all); one whose
fate stays unknown stays counted, because it may have been billed. What was bought only ever
grows: pruning answers gives no money back. Not here: answers and sendings themselves (`store`).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cuvee.teach.ledger.entries import (
    MOST_TOKENS,
    MOST_USD,
    NANO,
    Cost,
    Limit,
    Payer,
    Spending,
    Spent,
)
from cuvee.teach.ledger.stores import Connection

if TYPE_CHECKING:
    from cuvee.recipe import Budget

SUMS = (
    *("answers", "prompt_tokens", "completion_tokens", "nanodollars"),
    *("in_doubt", "reserved_prompt_tokens", "reserved_completion_tokens", "reserved_nanodollars"),
)
"""Columns of `totals`: what was bought, what is in doubt."""
NOTHING = (0, 0, 0, 0)
SAVE = (
    f"INSERT INTO totals (account, teacher, {', '.join(SUMS)}) "
    f"VALUES ({', '.join(f'?{number}' for number in range(1, len(SUMS) + 3))}) "
    "ON CONFLICT (account, teacher) DO UPDATE SET "
    f"{', '.join(f'{name} = excluded.{name}' for name in SUMS)}"
)


class Totals:
    """The running totals within one transaction: read once, changed here, saved at its end.

    Not to be used after the transaction it was made for.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rows: dict[str, dict[str, list[int]]] = {}
        self._changed: set[Payer] = set()

    def of(self, account: str) -> dict[str, list[int]]:
        """Return the sums (`SUMS`) of an account by teacher, as they stand now."""
        if account not in self._rows:
            self._rows[account] = read_totals(self._connection, account)
        return self._rows[account]

    def add(self, payer: Payer, changes: Sequence[int]) -> None:
        """Change the payer's sums."""
        teachers = self.of(payer.account)
        sums = teachers.get(payer.teacher, [0] * len(SUMS))
        teachers[payer.teacher] = [n + change for n, change in zip(sums, changes, strict=True)]
        self._changed.add(payer)

    def save(self) -> None:
        """Write what was changed."""
        rows = [
            (payer.account, payer.teacher, *self.of(payer.account)[payer.teacher])
            for payer in self._changed
        ]
        self._connection.executemany(SAVE, rows)


def check_cost(cost: Cost) -> Cost:
    """Return the cost of one request. Raises ValueError where it is beyond belief."""
    if max(cost.prompt_tokens, cost.completion_tokens) >= MOST_TOKENS or cost.usd >= MOST_USD:
        raise ValueError(
            f"one request costs less than {MOST_TOKENS} tokens and 1e6 dollars: {cost}"
        )
    return cost


def limit_passed(totals: Totals, account: str, cost: Cost, budget: "Budget | None") -> Limit | None:
    """Return the limit that one more sending of this cost would pass, or None."""
    if budget is None:
        return None
    spending = _spending(*_added_up(totals.of(account)))
    if budget.requests is not None and spending.requests + 1 > budget.requests:
        return "requests"
    if budget.tokens is not None and spending.tokens + cost.tokens > budget.tokens:
        return "tokens"
    nanodollars = spending.bought.nanodollars + spending.reserved.nanodollars + cost.nanodollars
    if budget.usd is not None and nanodollars > round(budget.usd * NANO):
        return "usd"
    return None


def reserve(totals: Totals, payer: Payer, cost: Cost) -> None:
    """Count a sending at `cost` until its fate is known."""
    totals.add(payer, (*NOTHING, 1, *columns(cost)))


def release(totals: Totals, payer: Payer, cost: Cost) -> None:
    """Count a sending no longer."""
    totals.add(payer, (*NOTHING, -1, *(-n for n in columns(cost))))


def charge(totals: Totals, payer: Payer, cost: Cost | None) -> None:
    """Count an answer that was bought; without a cost it counts as one answer alone."""
    totals.add(payer, (1, *(columns(cost) if cost else NOTHING[1:]), *NOTHING))


def read_totals(connection: Connection, account: str) -> dict[str, list[int]]:
    """Return the sums (`SUMS`) of an account by teacher, as they are stored; a few rows."""
    query = f"SELECT teacher, {', '.join(SUMS)} FROM totals WHERE account = ?1 ORDER BY teacher"
    return {teacher: sums for teacher, *sums in connection.execute(query, (account,))}


def as_spent(teachers: Mapping[str, Sequence[int]]) -> Spent:
    """Return sums by teacher as what an account has spent, in all and by teacher."""
    total = _spending(*_added_up(teachers))
    return Spent(total, {name: _spending(*sums) for name, sums in teachers.items()})


def columns(cost: Cost) -> tuple[int, int, int]:
    """Return a cost as it is stored: tokens, tokens, billionths of a dollar."""
    return cost.prompt_tokens, cost.completion_tokens, cost.nanodollars


def as_cost(prompt_tokens: int, completion_tokens: int, nanodollars: int) -> Cost:
    """Return a stored cost."""
    return Cost(prompt_tokens, completion_tokens, nanodollars / NANO)


def _added_up(teachers: Mapping[str, Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip([0] * len(SUMS), *teachers.values(), strict=True)]


def _spending(answers: int, *sums: int) -> Spending:
    return Spending(answers, as_cost(*sums[:3]), sums[3], as_cost(*sums[4:]))
