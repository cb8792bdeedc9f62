"""All sources of a task read into scratch files, and what each of them gave as a record.

In: the recipe's sources. Out: `Scratch`: the problems as rows, what was dropped and the
published traces put aside, and one `record` a source for `01_problems/sources/`. Rows are
written as they are read, so a source may be of any size.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cuvee.atomic import write_text
from cuvee.problems import spool
from cuvee.problems.files import is_file
from cuvee.problems.forms import licence_of
from cuvee.problems.items import Answered
from cuvee.problems.sources import Asked, Found, Opened, open_source
from cuvee.recipe import Source
from cuvee.records import Dropped, Problem, Trace, content_hash, iter_rows, write_rows

GENERATED = ("generator:", "gym:")


@dataclasses.dataclass(frozen=True)
class Scratch:
    """What was read, on disk."""

    folder: Path
    count: int
    """Problems read."""
    records: list[dict[str, Any]]
    """One a source, as JSON."""
    reasons: Counter[str]
    """Of the rows dropped in reading."""

    @property
    def path(self) -> Path:
        """Return the file of the problems."""
        return self.folder / "problems.parquet"

    @property
    def filtered(self) -> int:
        """Return how many rows `where` left out."""
        return sum(record["filtered"] for record in self.records)

    def problems(self) -> Iterator[Problem]:
        """Yield the problems, in the order of the sources."""
        return iter_rows(self.path, Problem)

    def dropped(self) -> Iterator[Dropped]:
        """Yield the rows dropped in reading."""
        return spool.taken(self.folder / "dropped", Dropped)

    def traces(self) -> Iterator[Trace]:
        """Yield the published traces; of one problem and teacher they are numbered from 0."""
        return spool.taken(self.folder / "traces", Trace)


def load_all(
    sources: Sequence[Source], asked: Asked, *, limit: int | None, folder: Path
) -> Scratch:
    """Read all sources into files of `folder`; `limit` is shared out evenly among them.

    Raises as `open_source` does.
    """
    records: list[dict[str, Any]] = []
    reasons: Counter[str] = Counter()
    with (
        spool.putting(folder / "dropped", Dropped) as drop,
        spool.putting(folder / "traces", Trace) as keep_trace,
    ):

        def problems() -> Iterator[Problem]:
            for number, source in enumerate(sources):
                share = None if limit is None else _share(limit, len(sources), number)
                if share == 0:
                    continue
                opened = open_source(source, asked, limit=share)
                tally = _Tally()
                yield from _read(opened, source, tally, drop=drop, keep_trace=keep_trace)
                records.append(_record(source, opened.revision, tally))
                reasons.update(tally.dropped)

        count = write_rows(folder / "problems.parquet", problems(), Problem)
    return Scratch(folder, count, records, reasons)


def _share(limit: int, parts: int, number: int) -> int:
    """Return how much of `limit` part `number` gets; the first ones get what is left over."""
    return limit // parts + (number < limit % parts)


@dataclasses.dataclass
class _Tally:
    """What one source has given so far."""

    rows: int = 0
    filtered: int = 0
    problems: int = 0
    traces: int = 0
    empty: int = 0
    later_turns: int = 0
    dropped: Counter[str] = dataclasses.field(default_factory=Counter)


def _read(
    opened: Opened,
    source: Source,
    tally: _Tally,
    *,
    drop: Callable[[Dropped], None],
    keep_trace: Callable[[Trace], None],
) -> Iterator[Problem]:
    """Yield a source's problems; count everything."""
    for outcome in opened.outcomes:
        tally.rows += 1
        if outcome is None:
            tally.filtered += 1
        elif isinstance(outcome, Dropped):
            tally.dropped[outcome.reason] += 1
            drop(outcome)
        else:
            tally.problems += 1
            tally.later_turns += outcome.later_turns
            for trace in _traces(outcome, source.traces, tally):
                keep_trace(trace)
            yield outcome.problem


def _traces(found: Found, teacher: str | None, tally: _Tally) -> Iterator[Trace]:
    if teacher is None:
        return
    for sample, answered in enumerate(found.answers):
        if answered.reasoning or answered.answer:
            tally.traces += 1
            yield published_trace(found.problem, answered, teacher=teacher, sample=sample)
        else:
            tally.empty += 1


def published_trace(problem: Problem, answered: Answered, *, teacher: str, sample: int) -> Trace:
    """Return a published answer as a trace: it was never asked for, and nobody counted it."""
    return Trace(
        id=content_hash("published", teacher, problem.id, sample),
        problem_id=problem.id,
        domain=problem.domain,
        model=teacher,
        sample=sample,
        reasoning=answered.reasoning,
        answer=answered.answer,
        finish_reason=answered.finish_reason,
        prompt_tokens=None,
        completion_tokens=None,
        seconds=0.0,
        request="",
        fingerprint=None,
        error=None,
    )


def _record(source: Source, revision: str | None, tally: _Tally) -> dict[str, Any]:
    without = source.source.startswith(GENERATED) or is_file(source.source) or source.files
    return {
        "source": source.source,
        "config": source.config,
        "split": None if without else source.split,
        "revision": revision,
        "licence": source.licence or licence_of(source.source),
        "rows": tally.rows,
        "filtered": tally.filtered,
        "problems": tally.problems,
        "dropped": dict(sorted(tally.dropped.items())),
        "later_turns": tally.later_turns,
        "traces": None
        if source.traces is None
        else {"teacher": source.traces, "n": tally.traces, "empty": tally.empty},
    }


def write_records(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Write the sources record, atomically."""
    write_text(path, json.dumps(records, indent=1, ensure_ascii=False) + "\n")
