"""The cost table: what each teacher has answered and what it has cost the run, live.

In: a meter for each teacher, and what the ledger says of the run's account. Out: a table for
a terminal, lines for anything else. Tokens, money and share of the budget are the run's, of
all its calls so far; answers, what is in flight and errors are this call's. Not here: when
it is shown (`cuvee.teach.stage`), the budget itself (`cuvee.teach.ledger`).
"""

import contextlib
import dataclasses
from collections.abc import Callable
from types import MappingProxyType

from rich.table import Table

from cuvee.errors import CuveeError
from cuvee.progress import Meter
from cuvee.recipe import Budget
from cuvee.teach.ledger import Cost, Spending, Spent

NOTHING = Spending(0, Cost(0, 0, 0.0), 0, Cost(0, 0, 0.0))
NOTHING_YET = Spent(NOTHING, MappingProxyType({}))
HEADINGS = ("teacher", "answers", "ledger", "flying", "tokens in", "out", "usd", "budget", "errors")
ALL = "all"


@dataclasses.dataclass
class Costs:
    """What the table is made of."""

    spent: Callable[[], Spent]
    budget: Budget
    meters: dict[str, list[Meter]]
    """By teacher, in the order of the table: one for each domain that was begun."""
    last: Spent = NOTHING_YET

    def meter(self, teacher: str) -> Meter:
        """Return a new meter, which counts for a teacher. Several threads may ask for one."""
        meter = Meter()
        self.meters[teacher].append(meter)
        return meter


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table."""

    teacher: str
    total: int
    answers: int
    from_ledger: int
    in_flight: int
    failed: int
    spending: Spending
    share: float | None
    """Of the budget, what is in flight included: the largest over its limits; None without."""
    limit: str
    """The limit that is meant."""


def rows(costs: Costs) -> list[Row]:
    """Return a row for each teacher that was asked, and one for all where there are several.

    A ledger that cannot be read leaves the costs as they were: who asks will say it.
    """
    with contextlib.suppress(CuveeError, OSError):
        costs.last = costs.spent()
    spent = costs.last
    found = [
        _row(name, heard, spent.teachers.get(name, NOTHING), costs.budget)
        for name, heard in costs.meters.items()
        if heard
    ]
    if len(found) > 1 or set(spent.teachers) - {row.teacher for row in found}:
        everyone = [meter for heard in costs.meters.values() for meter in heard]
        found.append(_row(ALL, everyone, spent.total, costs.budget))
    return found


def table(costs: Costs) -> Table:
    """Return the table for a terminal."""
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in HEADINGS:
        drawn.add_column(heading, justify="left" if heading == "teacher" else "right")
    for row in rows(costs):
        bought = row.spending.bought
        drawn.add_row(
            row.teacher,
            f"{row.answers:,}/{row.total:,}",
            f"{row.from_ledger:,}",
            f"{row.in_flight:,}",
            _short(bought.prompt_tokens),
            _short(bought.completion_tokens),
            _usd(bought.usd),
            "-" if row.share is None else f"{row.share:.0%} {row.limit}",
            f"{row.failed:,}",
        )
    return drawn


def lines(costs: Costs) -> list[str]:
    """Return the table as plain lines."""
    return [_line(row) for row in rows(costs)]


def _row(teacher: str, heard: list[Meter], spending: Spending, budget: Budget) -> Row:
    limits: dict[str, float | None] = budget.model_dump()
    shares = [(getattr(spending, name) / most, name) for name, most in limits.items() if most]
    share, limit = max(shares, default=(None, ""))
    return Row(
        teacher=teacher,
        total=sum(meter.total for meter in heard),
        answers=sum(meter.answers for meter in heard),
        from_ledger=sum(meter.from_ledger for meter in heard),
        in_flight=sum(meter.in_flight for meter in heard),
        failed=sum(meter.failed for meter in heard),
        spending=spending,
        share=share,
        limit=limit,
    )


def _line(row: Row) -> str:
    bought = row.spending.bought
    parts = [
        f"{row.teacher}: {row.answers}/{row.total} answers ({row.from_ledger} from the ledger)",
        f"{row.in_flight} in flight",
        f"{_short(bought.tokens)} tokens",
        _usd(bought.usd),
        "" if row.share is None else f"{row.share:.0%} of budget.{row.limit}",
        f"{row.failed} errors",
    ]
    return ", ".join(part for part in parts if part)


def _short(count: int) -> str:
    """Return a count in at most five characters: 999, 12.3k, 4.56M."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)


def _usd(usd: float) -> str:
    return f"${usd:,.2f}" if usd >= 1 or usd == 0 else f"${usd:.4f}"
