"""The rounds of a run for the report: what each brought, with the interval of its pass rate.

Records of rounds and their rows, a trace each, in; `RoundRow` by domain out. Not here: who was
asked again and why no more (`cuvee.rounds`).
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from cuvee.evaluate.statistics import wilson_interval
from cuvee.records import iter_values
from cuvee.rounds.record import Round, attempts_file, read_rounds, round_file
from cuvee.runfolder import Run


@dataclasses.dataclass(frozen=True)
class RightShare:
    """How often the answers of one round are right, over its problems; all in [0, 1]."""

    mean: float
    """Over problems of which an answer was checked: the share of their checked ones."""
    low: float
    high: float
    """The 95 % interval, problems as clusters (`wilson_interval`)."""


@dataclasses.dataclass(frozen=True)
class RoundRow:
    """One round in one domain."""

    round: Round
    expected: float | None
    """New examples that the round before expected of it; None for the first."""
    right: RightShare | None
    """None where nothing was checked."""


def round_files(run: Run, domain: str) -> Iterator[Path]:
    """Yield the files that `round_rows` may read: none without `rounds:`."""
    if run.recipe.rounds is not None:
        for number in run.rounds():
            yield from (round_file(run, domain, number), attempts_file(run, domain, number))


def round_rows(run: Run) -> dict[str, tuple[RoundRow, ...]]:
    """Return domain -> the rounds that were begun; empty without `rounds:`.

    Raises DataError naming the file where one is missing or breaks its contract.
    """
    if run.recipe.rounds is None:
        return {}
    return {domain: tuple(_rows(run, domain)) for domain in run.recipe.domains}


def _rows(run: Run, domain: str) -> Iterator[RoundRow]:
    expected = None
    for found in read_rounds(run, domain):
        yield RoundRow(found, expected, _right(attempts_file(run, domain, found.number)))
        expected = found.next_expected


def _right(path: Path) -> RightShare | None:
    import numpy as np

    counts: dict[str, tuple[int, int]] = {}
    for row in iter_values(path, ["problem_id", "checked", "right"]):
        if row["checked"]:
            right, checked = counts.get(row["problem_id"], (0, 0))
            counts[row["problem_id"]] = (right + row["right"], checked + 1)
    if not counts:
        return None
    shares = np.array([right / checked for right, checked in counts.values()])
    samples = sum(checked for _, checked in counts.values())
    return RightShare(float(shares.mean()), *wilson_interval(shares, samples=samples))
