"""What a ledger holds, by teacher, model or run; and taking answers out of it.

`survey` counts, `count_chosen` and `prune` take a choice of answers, `shrink` gives freed
space back to the disk. All but `shrink` read an index, not the long texts. What an account
has spent does not go down when its answers go: the money is spent. Not here: single answers
(`store`), whether they are sound (`check`).
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from cuvee.recipe.address import Place
from cuvee.teach.ledger.entries import NANO
from cuvee.teach.ledger.stores import Connection, by_held, commit, one_state, opened

Grouping = Literal["teacher", "identity", "account"]
HELD = (
    "count(*), coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0), "
    "coalesce(sum(nanodollars), 0), count(*) - count(completion_tokens), min(created), "
    "max(created)"
)


@dataclasses.dataclass(frozen=True)
class Chosen:
    """Which answers are meant: those to which all that is given applies."""

    teacher: str | None = None
    identity: str | None = None
    """Of the model, as it stands in the request."""
    account: str | None = None
    """The run that bought it."""
    before: str | None = None
    """Bought before this time, written as the ledger does: `2026-01-31T12:00:00Z`."""

    def where(self) -> tuple[str, list[str]]:
        """Return an SQL condition on `answers`, and its values."""
        parts = {
            "teacher =": self.teacher,
            "identity =": self.identity,
            "account =": self.account,
            "created <": self.before,
        }
        given = {part: value for part, value in parts.items() if value is not None}
        conditions = [f"{part} ?{number}" for number, part in enumerate(given, start=1)]
        return " AND ".join(conditions) or "TRUE", list(given.values())


@dataclasses.dataclass(frozen=True)
class Group:
    """What the ledger holds of one teacher, model or run, or in all."""

    name: str
    answers: int
    prompt_tokens: int
    """Of the answers that the server counted, as `completion_tokens`."""
    completion_tokens: int
    usd: float
    """What those answers cost when they were bought."""
    uncounted: int
    """Answers for which the server did not count."""
    first: str | None
    """When the first was bought; None without answers."""
    last: str | None
    in_doubt: int | None = None
    """Sendings whose fate is unknown; None for a model, of which a sending says nothing."""
    spent_usd: float | None = None
    """All that was ever bought, pruned answers too, and what is in doubt; None for a model."""


def survey(place: Place, by: Grouping) -> list[Group]:
    """Return what a ledger holds, group by group, in the order of their names.

    Raises DataError, OSError where it cannot be read.
    """
    with opened(place, writing=False) as connection, one_state(connection):
        held = connection.execute(f"SELECT {by}, {HELD} FROM answers GROUP BY 1").fetchall()
        doubts: dict[str, tuple[int, int]] = {}
        if by != "identity":
            doubts = {name: (n, nano) for name, n, nano in connection.execute(_doubts_by(by))}
    groups = {row[0]: _group(row) for row in held}
    for name, (in_doubt, nanodollars) in doubts.items():
        group = groups.get(name) or Group(name, 0, 0, 0, 0.0, 0, None, None)
        spent = nanodollars / NANO
        groups[name] = dataclasses.replace(group, in_doubt=in_doubt, spent_usd=spent)
    return [groups[name] for name in sorted(groups)]


def count_chosen(place: Place, chosen: Chosen) -> Group:
    """Return what the chosen answers are in all. Raises as `survey`."""
    condition, values = chosen.where()
    with opened(place, writing=False) as connection:
        row = connection.execute(f"SELECT 'chosen', {HELD} FROM answers WHERE {condition}", values)
        return _group(*row.fetchall())


def prune(place: Place, chosen: Chosen) -> int:
    """Remove the chosen answers, all or none; return how many. Raises as `survey`."""
    condition, values = chosen.where()

    def write(connection: Connection) -> int:
        # The index finds them: the long texts of the others are not read.
        query = (
            "DELETE FROM answers WHERE key IN "
            f"(SELECT key FROM answers {by_held(connection)} WHERE {condition})"
        )
        return connection.execute(query, values).rowcount

    with opened(place, writing=True) as connection:
        return commit(connection, write)


def shrink(path: Path) -> int:
    """Rewrite a ledger's file without its free space; return how many bytes that gave back.

    It takes as much free space as the ledger will have, while it runs. A server does this by
    itself. Raises OSError (disk full) and DataError (locked by another process); the ledger is
    whole all the same.
    """
    before = path.stat().st_size
    with opened(path, writing=True) as connection:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return max(before - path.stat().st_size, 0)


def _doubts_by(by: Grouping) -> str:
    spent = "sum(nanodollars) + sum(reserved_nanodollars)"
    return f"SELECT {by}, sum(in_doubt), {spent} FROM totals GROUP BY 1"


def _group(row: tuple[Any, ...]) -> Group:
    name, answers, prompt_tokens, completion_tokens, nanodollars, *rest = row
    return Group(name, answers, prompt_tokens, completion_tokens, nanodollars / NANO, *rest)
