"""Stage `problems`: sources -> `01_problems/<domain>.parquet`, benchmarks, and what was dropped.

In: the recipe's sources. Out: rows of `Problem`, of `Dropped` for everything left out, of
`Trace` for the published answers to what was kept, and `sources/<domain>.json`: one object a
source, with its revision, licence and counts. A domain's problems are loaded, freed of
duplicates, compared with all benchmarks of the recipe, and each gold is checked with the
verifier that will check the answers. Benchmarks are loaded first, as they are published:
only a second copy of a row and golds that fail their own verifier are left out, with a
warning and a row in `dropped/benchmarks/`. Problems go from file to file: what is held at
once does not grow with their number, but for what finding repeats takes. With `workers: ray`
what is to be left out is found on the cluster first (`cuvee.problems.clustered`); then the same
files are written here, in the same order.

A gold that is found wrong drops its problem (`gold_not_verified`), and so does one that
cannot be checked at all, under its own reason (`gold_not_checkable`): no answer to it could
be checked either. A code problem without a reference program stays and is counted.
"""

import contextlib
import dataclasses
import functools
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cuvee.atomic import remove
from cuvee.errors import DataError
from cuvee.problems import sieve, sift, spool
from cuvee.problems.benchmarks import ResolvedBenchmark, asked, resolve_benchmark
from cuvee.problems.loading import Scratch, load_all, write_records
from cuvee.problems.sift import Sieve
from cuvee.problems.sources import Asked, local_inputs
from cuvee.progress import bar, say, warn
from cuvee.recipe import Recipe, Source
from cuvee.records import (
    Dropped,
    Problem,
    Trace,
    content_hash,
    iter_rows,
    write_rows,
)
from cuvee.runfolder import Run, Task
from cuvee.verify.clustered import opened


def tasks(run: Run, resources: contextlib.ExitStack) -> list[Task]:
    """Return the tasks: every benchmark, then every domain, which is compared with them.

    `resources` closes the Ray cluster that the first of them opens, with `workers: ray`.
    Raises RecipeError for a benchmark that cannot be resolved.
    """
    recipe = run.recipe
    declared = recipe.evaluate.benchmarks.items()
    resolved = [resolve_benchmark(name, entry, recipe) for name, entry in declared]
    verifiers = {benchmark.verifier for benchmark in resolved}
    verifiers |= {domain.verifier for domain in recipe.domains.values()}
    connect = functools.cache(functools.partial(_connect, recipe, verifiers, resources))
    return [
        *(_benchmark_task(run, benchmark, connect) for benchmark in resolved),
        *(_domain_task(run, name, held_out=resolved, connect=connect) for name in recipe.domains),
    ]


def _connect(recipe: Recipe, verifiers: set[str], resources: contextlib.ExitStack) -> None:
    """Open the cluster and check its nodes."""
    sandbox = recipe.sandbox if "code" in verifiers else None
    resources.enter_context(opened(recipe.address, sandbox=sandbox))


def _benchmark_task(run: Run, benchmark: ResolvedBenchmark, connect: Callable[[], None]) -> Task:
    name = f"benchmarks/{benchmark.name}"
    return Task(
        stage="problems",
        name=name,
        inputs=_source_files([benchmark.source]),
        outputs=(
            run.benchmark(benchmark.name),
            run.dropped("problems", name),
            run.sources(name),
        ),
        settings={
            "source": benchmark.source.model_dump(mode="json"),
            "domain": benchmark.domain,
            "prompt": benchmark.prompt,
            **_checking(run.recipe, benchmark.verifier),
        },
        work=lambda: _make_benchmark(run, benchmark, connect),
    )


def _domain_task(
    run: Run, name: str, *, held_out: Sequence[ResolvedBenchmark], connect: Callable[[], None]
) -> Task:
    domain = run.recipe.domains[name]
    benchmarks = {benchmark.name: run.benchmark(benchmark.name) for benchmark in held_out}
    return Task(
        stage="problems",
        name=name,
        inputs=(*_source_files(domain.problems), *benchmarks.values()),
        outputs=(
            run.problems(name),
            run.dropped("problems", name),
            run.published(name),
            run.sources(name),
        ),
        settings={
            "sources": [source.model_dump(mode="json") for source in domain.problems],
            "prompt": domain.prompt,
            "benchmarks": sorted(benchmarks),
            "without_gold": domain.select.agreement is not None,
            **_checking(run.recipe, domain.verifier),
        },
        work=lambda: _make_domain(run, name, benchmarks, connect),
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
    return tuple(dict.fromkeys(path for source in wanted for path in local_inputs(source)))


def _make_benchmark(
    run: Run, benchmark: ResolvedBenchmark, connect: Callable[[], None]
) -> Mapping[str, Any]:
    name = f"benchmarks/{benchmark.name}"
    left_out = run.dropped("problems", name)
    with _scratch(run.benchmark(benchmark.name)) as folder:
        scratch = load_all(
            [benchmark.source], asked(benchmark), limit=run.recipe.limit, folder=folder
        )
        sieved = sift.of_benchmark(run.recipe, scratch, label=benchmark.name, connect=connect)
        made = _sift(scratch, sieved, kept=run.benchmark(benchmark.name), left_out=left_out)
    write_records(run.sources(name), scratch.records)
    if lost := made.reasons - Counter(exact_duplicate=made.reasons["exact_duplicate"]):
        why = f"benchmark {benchmark.name}: {_told(lost)} left out"
        warn(f"{why}, so scores are not comparable; see {left_out}")
    return made.counts()


def _make_domain(
    run: Run, name: str, benchmarks: Mapping[str, Path], connect: Callable[[], None]
) -> Mapping[str, Any]:
    domain = run.recipe.domains[name]
    how = Asked(name, domain.verifier, domain.ask, without_gold=domain.select.agreement is not None)
    with _scratch(run.problems(name)) as folder:
        scratch = load_all(domain.problems, how, limit=run.recipe.limit, folder=folder)
        say(f"  {name}: {scratch.count} problems read from {len(scratch.records)} sources")
        sieved = sift.of_domain(run.recipe, scratch, benchmarks, label=name, connect=connect)
        left_out = run.dropped("problems", name)
        made = _sift(scratch, sieved, kept=run.problems(name), left_out=left_out)
        traces = _write_traces(run, name, scratch)
    write_records(run.sources(name), scratch.records)
    return {**made.counts(), **traces}


@contextlib.contextmanager
def _scratch(kept: Path) -> Iterator[Path]:
    """Yield an empty folder beside a task's file; it is removed, and so is a killed run's."""
    folder = kept.with_name(f".{kept.stem}.scratch")
    remove(folder)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@dataclasses.dataclass(frozen=True)
class _Made:
    """What a task wrote."""

    problems: int
    reasons: Counter[str]
    filtered: int
    unchecked: int

    def counts(self) -> dict[str, Any]:
        """Return the counts of the manifest."""
        return {
            "problems": self.problems,
            "dropped": dict(sorted(self.reasons.items())),
            "filtered": self.filtered,
            "gold_not_checked": self.unchecked,
        }


def _sift(scratch: Scratch, sieved: Sieve, *, kept: Path, left_out: Path) -> _Made:
    """Write what stays and what does not. Raises DataError where no problem is left."""
    aside = scratch.folder / "sifted"
    reasons, unchecked = scratch.reasons.copy(), Counter[str]()
    with (
        bar(f"problems of {kept.stem}", total=scratch.count, unit="problems") as tick,
        spool.putting(aside, Dropped) as put,
    ):

        def drop(row: Dropped) -> None:
            reasons[row.reason] += 1
            put(row)

        def drop_early(row: Dropped) -> None:
            drop(row)
            tick(1)

        sound = sieve.with_sound_golds(
            sieved.keep(drop_early),
            sieved.check,
            drop=drop,
            unchecked=lambda problem: unchecked.update([problem.verifier]),
            tick=tick,
        )
        count = write_rows(kept, sound, Problem)
    write_rows(left_out, _both(scratch.dropped(), spool.taken(aside, Dropped)), Dropped)
    if not count:
        remove(kept)
        raise DataError(f"{kept}: no problem is left ({_told(reasons)}); see {left_out}")
    return _Made(count, reasons, scratch.filtered, unchecked.total())


def _both(first: Iterator[Dropped], second: Iterator[Dropped]) -> Iterator[Dropped]:
    yield from first
    yield from second


def _write_traces(run: Run, name: str, scratch: Scratch) -> dict[str, int]:
    """Write the published traces of the problems that were kept; return the counts.

    The same problem may stand in several rows, each with traces: they are numbered on.
    """
    given = sum((record["traces"] or {"n": 0})["n"] for record in scratch.records)
    kept = {problem.id for problem in iter_rows(run.problems(name), Problem)} if given else set()
    samples: Counter[tuple[str, str]] = Counter()

    def numbered() -> Iterator[Trace]:
        for trace in scratch.traces():
            if trace.problem_id not in kept:
                continue
            key = (trace.model, trace.problem_id)
            samples[key] += 1
            sample = samples[key] - 1
            made = content_hash("published", *key, sample)
            yield dataclasses.replace(trace, id=made, sample=sample)

    written = write_rows(run.published(name), numbered(), Trace)
    return {"traces": written, "traces_of_dropped": given - written} if given else {}


def _told(reasons: Mapping[str, int]) -> str:
    ordered = sorted(reasons.items(), key=lambda item: -item[1])
    return ", ".join(f"{n} {reason}" for reason, n in ordered) or "none loaded"
