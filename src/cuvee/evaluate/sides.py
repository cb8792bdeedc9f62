"""What `cuvee compare` compares: two models' verdicts on the same problems, wherever they lie.

In: the place of a side: a scored folder, `RUN:MODEL`, a run (all its models), or a file of
verdicts. Out: `Side` rows, and `Compared`, one a benchmark. The unit is the problem, by its
id: the hash of question, gold and tests. Not here: the statistics
(`cuvee.evaluate.statistics`).
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_args

from cuvee.errors import DataError, RecipeError
from cuvee.evaluate.scored import is_scored, read_scored
from cuvee.evaluate.statistics import Outcomes, pass_at_1
from cuvee.evaluate.table import comparison_rows, outcomes
from cuvee.lineage.shelves import open_run
from cuvee.problems.files import read_file
from cuvee.progress import warn
from cuvee.records import Comparison, Score, Verdict, VerdictName, read_rows

VERDICT_FILES = (".parquet", ".jsonl", ".jsonl.gz")
ANY = ""
"""The benchmark of a file of verdicts, which does not name one."""
FIELDS = ("verdict", "problem_id", "trace_id")
"""What a row of a file of verdicts must have."""
VERDICTS: tuple[VerdictName, ...] = get_args(VerdictName)


@dataclasses.dataclass(frozen=True)
class Result:
    """A model's verdicts on one benchmark, by problem."""

    outcomes: Outcomes
    protocol: str
    """JSON of what they were taken with; `{}` where nobody says."""


@dataclasses.dataclass(frozen=True)
class Side:
    """One model: its name, where it was found, and its results by benchmark."""

    model: str
    place: str
    results: Mapping[str, Result]


@dataclasses.dataclass(frozen=True)
class Compared:
    """Two models on the problems of one benchmark that both have answers to."""

    row: Comparison
    model_mean: float
    """Means in [0, 1], on these problems alone."""
    against_mean: float
    better: int
    """Problems on which the model's share of correct samples is higher; lower; the same."""
    worse: int
    alike: int
    model_alone: int
    """Problems that only one side has answers to: they are not compared."""
    against_alone: int


def open_side(place: str) -> list[Side]:
    """Return the models of a place: one, or all of a run's.

    Raises RecipeError for what is no such place, DataError for files that cannot be read.
    """
    path = Path(place)
    if path.is_dir():
        return [_scored_side(path, place)] if is_scored(path) else _run_sides(path, place)
    folder, colon, model = place.rpartition(":")
    if not path.exists() and colon and Path(folder).is_dir():
        sides = _run_sides(Path(folder), folder)
        found = [side for side in sides if side.model == model]
        if not found:
            known = ", ".join(side.model for side in sides)
            raise RecipeError(f"{place}: no scores of {model!r} in this run; it has {known}")
        return found
    if path.name.lower().endswith(VERDICT_FILES):
        return [_verdicts_side(path, place)]
    raise RecipeError(
        f"{place}: a scored folder (of `cuvee score --out`), RUN:MODEL, the folder of a run, or a "
        f"file of verdicts ({', '.join(VERDICT_FILES)}) is wanted"
    )


def _scored_side(folder: Path, place: str) -> Side:
    scored = read_scored(folder)
    if len(scored.scores) != 1:
        raise DataError(f"{folder}/scores.parquet: wanted one row, got {len(scored.scores)}")
    (score,) = scored.scores
    result = Result(outcomes(scored.verdicts), score.protocol)
    return Side(score.model, place, {score.benchmark: result})


def _run_sides(folder: Path, place: str) -> list[Side]:
    """Return the scored models of a run. Raises RecipeError where none is scored yet."""
    run = open_run(folder)
    if not run.scores().is_file():
        raise RecipeError(f"{place}: no scores yet; `cuvee evaluate {place}` writes them")
    found: dict[str, dict[str, Result]] = {}
    for score in read_rows(run.scores(), Score):
        verdicts = read_rows(run.score_verdicts(score.model, score.benchmark), Verdict)
        result = Result(outcomes(verdicts), score.protocol)
        found.setdefault(score.model, {})[score.benchmark] = result
    return [Side(model, place, results) for model, results in found.items()]


def _verdicts_side(path: Path, place: str) -> Side:
    """Return the verdicts of `cuvee verify --out`; rows that could not be read have no problem."""
    by_problem: dict[str, list[VerdictName]] = {}
    unread = 0
    for where, row in read_file(path):
        if missing := [field for field in FIELDS if not isinstance(row.get(field), str)]:
            raise DataError(f"{where}: no verdict: no text in {', '.join(missing)}")
        if row["verdict"] not in VERDICTS:
            allowed = ", ".join(VERDICTS)
            raise DataError(f"{where}: verdict {row['verdict']!r:.60}: allowed are {allowed}")
        if not row["problem_id"]:
            unread += 1
            continue
        by_problem.setdefault(row["problem_id"], []).append(row["verdict"])
    if unread:
        warn(f"{place}: {unread} rows are verdicts on nothing that could be read: left out")
    if not by_problem:
        raise DataError(f"{place}: no verdicts in it")
    return Side(path.name.split(".")[0], place, {ANY: Result(by_problem, "{}")})


def pair_sides(one: Sequence[Side], two: Sequence[Side]) -> list[tuple[Side, Side]]:
    """Return which side is compared with which: one with one, or two runs model by model.

    Sides of the same model get their places into their names. Raises RecipeError where a run
    stands against one model, and where two runs have no model in common.
    """
    if len(one) == len(two) == 1:
        return [_told_apart(one[0], two[0])]
    for several, single in ((one, two), (two, one)):
        if len(single) == 1:
            place, names = several[0].place, ", ".join(side.model for side in several)
            raise RecipeError(
                f"{place}: which model against {single[0].place}? Write {place}:MODEL; "
                f"it has {names}"
            )
    others = {side.model: side for side in two}
    pairs = [_told_apart(side, others[side.model]) for side in one if side.model in others]
    if not pairs:
        raise RecipeError(
            f"{one[0].place} and {two[0].place} have no model in common: "
            f"{', '.join(side.model for side in one)}; {', '.join(others)}"
        )
    return pairs


def _told_apart(one: Side, two: Side) -> tuple[Side, Side]:
    if one.model != two.model:
        return one, two
    first, second = (
        dataclasses.replace(side, model=f"{side.place}:{side.model}") for side in (one, two)
    )
    if first.model == second.model:
        raise RecipeError(f"{one.place}: both sides are the same")
    return first, second


def compare(one: Side, two: Side) -> list[Compared]:
    """Compare two models on every benchmark that both have, on the problems both answered.

    A benchmark on which too much could not be checked is left out with a warning. Raises
    DataError where nothing is left to compare.
    """
    found = []
    shared = list(_shared(one, two))
    for benchmark, first, second in shared:
        common = first.outcomes.keys() & second.outcomes.keys()
        results = {
            (side.model, benchmark): {p: result.outcomes[p] for p in sorted(common)}
            for side, result in ((one, first), (two, second))
        }
        protocols = {
            (one.model, benchmark): first.protocol,
            (two.model, benchmark): second.protocol,
        }
        for row in comparison_rows(results, [(one.model, two.model)], protocols=protocols):
            alone = (len(first.outcomes) - len(common), len(second.outcomes) - len(common))
            found.append(_compared(row, *results.values(), alone=alone))
    if not found:
        raise DataError(_nothing(one, two, shared))
    return found


def _shared(one: Side, two: Side) -> Iterator[tuple[str, Result, Result]]:
    """Yield the benchmarks of which both sides have answers to the same problems."""
    for name, first in one.results.items():
        for other, second in two.results.items():
            same = name == other or ANY in (name, other)
            if same and first.outcomes.keys() & second.outcomes.keys():
                yield name or other or "verdicts", first, second


def _compared(
    row: Comparison, model: Outcomes, against: Outcomes, *, alone: tuple[int, int]
) -> Compared:
    shares = [(share_right(model[p]), share_right(against[p])) for p in model]
    pairs = [(a, b) for a, b in shares if a is not None and b is not None]
    return Compared(
        row=row,
        model_mean=_mean(model),
        against_mean=_mean(against),
        better=sum(a > b for a, b in pairs),
        worse=sum(a < b for a, b in pairs),
        alike=sum(a == b for a, b in pairs),
        model_alone=alone[0],
        against_alone=alone[1],
    )


def _mean(outcomes: Outcomes) -> float:
    """Return a side's score; models without one are not compared, and never 0."""
    mean = pass_at_1(outcomes).mean
    if mean is None:
        raise DataError("too much could not be checked for a score: there is nothing to compare")
    return mean


def share_right(verdicts: Sequence[str]) -> float | None:
    """Return the share in [0, 1] of correct among the checked samples; None where none is."""
    checked = [verdict for verdict in verdicts if verdict != "not_checked"]
    return checked.count("correct") / len(checked) if checked else None


def _nothing(one: Side, two: Side, shared: Sequence[object]) -> str:
    """Say why there is nothing to compare."""
    names = f"{one.model} and {two.model}"
    if shared:
        return f"{names}: too much of what they answered could not be checked: no comparison"
    held = "; ".join(
        f"{side.place} has {', '.join(name or 'verdicts' for name in side.results)}"
        for side in (one, two)
    )
    return (
        f"{names} have no problem in common ({held}). Problems are the same where question, gold "
        "and tests are: score both against the same benchmark, from the same file"
    )
