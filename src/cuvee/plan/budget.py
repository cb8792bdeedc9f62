"""Whether `budget:` is enough for asking teachers, and where it would stop them.

Rows of teach, verify and select in; a sentence for each limit out. Teachers behind a URL are
asked side by side, so where it stops is said by the share of the asking, and by the row in the
recipe's order.
"""

from collections.abc import Sequence

from cuvee.plan.figures import Figure, total
from cuvee.plan.rows import Budgeted, Row
from cuvee.plan.wording import count, ranged, usd
from cuvee.recipe import Recipe


def budgeted(recipe: Recipe, rows: Sequence[Row]) -> tuple[Budgeted, ...]:
    """Return a sentence for each limit of the recipe's budget."""
    asked = [row for row in rows if row.stage in ("teach", "verify", "select")]
    limits: dict[str, float | None] = recipe.budget.model_dump()
    return tuple(_limit(name, most, asked) for name, most in limits.items() if most is not None)


def _limit(name: str, most: float, rows: Sequence[Row]) -> Budgeted:
    parts = [_part(row, name) for row in rows]
    needed, say = total(parts), usd if name == "usd" else count
    asked = f"budget.{name} {say(most)}"
    if needed is None:
        return Budgeted(name, most, None, f"{asked}: whether it is enough is unknown")
    if needed.high <= most:
        words = f"{asked} is enough: {ranged(needed, say)} needed"
    elif needed.value <= most:
        words = f"{asked} is probably enough: {ranged(needed, say)} needed"
    else:
        words = (
            f"{asked} is not enough, {ranged(needed, say)} needed: it stops at about "
            f"{most / needed.value:.0%} of the asking, in {_where(rows, parts, most)}"
        )
    return Budgeted(name, most, needed, words)


def not_enough(limit: Budgeted) -> bool:
    """Say whether a limit stops the asking before its end, as far as is known."""
    return limit.needed is not None and limit.needed.value > limit.most


def _part(row: Row, name: str) -> Figure | None:
    if name == "usd":
        return row.usd
    if name == "requests":
        return row.requests
    return total([row.prompt_tokens, row.answer_tokens])


def _where(rows: Sequence[Row], parts: Sequence[Figure | None], most: float) -> str:
    so_far = 0.0
    for row, part in zip(rows, parts, strict=True):
        so_far += part.value if part is not None else 0.0
        if so_far > most:
            return f"{row.stage}/{row.name}"
    return f"{rows[-1].stage}/{rows[-1].name}"
