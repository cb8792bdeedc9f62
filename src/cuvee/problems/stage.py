"""Stage `problems`: sources -> `01_problems/<domain>.parquet`, benchmarks, and what was dropped.

In: the recipe's sources. Out: rows of `Problem`, and of `Dropped` for everything left out.
A domain's problems are loaded, freed of duplicates, compared with all benchmarks of the
recipe, and each gold is checked with the verifier that will check the answers. Benchmarks
are loaded first, as they are published: only a second copy of a row and golds that fail
their own verifier are left out, with a warning and a row in `dropped/benchmarks/`.

A gold that is found wrong drops its problem (`gold_not_verified`), and so does one that
cannot be checked at all, under its own reason (`gold_not_checkable`): no answer to it could
be checked either. A code problem without a reference program stays and is counted.
"""

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cuvee.errors import DataError
from cuvee.problems import decontaminate, dedup, files, sources
from cuvee.problems.benchmarks import ResolvedBenchmark, asked, resolve_benchmark
from cuvee.problems.sources import Asked, Loaded
from cuvee.progress import bar, warn
from cuvee.recipe import Domain, Recipe, Source
from cuvee.records import Dropped, Problem, Verdict, read_rows, write_rows
from cuvee.runfolder import Run, Task
from cuvee.verify.check import check_golds
from cuvee.verify.sandbox import require

UNCHECKED = ("no_gold", "no_verifier", "no_judge")
"""Reasons of `not_checked` that say nothing against a problem; judges cost tokens."""


def tasks(run: Run, resources: contextlib.ExitStack) -> list[Task]:
    """Return the tasks: every benchmark, then every domain, which is compared with them.

    `resources` is not used: nothing stays open. Raises RecipeError for a benchmark that
    cannot be resolved.
    """
    recipe = run.recipe
    declared = recipe.evaluate.benchmarks.items()
    resolved = [resolve_benchmark(name, entry, recipe) for name, entry in declared]
    return [
        *(_benchmark_task(run, benchmark) for benchmark in resolved),
        *(_domain_task(run, name, domain, resolved) for name, domain in recipe.domains.items()),
    ]


def _benchmark_task(run: Run, benchmark: ResolvedBenchmark) -> Task:
    kept, dropped = run.benchmark(benchmark.name), _benchmark_dropped(run, benchmark.name)
    return Task(
        stage="problems",
        name=f"benchmarks/{benchmark.name}",
        inputs=_source_files([benchmark.source]),
        outputs=(kept, dropped),
        settings={
            "source": benchmark.source.model_dump(mode="json"),
            "domain": benchmark.domain,
            "prompt": benchmark.prompt,
            **_checking(run.recipe, benchmark.verifier),
        },
        work=lambda: _make_benchmark(run, benchmark),
    )


def _domain_task(
    run: Run, name: str, domain: Domain, benchmarks: Sequence[ResolvedBenchmark]
) -> Task:
    held_out = {benchmark.name: run.benchmark(benchmark.name) for benchmark in benchmarks}
    return Task(
        stage="problems",
        name=name,
        inputs=(*_source_files(domain.problems), *held_out.values()),
        outputs=(run.problems(name), run.dropped("problems", name)),
        settings={
            "sources": [source.model_dump(mode="json") for source in domain.problems],
            "prompt": domain.prompt,
            "benchmarks": sorted(held_out),
            **_checking(run.recipe, domain.verifier),
        },
        work=lambda: _make_domain(run, name, held_out),
    )


def _checking(recipe: Recipe, verifier: str) -> dict[str, Any]:
    """Return the settings that decide how golds are checked, and how many problems."""
    limits = recipe.verify.model_dump(mode="json", exclude={"processes"})
    return {
        "verifier": verifier,
        "limits": limits,
        "sandbox": recipe.sandbox,
        "limit": recipe.limit,
    }


def _source_files(wanted: Sequence[Source]) -> tuple[Path, ...]:
    return tuple(files.local_path(s.source) for s in wanted if files.is_file(s.source))


def _benchmark_dropped(run: Run, name: str) -> Path:
    """Return where a benchmark's dropped rows stand; its name may be a domain's too."""
    return run.dropped("problems", f"benchmarks/{name}")


def _make_benchmark(run: Run, benchmark: ResolvedBenchmark) -> Mapping[str, Any]:
    name = benchmark.name
    loaded = sources.load(benchmark.source, asked(benchmark), limit=run.recipe.limit)
    problems, dropped = _without_copies(loaded.problems)
    dropped += loaded.dropped
    problems, failed, unchecked = _check_golds(run.recipe, problems, f"golds of {name}")
    path = _benchmark_dropped(run, name)
    if failed or loaded.dropped:
        why = _reasons([*failed, *loaded.dropped])
        warn(f"benchmark {name}: {why} left out, so scores are not comparable; see {path}")
    return _write(run.benchmark(name), path, problems, [*dropped, *failed]) | {
        "filtered": loaded.filtered,
        "gold_not_checked": unchecked,
    }


def _make_domain(run: Run, name: str, held_out: Mapping[str, Path]) -> Mapping[str, Any]:
    domain = run.recipe.domains[name]
    benchmarks = {b: read_rows(path, Problem) for b, path in held_out.items()}
    loaded = _load_all(name, domain, run.recipe.limit)
    problems, repeats = _dedup(name, loaded.problems)
    problems, overlaps = _decontaminate(name, problems, benchmarks)
    problems, failed, unchecked = _check_golds(run.recipe, problems, f"golds of {name}")
    dropped = [*loaded.dropped, *repeats, *overlaps, *failed]
    path = run.dropped("problems", name)
    return _write(run.problems(name), path, problems, dropped) | {
        "filtered": loaded.filtered,
        "gold_not_checked": unchecked,
    }


def _load_all(name: str, domain: Domain, limit: int | None) -> Loaded:
    """Return all sources of a domain together; `limit` is shared out evenly among them."""
    how = Asked(name, domain.verifier, domain.ask)
    parts = []
    for number, source in enumerate(domain.problems):
        share = None if limit is None else _share(limit, len(domain.problems), number)
        if share != 0:
            parts.append(sources.load(source, how, limit=share))
    return Loaded(
        [problem for part in parts for problem in part.problems],
        [row for part in parts for row in part.dropped],
        sum(part.filtered for part in parts),
    )


def _share(limit: int, parts: int, number: int) -> int:
    """Return how much of `limit` part `number` gets; the first ones get what is left over."""
    return limit // parts + (number < limit % parts)


def _without_copies(problems: Sequence[Problem]) -> tuple[list[Problem], list[Dropped]]:
    first = {problem.id: problem for problem in reversed(problems)}
    kept = [problem for problem in problems if first[problem.id] is problem]
    copies = [problem for problem in problems if first[problem.id] is not problem]
    return kept, [_drop(copy, "exact_duplicate", "same question and gold") for copy in copies]


def _dedup(name: str, problems: Sequence[Problem]) -> tuple[list[Problem], list[Dropped]]:
    kept, dropped = [], []
    with bar(f"duplicates in {name}", total=len(problems), unit="problems") as tick:
        for problem, repeat in zip(problems, dedup.find_repeats(problems), strict=True):
            if repeat is None:
                kept.append(problem)
            else:
                dropped.append(_drop(problem, repeat.reason, repeat.detail))
            tick(1)
    return kept, dropped


def _decontaminate(
    name: str, problems: Sequence[Problem], benchmarks: Mapping[str, Sequence[Problem]]
) -> tuple[list[Problem], list[Dropped]]:
    index = decontaminate.build_index(benchmarks)
    kept, dropped = [], []
    with bar(f"overlap of {name}", total=len(problems), unit="problems") as tick:
        for problem in problems:
            overlap = decontaminate.find_overlap(problem, index)
            if overlap is None:
                kept.append(problem)
            else:
                dropped.append(_drop(problem, overlap.reason, overlap.detail))
            tick(1)
    return kept, dropped


def _check_golds(
    recipe: Recipe, problems: Sequence[Problem], label: str
) -> tuple[list[Problem], list[Dropped], int]:
    """Return the problems whose golds stand, the others, and how many were not checked."""
    if any(problem.verifier == "code" for problem in problems):
        require(recipe.sandbox)
    verdicts = check_golds(problems, limits=recipe.verify, sandbox=recipe.sandbox, label=label)
    kept, dropped, unchecked = [], [], 0
    for problem, verdict in zip(problems, verdicts, strict=True):
        if verdict.verdict == "correct":
            kept.append(problem)
        elif verdict.verdict == "not_checked" and verdict.reason in UNCHECKED:
            kept.append(problem)
            unchecked += 1
        else:
            dropped.append(_failed(problem, verdict))
    return kept, dropped, unchecked


def _failed(problem: Problem, verdict: Verdict) -> Dropped:
    cannot = verdict.verdict == "not_checked"
    told = [verdict.verdict, verdict.reason, verdict.detail, (problem.gold or "")[:200]]
    detail = ": ".join(part for part in told if part)
    return _drop(problem, "gold_not_checkable" if cannot else "gold_not_verified", detail)


def _drop(problem: Problem, reason: str, detail: str) -> Dropped:
    return Dropped(problem.id, problem.domain, "problem", None, reason, detail)


def _write(
    kept: Path, left_out: Path, problems: Sequence[Problem], dropped: Sequence[Dropped]
) -> dict[str, Any]:
    """Write both files and return the counts. Raises DataError where no problem is left."""
    write_rows(left_out, dropped, Dropped)
    if not problems:
        raise DataError(f"{kept}: no problem is left ({_reasons(dropped)}); see {left_out}")
    write_rows(kept, problems, Problem)
    reasons = Counter(row.reason for row in dropped)
    return {"problems": len(problems), "dropped": dict(sorted(reasons.items()))}


def _reasons(dropped: Sequence[Dropped]) -> str:
    counts = Counter(row.reason for row in dropped)
    return ", ".join(f"{n} {reason}" for reason, n in counts.most_common()) or "none loaded"
