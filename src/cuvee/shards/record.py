"""What an output shard knows of how it was made, in the Parquet file itself.

Written in the same act as the rows, so the two cannot disagree, and a shard without its record
is not whole: Parquet's metadata stands at a file's end. Settings, the input's size and mark,
counts by verdict and reason in and out. Not here: reading and writing the file
(`cuvee.shards.check`).
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

from cuvee.recipe import Verify
from cuvee.records import Verdict
from cuvee.verify.rows import Reading
from cuvee.verify.summary import Summary

KEY = "cuvee.verify"
"""The name of the record in the metadata of a Parquet file."""
_LONGEST_DETAIL = 100


@dataclasses.dataclass(frozen=True)
class How:
    """How rows are read and checked."""

    reading: Reading
    limits: Verify
    sandbox: str

    def settings(self) -> dict[str, Any]:
        """Return what may change a verdict, by the name of its flag."""
        limits = self.limits.model_dump(exclude={"processes"})
        return dataclasses.asdict(self.reading) | limits | {"sandbox": self.sandbox}


@dataclasses.dataclass(frozen=True)
class Record:
    """How an output shard, or a piece of one, was made, and what came of it."""

    settings: Mapping[str, Any]
    size: int
    """Bytes of the input."""
    mark: str
    """What tells the input's content from a later one (`cuvee.shards.store.mark_of`)."""
    groups: tuple[int, int] | None
    """The row groups of the input that were checked, [first, end); None: all."""
    versions: Mapping[str, str]
    """Of Python and the packages that may judge otherwise, where it was checked."""
    rows: int
    reasons: tuple[tuple[str, str, int, str, str], ...]
    """(verdict, reason, rows, trace id of the first of them, its detail)."""
    checkers: Mapping[str, int]

    def to_json(self) -> str:
        """Return the record as text of one line."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)


def read_record(text: bytes) -> Record:
    """Return the record of a text that `to_json` made. Raises ValueError for any other."""
    try:
        values = json.loads(text)
        values["reasons"] = tuple((v, r, int(n), i, d) for v, r, n, i, d in values["reasons"])
        values["groups"] = values["groups"] and tuple(values["groups"])
        return Record(**values)
    except (TypeError, KeyError) as error:
        raise ValueError(f"not a record of cuvee verify: {error}") from error


def counted(summary: Summary) -> tuple[tuple[str, str, int, str, str], ...]:
    """Return the reasons of a summary as a record holds them."""
    rows = []
    for (verdict, reason), number in summary.reasons.items():
        first = summary.first[verdict, reason]
        detail = (first.detail or "")[:_LONGEST_DETAIL]
        rows.append((verdict, reason, number, first.trace_id, detail))
    return tuple(rows)


def add(summary: Summary, record: Record, *, before: str = "") -> None:
    """Add what a record counts to a summary; `before` stands before the ids of first rows."""
    summary.checkers.update(record.checkers)
    for verdict, reason, number, trace_id, detail in record.reasons:
        key = (verdict, reason)
        summary.reasons[key] += number
        summary.first.setdefault(key, _first(before + trace_id, key, detail))


def _first(trace_id: str, key: tuple[str, str], detail: str) -> Verdict:
    """Return as much of a verdict as a table of the summary shows."""
    verdict: Any = key[0]
    return Verdict(trace_id, "", "", verdict, key[1], None, None, detail or None, "", 0.0)


def joined(records: Iterable[Record]) -> Record:
    """Return the record of a shard whose pieces have these, in order; at least one."""
    records = list(records)
    summary = Summary()
    for record in records:
        add(summary, record)
    return dataclasses.replace(
        records[0],
        groups=None,
        rows=sum(record.rows for record in records),
        reasons=counted(summary),
        checkers=dict(summary.checkers),
    )


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return what differs between the settings of a record and those of now, in words."""
    return [
        f"{name} {there.get(name)!r} there, {here.get(name)!r} now"
        for name in sorted({*there, *here})
        if there.get(name) != here.get(name)
    ]
