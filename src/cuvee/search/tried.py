"""What was tried: scored candidates in, rows with differences to the recipe's own merge out.

Each is compared with the recipe's own on the same problems, of all domains together and of
each. Many are tried and the best is looked at, so p-values are also corrected for their
number: Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian
Journal of Statistics 6, 65-70. Asks nothing.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cuvee.atomic import replacing, write_text
from cuvee.evaluate.statistics import Outcomes, has_headline, paired_difference, pass_at_1
from cuvee.evaluate.table import outcomes
from cuvee.records import Verdict, dumps, read_rows
from cuvee.search.candidates import label_of
from cuvee.search.trial import DONE

LEVEL = 0.05


@dataclasses.dataclass(frozen=True)
class Result:
    """Right answers of one candidate on some problems, and against the recipe's own merge."""

    mean: float | None
    """In [0, 1]; None where over 1 % of the answers could not be checked."""
    low: float
    """Ends of the 95 % interval."""
    high: float
    n_problems: int
    n_samples: int
    difference: float | None = None
    """Mean minus that of the recipe's own, in [-1, 1]; None of itself, and without a mean."""
    difference_low: float | None = None
    difference_high: float | None = None
    p_value: float | None = None
    """Of no difference, two-sided, as if this one alone had been tried."""
    problems_needed: int | None = None
    """At which such a difference would be told from none; see `power.problems_needed`."""


@dataclasses.dataclass(frozen=True)
class Tried:
    """One candidate that was scored."""

    name: str
    section: Mapping[str, Any]
    """Its `merge:`."""
    own: bool
    """Whether it is the recipe's."""
    overall: Result
    """Of all domains' problems together, each of which counts the same."""
    domains: Mapping[str, Result]
    p_corrected: float | None
    """The overall p-value, corrected by Holm for all candidates that were compared."""
    seconds: float
    """Of merging, exporting, asking and checking, in the session that finished it."""

    @property
    def label(self) -> str:
        """Return its settings in a line."""
        return label_of(self.section)

    @property
    def stands_out(self) -> bool:
        """Return whether it differs from the recipe's own, corrected for the number of tries."""
        return self.p_corrected is not None and self.p_corrected < LEVEL and not self.undecided

    @property
    def undecided(self) -> bool:
        """Return whether the interval of its difference contains 0."""
        low, high = self.overall.difference_low, self.overall.difference_high
        return low is None or high is None or low <= 0 <= high


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in the same order: [n] in [0, 1] -> same.

    The k-th smallest of n is multiplied by n - k + 1, and none is smaller than one before it.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected, least = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = least
    return corrected


def read_tried(scored: Path, *, own: str, domains: Sequence[str]) -> list[Tried]:
    """Return every candidate scored under the same conditions, the best first.

    `own` is the name of the recipe's own, which must be there. Those without a mean come last;
    of equals the recipe's own comes first. Raises DataError for files that cannot be read.
    """
    names = sorted(file.parent.name for file in scored.glob(f"*/{DONE}"))
    verdicts = {name: {domain: _verdicts(scored / name / domain) for domain in domains}
                for name in names}  # fmt: skip
    rows = [
        _tried(scored / name, verdicts[name], None if name == own else verdicts[own])
        for name in names
    ]
    compared = [row for row in rows if row.overall.p_value is not None]
    corrected = holm([row.overall.p_value for row in compared if row.overall.p_value is not None])
    by_name = {row.name: p for row, p in zip(compared, corrected, strict=True)}
    rows = [dataclasses.replace(row, p_corrected=by_name.get(row.name)) for row in rows]
    return sorted(rows, key=_rank)


def _rank(row: Tried) -> tuple[bool, float, bool, str]:
    mean = row.overall.mean
    return mean is None, -(mean or 0.0), not row.own, row.name


def _verdicts(folder: Path) -> Outcomes:
    return outcomes(read_rows(folder / "verdicts.parquet", Verdict))


def _tried(
    folder: Path, found: Mapping[str, Outcomes], own: Mapping[str, Outcomes] | None
) -> Tried:
    said = json.loads((folder / DONE).read_text(encoding="utf-8"))
    pairs = {domain: (found[domain], own[domain] if own else None) for domain in found}
    return Tried(
        name=folder.name,
        section=said["merge"],
        own=own is None,
        overall=_result(_together(found), _together(own) if own else None),
        domains={domain: _result(*pair) for domain, pair in pairs.items()},
        p_corrected=None,
        seconds=said["seconds"],
    )


def _together(found: Mapping[str, Outcomes]) -> Outcomes:
    """Return the outcomes of all domains as one; a problem may stand in two of them."""
    return {f"{domain}/{key}": v for domain, held in found.items() for key, v in held.items()}


def _result(found: Outcomes, own: Outcomes | None) -> Result:
    estimate = pass_at_1(found)
    result = Result(
        mean=estimate.mean,
        low=estimate.low,
        high=estimate.high,
        n_problems=estimate.n_problems,
        n_samples=estimate.n_samples,
    )
    if own is None or not (has_headline(found) and has_headline(own)):
        return result
    against = paired_difference(found, own)
    return dataclasses.replace(
        result,
        difference=against.difference,
        difference_low=against.low,
        difference_high=against.high,
        p_value=against.p_value,
        problems_needed=against.problems_needed,
    )


def as_json(row: Tried) -> dict[str, Any]:
    """Return a row as JSON values."""
    return {
        "name": row.name,
        "recipes_own": row.own,
        "merge": dict(row.section),
        "overall": dataclasses.asdict(row.overall) | {"p_corrected": row.p_corrected},
        "domains": {domain: dataclasses.asdict(found) for domain, found in row.domains.items()},
        "seconds": row.seconds,
    }


def write_tried(folder: Path, rows: Sequence[Tried], *, said: Mapping[str, Any]) -> None:
    """Write `tried.parquet` and `tried.yaml`; `said` stands above the rows of the latter."""
    _write_parquet(folder / "tried.parquet", rows)
    data = {**said, "tried": [as_json(row) for row in rows]}
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)
    write_text(folder / "tried.yaml", text)


def _write_parquet(path: Path, rows: Sequence[Tried]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = {field.name: field.type for field in dataclasses.fields(Result)}
    columns = {
        "name": pa.string(),
        "label": pa.string(),
        "recipes_own": pa.bool_(),
        "merge": pa.string(),
        **{name: pa.int64() if name in WHOLE else pa.float64() for name in numbers},
        "p_corrected": pa.float64(),
        "domains": pa.string(),
        "seconds": pa.float64(),
    }
    lines = [
        {
            **as_json(row),
            **dataclasses.asdict(row.overall),
            "label": row.label,
            "merge": dumps(row.section),
            "p_corrected": row.p_corrected,
            "domains": dumps(as_json(row)["domains"]),
        }
        for row in rows
    ]
    values = {name: [line[name] for line in lines] for name in columns}
    table = pa.table(values, schema=pa.schema(list(columns.items())))
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


WHOLE = ("n_problems", "n_samples", "problems_needed")
"""Columns of whole numbers."""
