"""Reads what was evaluated: scores, comparisons, and right answers problem by problem.

Files of `07_scores` in, facts out. Of verdicts only two short columns are read. It compares
and words nothing; what others published has its reader in `cuvee.release.published`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from cuvee.evaluate.protocol import BASE, MERGED
from cuvee.evaluate.sides import share_right
from cuvee.lineage.columns import rows, table, values
from cuvee.problems.benchmarks import resolve_benchmark
from cuvee.records import Comparison, Score
from cuvee.release.facts import Pairing
from cuvee.runfolder import Run

R = TypeVar("R", Score, Comparison)


def scored_files(run: Run) -> list[Path]:
    """Return the files that this module reads of a run; none without benchmarks."""
    if not run.recipe.evaluate.benchmarks:
        return []
    cells = [(name, benchmark) for *pair, benchmark in _pairs(run) for name in pair]
    verdicts = [run.score_verdicts(*cell) for cell in dict.fromkeys(cells)]
    return [run.scores(), run.comparisons(), *verdicts]


def read_scores(path: Path, row_type: type[R]) -> tuple[R, ...]:
    """Return all rows of a file of scores or of comparisons.

    A column that the file lacks because an older version wrote it is read as its default.
    Raises DataError naming the file, and the columns it cannot do without.
    """
    names = set(values(path, "benchmark").to_pylist())
    return tuple(rows(path, row_type, column="benchmark", wanted=names))


def read_pairings(run: Run) -> Iterator[Pairing]:
    """Yield how often the merged model and those it is measured against were right.

    Raises DataError naming the file where one is missing or breaks its contract.
    """
    for model, against, benchmark in _pairs(run):
        own, other = (_shares(run.score_verdicts(m, benchmark)) for m in (model, against))
        shares = tuple((own[problem], other[problem]) for problem in own if problem in other)
        answered = len({*own, *other})
        unknown = sum(1 for pair in shares if None in pair)
        both = tuple((a, b) for a, b in shares if a is not None and b is not None)
        yield Pairing(benchmark, model, against, both, answered - len(shares) + unknown)


def _pairs(run: Run) -> list[tuple[str, str, str]]:
    """Return (model, against, benchmark): merged against the base and the domain's specialist."""
    recipe = run.recipe
    declared = recipe.evaluate.benchmarks.items()
    found = [resolve_benchmark(name, entry, recipe) for name, entry in declared]
    return [
        (MERGED, against, benchmark.name)
        for benchmark in found
        for against in (BASE, benchmark.domain)
        if against == BASE or against in recipe.domains
    ]


def _shares(path: Path) -> Mapping[str, float | None]:
    """Return problem -> share of its checked samples that are right; None where none was."""
    found = table(path, ["problem_id", "verdict"])
    verdicts: dict[str, list[str]] = {}
    pairs = zip(found.column(0).to_pylist(), found.column(1).to_pylist(), strict=True)
    for problem, verdict in pairs:
        verdicts.setdefault(problem, []).append(verdict)
    return {problem: share_right(own) for problem, own in verdicts.items()}
