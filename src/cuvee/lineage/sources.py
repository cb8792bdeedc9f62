"""What is known of a shelf's sources: revision, licence, and how many rows became problems.

The record that the stage `problems` wrote is read; where there is none (an older run, or the
stage is not done) the recipe says what was asked for, without resolved revisions and counts.
A licence that neither states is None: unknown, and never guessed.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from cuvee.errors import DataError
from cuvee.lineage.shelves import Shelf

UNKNOWN = "unknown"


@dataclasses.dataclass(frozen=True)
class SourceRecord:
    """One source of problems, as it was read."""

    source: str
    config: str | None
    split: str | None
    revision: str | None
    """Commit of a hub data set, `sha256:...` of a file; None of a generator, or unknown."""
    licence: str | None
    """None: unknown."""
    recorded: bool
    """Whether the stage `problems` recorded it; otherwise it is what the recipe asks for, and
    everything below is None."""
    rows: int | None = None
    """Rows read."""
    filtered: int | None = None
    """Of them, those that `where` left out."""
    problems: int | None = None
    dropped: Mapping[str, int] | None = None
    """Reason -> rows."""
    traces: Mapping[str, Any] | None = None
    """`teacher` and `n`: published traces that were taken."""


def revision_text(record: SourceRecord) -> str:
    """Return a source's revision in words: a generator has none, which is not `unknown`."""
    if record.revision is not None:
        return record.revision
    made = record.source.startswith(("generator:", "gym:"))
    return "none (generated)" if made else UNKNOWN


def read_sources(shelf: Shelf) -> list[SourceRecord]:
    """Return a shelf's sources in the recipe's order.

    Raises DataError naming the record's file where it cannot be read.
    """
    try:
        entries = json.loads(shelf.sources.read_text(encoding="utf-8"))
        return [_recorded(entry) for entry in entries]
    except FileNotFoundError:
        return [
            SourceRecord(s.source, s.config, s.split, s.revision, s.licence, recorded=False)
            for s in shelf.asked
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{shelf.sources}: not a record of sources ({error!r}); remove it and run "
            "`cuvee problems` again"
        ) from error


def of_source(records: Sequence[SourceRecord], source: str) -> list[SourceRecord]:
    """Return the records of one source: several where a recipe takes several parts of it."""
    return [record for record in records if record.source == source]


def _recorded(entry: Mapping[str, Any]) -> SourceRecord:
    names = {field.name for field in dataclasses.fields(SourceRecord)} - {"recorded"}
    return SourceRecord(**{name: entry[name] for name in sorted(names)}, recorded=True)
