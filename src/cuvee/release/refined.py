"""What refining came to, domain by domain: rows of `04_examples/refined` in, counts out.

Only short columns are read. Not here: what must hold (`cuvee.select.refine`), and how it is
shown (the report).
"""

import dataclasses
import json
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cuvee.errors import DataError
from cuvee.lineage.shelves import domain_shelf
from cuvee.records import iter_values
from cuvee.runfolder import Run

COLUMNS = ["id", "way", "accepted", "reason", "tokens_before", "tokens", "applied"]


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Tokens of some examples before and after, in the same order; at least one of each."""

    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def sums(self) -> tuple[int, int]:
        """Return the tokens of all, before and after."""
        return sum(self.before), sum(self.after)

    @property
    def medians(self) -> tuple[float, float]:
        """Return the median of the tokens, before and after."""
        return statistics.median(self.before), statistics.median(self.after)

    @property
    def shares(self) -> list[int]:
        """Return how much of each was left, in whole percent."""
        pairs = zip(self.before, self.after, strict=True)
        return [round(100 * after / before) for before, after in pairs if before]


@dataclasses.dataclass(frozen=True)
class WayCount:
    """What one way of refining (`rules`, `teacher`) came to."""

    way: str
    tried: int
    accepted: int
    stayed: Mapping[str, int]
    """Why the text before stayed -> examples, the most frequent first."""
    lengths: Lengths | None
    """Of what was accepted; None where nothing was."""
    applied: Mapping[str, int]
    """Rule -> pieces it left out of what was accepted."""


@dataclasses.dataclass(frozen=True)
class RefinedCount:
    """What refining one domain came to."""

    domain: str
    teacher: str | None
    """Who refined, besides the rules or alone."""
    least_share: float
    """Of the tokens that must be left, in (0, 1]."""
    changed: int
    """Examples that at least one way changed."""
    lengths: Lengths | None
    """Of all examples, changed or not; None where there are none."""
    ways: tuple[WayCount, ...]
    """In the order they were tried."""


def count_refined(run: Run) -> Iterator[RefinedCount]:
    """Yield the counts of each domain that is refined, in the recipe's order.

    Raises DataError naming the file where one is missing or breaks its contract.
    """
    for name, domain in run.recipe.domains.items():
        path = domain_shelf(run, name).refined
        if path is not None and domain.refine is not None:
            rows = list(iter_values(path, COLUMNS))
            by_way: dict[str, list[Mapping[str, Any]]] = {}
            for row in rows:
                by_way.setdefault(row["way"], []).append(row)
            try:
                ways = tuple(_way(way, found) for way, found in by_way.items())
            except (ValueError, TypeError) as error:
                raise DataError(f"{path}: `applied` is no JSON of counts ({error})") from error
            yield RefinedCount(
                domain=name,
                teacher=domain.refine.teacher,
                least_share=domain.refine.least_share,
                changed=len({row["id"] for row in rows if row["accepted"]}),
                lengths=_whole(rows),
                ways=ways,
            )


def _whole(rows: Sequence[Mapping[str, Any]]) -> Lengths | None:
    """Return the tokens of each example before the first way and after the last accepted one."""
    before: dict[str, int] = {}
    after: dict[str, int] = {}
    for row in rows:
        before.setdefault(row["id"], row["tokens_before"])
        after.setdefault(row["id"], row["tokens_before"])
        if row["accepted"]:
            after[row["id"]] = row["tokens"]
    return Lengths(tuple(before.values()), tuple(after.values())) if before else None


def _way(way: str, rows: Sequence[Mapping[str, Any]]) -> WayCount:
    accepted = [row for row in rows if row["accepted"]]
    stayed = Counter(row["reason"] for row in rows if not row["accepted"])
    applied: Counter[str] = Counter()
    for row in accepted:
        applied.update(dict(json.loads(row["applied"])))
    lengths = Lengths(
        tuple(row["tokens_before"] for row in accepted), tuple(row["tokens"] for row in accepted)
    )
    return WayCount(
        way=way,
        tried=len(rows),
        accepted=len(accepted),
        stayed=dict(stayed.most_common()),
        lengths=lengths if accepted else None,
        applied=dict(applied.most_common()),
    )
