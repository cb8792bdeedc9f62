"""The stage `evaluate`: every model of the run on every benchmark -> scores, comparisons.

Tasks, model by model so that an engine is started once a model: `export/MODEL` (checkpoint
-> GGUF, llama.cpp alone), `MODEL/BENCHMARK` (asks through the ledger, verifies, writes
`07_scores/traces`, `verdicts` and `protocols`), and at the end `scores` (writes
`07_scores/scores.parquet` and `comparisons.parquet`). The teachers of `evaluate.teachers`
come after the run's own models; theirs alone is on the run's account and ends at its budget.
Client, ledger and verifiers are those that made the training data
(`cuvee.evaluate.measure`). Without benchmarks there are no tasks.
"""

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cuvee.atomic import write_text
from cuvee.errors import DataError
from cuvee.evaluate.counted import miscounted
from cuvee.evaluate.measure import Measurement, measure
from cuvee.evaluate.protocol import (
    BASE,
    benchmarks,
    checking_settings,
    compared,
    engine_settings,
    models,
    protocol_of,
    scored,
    taken,
    teacher_settings,
)
from cuvee.evaluate.run_models import (
    export_task,
    find_model,
    gguf,
    is_exported,
    require_room,
    sources,
)
from cuvee.evaluate.statistics import Outcomes
from cuvee.evaluate.table import comparison_rows, outcomes, score_row
from cuvee.models.engines import engine_version
from cuvee.problems.benchmarks import ResolvedBenchmark
from cuvee.progress import say, warn
from cuvee.recipe import Teacher
from cuvee.records import (
    Comparison,
    Score,
    Trace,
    Verdict,
    dumps,
    read_rows,
    write_rows,
)
from cuvee.runfolder import Run, Task
from cuvee.teach.client import Books
from cuvee.teach.endpoints import find_teacher
from cuvee.teach.ledger import Ledger
from cuvee.teach.reach import Opener, Reachable, one_at_a_time
from cuvee.teach.stage import asking_settings
from cuvee.verify import clustered

OF_THE_BENCHMARK = ("samples", "sampling")
"""Keys of a teacher that count in teaching alone: here it is asked as every model is."""


@dataclasses.dataclass(frozen=True)
class Bench:
    """What the tasks of the stage share, opened by the first that needs it."""

    run: Run
    open_ledger: Callable[[], Ledger]
    found: Callable[[str], Reachable]
    """A model of the run or a teacher, hashed once."""
    version: Callable[[], str]
    """Of the engine of `evaluate.serve`, asked once."""
    opened: Opener
    """Serves a model, and ends the one before."""
    connect: Callable[[], None] | None
    """Opens the Ray cluster once; None without `workers: ray`."""


def tasks(run: Run, resources: ExitStack) -> list[Task]:
    """Return the tasks in order; `resources` ends the engine, closes the ledger and the cluster.

    Raises RecipeError where a benchmark cannot be resolved, or `max_tokens` does not fit into
    the engine's context.
    """
    resolved = benchmarks(run.recipe)
    if not resolved:
        return []
    open_ledger = functools.cache(lambda: resources.enter_context(Ledger.open(run.recipe.ledger)))
    files = [run.benchmark(benchmark.name) for benchmark in resolved]
    found_once = functools.cache(lambda name: _find(run, name, files))
    version_once = functools.cache(lambda: engine_version(run.recipe.evaluate.serve))
    bench = Bench(
        run,
        open_ledger,
        found_once,
        version_once,
        one_at_a_time(resources),
        _connecting(run, resolved, resources),
    )
    every: list[Task] = []
    for model in models(run.recipe):
        if is_exported(run):
            every.append(export_task(run, model))
        every += [_model_task(bench, model, benchmark) for benchmark in resolved]
    for name in run.recipe.evaluate.teachers:
        every += [_teacher_task(bench, _teacher(run, name), b) for b in resolved]
    return [*every, _scores_task(run, resolved)]


def _connecting(
    run: Run, resolved: Sequence[ResolvedBenchmark], resources: ExitStack
) -> Callable[[], None] | None:
    """Return what opens the cluster and checks its nodes, once; None where there is none."""
    recipe = run.recipe
    if recipe.workers != "ray":
        return None
    programs = any(benchmark.verifier == "code" for benchmark in resolved)
    sandbox = recipe.sandbox if programs else None
    return functools.cache(
        lambda: resources.enter_context(clustered.opened(recipe.address, sandbox=sandbox))
    )


def _find(run: Run, name: str, files: Sequence[Path]) -> Reachable:
    """Return a model of the run, or a teacher; a scripted one can answer the problems of files."""
    if name in run.recipe.evaluate.teachers:
        return find_teacher(_teacher(run, name), run=run, problems=files)
    return find_model(run, name)


def _teacher(run: Run, name: str) -> Teacher:
    return next(teacher for teacher in run.recipe.teachers if teacher.name == name)


def _model_task(bench: Bench, model: str, benchmark: ResolvedBenchmark) -> Task:
    """Return the task of a model of the run; no teacher is paid for it, so no budget ends it."""
    run, recipe = bench.run, bench.run.recipe
    settings = engine_settings(recipe.evaluate.serve)

    def work() -> Mapping[str, Any]:
        require_room(run, model, benchmark)
        serving = settings | {"version": bench.version()}
        books = Books(bench.open_ledger())
        return _answer(bench, model, benchmark, books=books, asked={"serve": serving})

    return _answer_task(
        run,
        model,
        benchmark,
        served=(gguf(run, model),) if is_exported(run) else sources(run, model),
        settings={
            "base": recipe.base if model == BASE and not is_exported(run) else None,
            "serve": settings,
        },
        work=work,
    )


def _teacher_task(bench: Bench, teacher: Teacher, benchmark: ResolvedBenchmark) -> Task:
    """Return the task of a teacher, which is asked on the run's account."""
    run = bench.run
    asking = asking_settings(run, teacher)["teacher"]
    settings = {key: asking[key] for key in asking if key not in OF_THE_BENCHMARK}

    def work() -> Mapping[str, Any]:
        serving = teacher_settings(teacher)
        if teacher.serve is not None:
            serving["version"] = engine_version(teacher.serve)
        asked = {"serve": serving, "system": teacher.system}
        books = Books(bench.open_ledger(), run.account(), run.recipe.budget)
        return _answer(bench, teacher.name, benchmark, books=books, asked=asked)

    return _answer_task(
        run, teacher.name, benchmark, served=(), settings={"teacher": settings}, work=work
    )


def _answer_task(
    run: Run,
    model: str,
    benchmark: ResolvedBenchmark,
    *,
    served: tuple[Path, ...],
    settings: Mapping[str, Any],
    work: Callable[[], Mapping[str, Any]],
) -> Task:
    recipe, name = run.recipe, benchmark.name
    return Task(
        stage="evaluate",
        name=f"{model}/{name}",
        inputs=(*served, run.benchmark(name), run.sources(f"benchmarks/{name}")),
        outputs=(
            run.score_traces(model, name),
            run.score_verdicts(model, name),
            run.score_protocol(model, name),
        ),
        settings={
            **settings,
            "limit": recipe.limit,
            "samples": benchmark.samples,
            "seed": recipe.seed,
            "sampling": benchmark.sampling.model_dump(mode="json"),
            "checking": checking_settings(recipe.verify, recipe.sandbox),
        },
        work=work,
    )


def _answer(
    bench: Bench,
    model: str,
    benchmark: ResolvedBenchmark,
    *,
    books: Books,
    asked: Mapping[str, Any],
) -> Mapping[str, Any]:
    """Measure a model on a benchmark; write answers, verdicts and what they were taken with."""
    run, recipe, name = bench.run, bench.run.recipe, benchmark.name
    wanted = Measurement(
        benchmark=name,
        problems=run.benchmark(name),
        samples=benchmark.samples,
        seed=recipe.seed,
        sampling=benchmark.sampling,
        limits=recipe.verify,
        sandbox=recipe.sandbox,
        engines=run.engines(),
        connect=bench.connect,
    )
    found = measure(bench.found(model), wanted, books=books, opened=bench.opened, stop=run.stop)
    protocol = protocol_of(
        taken(recipe, benchmark, revision=_revision(run, name)),
        checking=checking_settings(recipe.verify, recipe.sandbox),
        **asked,
    )
    write_rows(run.score_traces(model, name), found.traces, Trace)
    write_rows(run.score_verdicts(model, name), found.verdicts, Verdict)
    write_text(run.score_protocol(model, name), dumps(protocol) + "\n")
    counts = Counter(str(verdict.verdict) for verdict in found.verdicts)
    problems = len({verdict.problem_id for verdict in found.verdicts})
    return {"problems": problems, **counts, **dataclasses.asdict(found.usage)}


def _revision(run: Run, benchmark: str) -> str | None:
    """Return the revision that a benchmark's problems are of; None where they are generated."""
    file = run.sources(f"benchmarks/{benchmark}")
    try:
        [record] = json.loads(file.read_text(encoding="utf-8"))
        revision: str | None = record["revision"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: no record of one source; run `cuvee problems` again") from error
    return revision


def _scores_task(run: Run, resolved: Sequence[ResolvedBenchmark]) -> Task:
    recipe = run.recipe
    pairs = compared(recipe)
    cells = [(model, benchmark.name) for benchmark in resolved for model in scored(recipe)]
    inputs = [
        path(model, name)
        for model, name in cells
        for path in (run.score_traces, run.score_verdicts, run.score_protocol)
    ]

    def work() -> Mapping[str, Any]:
        scores: list[Score] = []
        results: dict[tuple[str, str], Outcomes] = {}
        for model, name in cells:
            traces = read_rows(run.score_traces(model, name), Trace)
            verdicts = read_rows(run.score_verdicts(model, name), Verdict)
            protocol = run.score_protocol(model, name).read_text(encoding="utf-8").strip()
            scores.append(score_row(model, name, traces, verdicts, protocol=protocol))
            results[model, name] = outcomes(verdicts)
        protocols = {(score.model, score.benchmark): score.protocol for score in scores}
        comparisons = comparison_rows(results, pairs, protocols=protocols)
        _say_what_differs(comparisons)
        for sentence in miscounted(recipe, scores):
            warn(sentence)
        write_rows(run.scores(), scores, Score)
        write_rows(run.comparisons(), comparisons, Comparison)
        return {
            "scores": len(scores),
            "comparisons": len(comparisons),
            "left_out": len(pairs) * len(resolved) - len(comparisons),
        }

    settings = {"models": scored(recipe), "benchmarks": [b.name for b in resolved]}
    outputs = (run.scores(), run.comparisons())
    return Task("evaluate", "scores", tuple(inputs), outputs, settings, work)


def _say_what_differs(comparisons: Sequence[Comparison]) -> None:
    """Name the pairs that were not taken with the same protocol, one line a pair."""
    differing: dict[tuple[str, str], set[str]] = {}
    for row in comparisons:
        if keys := set(json.loads(row.protocols)):
            differing.setdefault((row.model, row.against), set()).update(keys)
    for (model, against), keys in differing.items():
        say(f"  {model} and {against} were not asked alike: {', '.join(sorted(keys))} differ")
