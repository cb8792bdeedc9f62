"""A scored folder: one model's answers to one benchmark, with verdicts and score.

Four Parquet files (`problems`, `traces`, `verdicts`, `scores`), the same rows as in a run.
`cuvee score` and the stand-alone `cuvee evaluate` write them, `cuvee compare` reads them.
Also here: the score as a table for a terminal.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from cuvee.errors import DataError, RecipeError
from cuvee.progress import printable
from cuvee.records import Problem, Score, Trace, Verdict, read_rows, write_rows

NAMES = ("problems", "traces", "verdicts", "scores")


@dataclasses.dataclass(frozen=True)
class Scored:
    """What a scored folder holds."""

    problems: list[Problem]
    traces: list[Trace]
    verdicts: list[Verdict]
    scores: list[Score]


def write_scored(folder: Path, scored: Scored) -> None:
    """Write the four files; `scores.parquet` last, so that it is there when all are.

    Raises OSError (disk full, no permission) with the path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # An old score must not stand beside new answers if this is killed half way.
    (folder / "scores.parquet").unlink(missing_ok=True)
    write_rows(folder / "problems.parquet", scored.problems, Problem)
    write_rows(folder / "traces.parquet", scored.traces, Trace)
    write_rows(folder / "verdicts.parquet", scored.verdicts, Verdict)
    write_rows(folder / "scores.parquet", scored.scores, Score)


def check_out(folder: Path, model: str, benchmark: str) -> None:
    """Raise RecipeError where a folder holds something else than this model's scored folder."""
    if (folder / "recipe.yaml").exists():
        raise RecipeError(f"{folder}: is the folder of a run; name another with --out")
    if not (folder / "scores.parquet").exists():
        return
    held = [(s.model, s.benchmark) for s in read_rows(folder / "scores.parquet", Score)]
    if held != [(model, benchmark)]:
        told = ", ".join(f"{one} on {name}" for one, name in held)
        raise RecipeError(f"{folder}: holds the scores of {told}; name another folder with --out")


def is_scored(folder: Path) -> bool:
    """Return whether a folder is a scored one, and finished."""
    return all((folder / f"{name}.parquet").is_file() for name in NAMES)


def read_scored(folder: Path) -> Scored:
    """Read a scored folder. Raises DataError naming what is missing or unreadable."""
    if missing := [name for name in NAMES if not (folder / f"{name}.parquet").is_file()]:
        raise DataError(f"{folder}: no scored folder: {', '.join(missing)}.parquet missing")
    return Scored(
        read_rows(folder / "problems.parquet", Problem),
        read_rows(folder / "traces.parquet", Trace),
        read_rows(folder / "verdicts.parquet", Verdict),
        read_rows(folder / "scores.parquet", Score),
    )


def percent(share: float) -> str:
    """Return a share in [0, 1] as a percentage with one digit."""
    return f"{100 * share:.1f}"


def interval(low: float, high: float) -> str:
    """Return an interval of shares as percentages."""
    return f"{percent(low)} to {percent(high)}"


def score_table(scores: Sequence[Score]) -> Table:
    """Return scores with intervals, and the shares of what was not right, as a table.

    Without a mean (over 1 % could not be checked) both bounds stand in its place.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column("model", overflow="fold")
    table.add_column("benchmark", overflow="fold")
    columns = ("score %", "95 % interval", "problems", "samples", "correct", "wrong", "no answer")
    for name in (*columns, "(truncated)", "not checked", "tokens"):
        table.add_column(name, justify="right", no_wrap=True)
    for score in scores:
        bounds = interval(score.lower_bound, score.upper_bound)
        table.add_row(
            Text(printable(score.model)),
            Text(printable(score.benchmark)),
            percent(score.mean) if score.mean is not None else f"none: {bounds}",
            interval(score.low, score.high),
            *map(str, (score.n_problems, score.n_samples, score.correct, score.wrong)),
            *map(str, (score.no_answer, score.truncated, score.not_checked)),
            "-" if score.mean_tokens is None else f"{score.mean_tokens:.0f}",
        )
    return table


def at_k_table(scores: Sequence[Score]) -> Table | None:
    """Return pass@k and maj@k for k > 1 as a table, or None where there are none."""
    table = Table(box=None, pad_edge=False)
    for name in ("model", "measure", "%", "95 % interval", "tied votes %"):
        table.add_column(name, justify="left" if name in ("model", "measure") else "right")
    for score in scores:
        for measure, text in (("pass", score.pass_at), ("maj", score.maj_at)):
            for k, found in sorted(json.loads(text).items(), key=lambda item: int(item[0])):
                if int(k) > 1:
                    tied = percent(found["tied"]) if "tied" in found else ""
                    shown = interval(found["low"], found["high"])
                    mean = percent(found["mean"])
                    table.add_row(Text(printable(score.model)), f"{measure}@{k}", mean, shown, tied)
    return table if table.row_count else None
