"""The funnel of a domain: how many traces each filter took, from whom, and what was chosen.

Counts in, one JSON file out (`04_examples/funnel/DOMAIN.json`) and a small table for a
terminal; the report and the data card read the file. Not here: why one trace was dropped
(`04_examples/dropped`).
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from cuvee.atomic import write_text
from cuvee.errors import DataError
from cuvee.records import Dropped
from cuvee.runfolder import Run
from cuvee.select.difficulty import BANDS, UNKNOWN, Tally
from cuvee.select.objection import FILTERS
from cuvee.select.sift import Asked
from cuvee.select.vote import Vote


@dataclasses.dataclass(frozen=True)
class Step:
    """What one reason of one filter took."""

    filter: str
    reason: str
    dropped: int
    left: int
    """Traces left after it, of all teachers."""
    by_teacher: Mapping[str, int]
    """Teacher -> dropped; teachers who lost none are left out."""


@dataclasses.dataclass(frozen=True)
class Shares:
    """What came of one teacher, source or band of difficulty."""

    traces: int
    fit: int
    """Traces that passed all filters."""
    chosen: int
    """Traces that became examples."""
    problems: int
    """Problems with a trace."""
    problems_chosen: int
    """Problems with an example."""


@dataclasses.dataclass(frozen=True)
class Funnel:
    """What became of all traces of a domain."""

    domain: str
    total: Shares
    steps: tuple[Step, ...]
    """In the order of application; reasons that took nothing are left out."""
    teachers: Mapping[str, Shares]
    sources: Mapping[str, Shares]
    difficulty: Mapping[str, Shares]
    """Every band, the easiest first, and `unknown` last: of problems nothing was checked of."""
    votes: Mapping[str, int]
    """How the votes on problems without gold ended -> problems."""


@dataclasses.dataclass(frozen=True)
class Fate:
    """What became of one trace."""

    problem_id: str
    teacher: str
    fit: bool
    chosen: bool


def funnel_file(run: Run, domain: str) -> Path:
    """Return the file of a domain's funnel."""
    return run.folder("select") / "funnel" / f"{domain}.json"


def count_funnel(
    domain: str,
    fates: Sequence[Fate],
    dropped: Iterable[Dropped],
    *,
    problems: Mapping[str, Asked],
    tallies: Mapping[str, Tally],
    votes: Iterable[Vote],
) -> Funnel:
    """Return the funnel of a domain: `fates` of all its traces, `dropped` of those not chosen."""
    by_band = _grouped(fates, lambda fate: tallies[fate.problem_id].band)
    nothing = Shares(0, 0, 0, 0, 0)
    return Funnel(
        domain=domain,
        total=_shares(fates),
        steps=_steps(dropped, len(fates)),
        teachers=_grouped(fates, lambda fate: fate.teacher),
        sources=_grouped(fates, lambda fate: problems[fate.problem_id].source),
        difficulty={band: by_band.get(band, nothing) for band in (*BANDS, UNKNOWN)},
        votes=dict(sorted(Counter(vote.outcome for vote in votes).items())),
    )


def _grouped(fates: Iterable[Fate], name: Callable[[Fate], str]) -> dict[str, Shares]:
    groups: dict[str, list[Fate]] = {}
    for fate in fates:
        groups.setdefault(name(fate), []).append(fate)
    return {key: _shares(groups[key]) for key in sorted(groups)}


def _shares(fates: Sequence[Fate]) -> Shares:
    return Shares(
        traces=len(fates),
        fit=sum(fate.fit for fate in fates),
        chosen=sum(fate.chosen for fate in fates),
        problems=len({fate.problem_id for fate in fates}),
        problems_chosen=len({fate.problem_id for fate in fates if fate.chosen}),
    )


def _steps(dropped: Iterable[Dropped], traces: int) -> tuple[Step, ...]:
    counts = Counter((row.reason, row.model or "") for row in dropped)
    steps: list[Step] = []
    for name, reasons in FILTERS.items():
        for reason in reasons:
            by_teacher = {who: n for (why, who), n in sorted(counts.items()) if why == reason}
            if took := sum(by_teacher.values()):
                traces -= took
                steps.append(Step(name, reason, took, traces, by_teacher))
    return tuple(steps)


def write_funnel(path: Path, funnel: Funnel) -> None:
    """Write a funnel as JSON, one key a field. Raises OSError with the path in it."""
    text = json.dumps(dataclasses.asdict(funnel), indent=1, ensure_ascii=False)
    write_text(path, text + "\n")


def read_funnel(path: Path) -> Funnel:
    """Read what `write_funnel` wrote. Raises DataError naming the file where it is not that."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        groups = {name: _read_shares(data[name]) for name in ("teachers", "sources", "difficulty")}
        return Funnel(
            domain=data["domain"],
            total=Shares(**data["total"]),
            steps=tuple(Step(**step) for step in data["steps"]),
            votes=data["votes"],
            **groups,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a readable funnel ({error}); select again") from error


def _read_shares(groups: Mapping[str, Any]) -> dict[str, Shares]:
    return {name: Shares(**shares) for name, shares in groups.items()}


def funnel_table(funnel: Funnel) -> Table:
    """Return the funnel as a table for a terminal: filters down, teachers across."""
    table = Table(title=f"select {funnel.domain}", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("")
    for name in ("all", *funnel.teachers):
        table.add_column(Text(name), justify="right")
    shares = (funnel.total, *funnel.teachers.values())
    table.add_row("traces", *(f"{share.traces:,}" for share in shares))
    for step in funnel.steps:
        lost = (step.by_teacher.get(teacher, 0) for teacher in funnel.teachers)
        table.add_row(step.reason, f"-{step.dropped:,}", *(f"-{n:,}" if n else "" for n in lost))
    table.add_row("examples", *(f"{share.chosen:,}" for share in shares), style="bold")
    return table
