"""Verdicts of `cuvee verify FILE` on their way out: written to a file, counted for a table.

Verdict rows in; a JSONL or Parquet file that appears complete or not at all, and a table by
verdict and reason. Both take rows as they come, so there may be any number.
"""

import contextlib
import dataclasses
import gzip
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from rich.table import Table
from rich.text import Text

from cuvee.atomic import replacing
from cuvee.errors import RecipeError
from cuvee.progress import printable
from cuvee.records import Verdict, write_rows

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
ORDER = ("correct", "wrong", "no_answer", "not_checked")
_LONGEST_DETAIL = 100


@dataclasses.dataclass
class Summary:
    """What the verdicts were, so far."""

    reasons: Counter[tuple[str, str]] = dataclasses.field(default_factory=Counter)
    """(verdict, reason) -> rows."""
    checkers: Counter[str] = dataclasses.field(default_factory=Counter)
    first: dict[tuple[str, str], Verdict] = dataclasses.field(default_factory=dict)
    """The first row of each (verdict, reason)."""

    def counting(self, verdicts: Iterable[Verdict]) -> Iterator[Verdict]:
        """Yield the verdicts, counting each."""
        for verdict in verdicts:
            key = (str(verdict.verdict), verdict.reason)
            self.reasons[key] += 1
            self.checkers[verdict.checker] += 1
            self.first.setdefault(key, verdict)
            yield verdict


def check_out(path: Path) -> None:
    """Refuse a file to write whose form is not known. Raises RecipeError."""
    if not path.name.lower().endswith(SUFFIXES):
        raise RecipeError(f"--out {path}: a file ending in {', '.join(SUFFIXES)} is allowed")


def write_verdicts(path: Path, verdicts: Iterable[Verdict]) -> int:
    """Write verdicts to a file of the form its name says, atomically; return how many.

    Raises RecipeError for another form, OSError (disk full, no permission) with the path.
    """
    check_out(path)
    if path.name.lower().endswith(".parquet"):
        return write_rows(path, verdicts, Verdict)
    written = 0
    with replacing(path) as temporary, _opened(temporary, path) as file:
        for verdict in verdicts:
            line = json.dumps(dataclasses.asdict(verdict), ensure_ascii=False) + "\n"
            file.write(line.encode("utf-8", "replace"))  # lone surrogates are no UTF-8
            written += 1
    return written


@contextlib.contextmanager
def _opened(temporary: Path, path: Path) -> Iterator[gzip.GzipFile | IO[bytes]]:
    with temporary.open("wb") as file:
        if path.suffix.lower() != ".gz":
            yield file
            return
        with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
            yield packed


def summary_table(summary: Summary) -> Table:
    """Return the table: rows by verdict and reason, with the first row of each."""
    table = Table(box=None, pad_edge=False, expand=True)
    for number, name in enumerate(("verdict", "reason")):
        longest = max((len(key[number]) for key in summary.reasons), default=0)
        table.add_column(name, no_wrap=True, min_width=longest)
    for name in ("rows", "share"):
        table.add_column(name, justify="right", no_wrap=True, min_width=6)
    table.add_column("first row", overflow="ellipsis", no_wrap=True, ratio=1)
    total = summary.reasons.total()
    ordered = sorted(summary.reasons.items(), key=lambda item: (ORDER.index(item[0][0]), -item[1]))
    for (verdict, reason), rows in ordered:
        first = summary.first[verdict, reason]
        detail = (first.detail or "").replace("\n", " ")[:_LONGEST_DETAIL]
        shown = f"{first.trace_id}: {detail}" if detail else first.trace_id
        # Text, as ids and details may hold what rich takes for markup.
        first_row = Text(printable(shown))
        table.add_row(verdict, reason, str(rows), f"{rows / total:.1%}", first_row)
    return table
