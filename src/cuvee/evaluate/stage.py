"""The stage `evaluate`: every model of the run on every benchmark -> scores, comparisons.

Tasks, model by model so that an engine is started once a model: `export/MODEL` (checkpoint
-> GGUF, llama.cpp alone), `MODEL/BENCHMARK` (asks through the ledger, verifies, writes
`07_scores/traces` and `07_scores/verdicts`), and at the end `scores` (writes
`07_scores/scores.parquet` and `comparisons.parquet`). Client, ledger and verifiers are those
that made the training data. Without benchmarks there are no tasks.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cuvee.errors import DataError, EngineError, RecipeError, TeacherError
from cuvee.evaluate.protocol import (
    BASE,
    MERGED,
    benchmarks,
    checking_settings,
    compared,
    engine_settings,
    models,
    protocol_of,
)
from cuvee.evaluate.statistics import Outcomes
from cuvee.evaluate.table import comparison_rows, outcomes, score_row
from cuvee.models.adapted import load_adapted
from cuvee.models.checkpoint import resolve
from cuvee.models.engines import engine_identity, serve
from cuvee.models.gguf_write import write_gguf
from cuvee.models.template import render_prompt
from cuvee.models.tokens import text_ids
from cuvee.problems.benchmarks import ResolvedBenchmark
from cuvee.progress import metered
from cuvee.recipe import Recipe
from cuvee.records import (
    Comparison,
    Problem,
    Score,
    Trace,
    Verdict,
    dumps,
    read_rows,
    write_rows,
)
from cuvee.runfolder import Run, Task
from cuvee.teach.client import Books, Endpoint, Usage, ask
from cuvee.teach.ledger import Ledger
from cuvee.teach.reach import Opener, Reachable, one_at_a_time, reach
from cuvee.teach.stage import ProblemRequests
from cuvee.verify import sandbox
from cuvee.verify.check import check_traces


@dataclasses.dataclass(frozen=True)
class Bench:
    """What the tasks of the stage share, opened by the first that needs it."""

    run: Run
    open_ledger: Callable[[], Ledger]
    found: Callable[[str], Reachable]
    """A model of the run, hashed once."""
    opened: Opener
    """Serves a model, and ends the one before."""


def tasks(run: Run, resources: ExitStack) -> list[Task]:
    """Return the tasks in order; `resources` ends the engine and closes the ledger.

    Raises RecipeError where a benchmark cannot be resolved, or `max_tokens` does not fit into
    the engine's context.
    """
    resolved = benchmarks(run.recipe)
    if not resolved:
        return []
    open_ledger = functools.cache(lambda: resources.enter_context(Ledger.open(run.recipe.ledger)))
    found_once = functools.cache(lambda model: _find(run, model))
    bench = Bench(run, open_ledger, found_once, one_at_a_time(resources))
    every: list[Task] = []
    for model in models(run.recipe):
        if run.recipe.evaluate.serve.engine == "llama.cpp":
            every.append(_export_task(run, model))
        every += [_answer_task(bench, model, benchmark) for benchmark in resolved]
    return [*every, _scores_task(run, resolved)]


def _find(run: Run, model: str) -> Reachable:
    """Return a model of the run by its identity, and what serves it."""
    spec, path = run.recipe.evaluate.serve, str(_served(run, model))
    endpoint = Endpoint(
        name=model,
        url="",
        model=path,
        identity=engine_identity(spec, path),
        concurrency=run.recipe.evaluate.concurrency,
        timeout=run.recipe.evaluate.timeout,
    )

    def start(resources: ExitStack) -> Endpoint:
        engine = resources.enter_context(serve(spec, path, name=model, folder=run.engines()))
        return dataclasses.replace(endpoint, url=engine.url, model=engine.model)

    return Reachable(endpoint, start)


def _export_task(run: Run, model: str) -> Task:
    out = _gguf(run, model)

    def work() -> Mapping[str, Any]:
        quantization = run.recipe.evaluate.serve.quantization
        write_gguf(_checkpoint(run, model), out, quantization=quantization)
        return {"bytes": out.stat().st_size}

    settings = {"base": run.recipe.base} if model == BASE else {}
    return Task("evaluate", f"export/{model}", _sources(run, model), (out,), settings, work)


def _answer_task(bench: Bench, model: str, benchmark: ResolvedBenchmark) -> Task:
    run, recipe = bench.run, bench.run.recipe
    exported = recipe.evaluate.serve.engine == "llama.cpp"
    served = (_gguf(run, model),) if exported else _sources(run, model)
    return Task(
        stage="evaluate",
        name=f"{model}/{benchmark.name}",
        inputs=(*served, run.benchmark(benchmark.name)),
        outputs=(
            run.score_traces(model, benchmark.name),
            run.score_verdicts(model, benchmark.name),
        ),
        settings={
            "base": recipe.base if model == BASE and not exported else None,
            "samples": benchmark.samples,
            "seed": recipe.seed,
            "sampling": recipe.evaluate.sampling.model_dump(mode="json"),
            "serve": engine_settings(recipe),
            "checking": checking_settings(recipe),
        },
        work=lambda: _answer(bench, model, benchmark),
    )


def _answer(bench: Bench, model: str, benchmark: ResolvedBenchmark) -> Mapping[str, Any]:
    """Ask a model all problems of a benchmark, check its answers, write both."""
    run, recipe = bench.run, bench.run.recipe
    label = f"{model} on {benchmark.name}"
    problems = read_rows(run.benchmark(benchmark.name), Problem)
    if not problems:
        raise DataError(f"{run.benchmark(benchmark.name)}: no problems to ask")
    if any(problem.verifier == "code" for problem in problems):
        sandbox.require(recipe.sandbox)
    _require_room(recipe, _checkpoint(run, model), problems, benchmark.name)
    traces, usage = _ask(bench, model, benchmark)
    _require_answers(run, label, traces)
    verdicts = check_traces(
        traces,
        {problem.id: problem for problem in problems},
        limits=recipe.verify,
        sandbox=recipe.sandbox,
        label=f"check {label}",
    )
    write_rows(run.score_traces(model, benchmark.name), traces, Trace)
    write_rows(run.score_verdicts(model, benchmark.name), verdicts, Verdict)
    counts = Counter(str(verdict.verdict) for verdict in verdicts)
    return {"problems": len(problems), **counts, **dataclasses.asdict(usage)}


def _ask(bench: Bench, model: str, benchmark: ResolvedBenchmark) -> tuple[list[Trace], Usage]:
    """Ask a model all problems of a benchmark; no teacher is paid for it, so no budget ends it."""
    run, evaluate, label = bench.run, bench.run.recipe.evaluate, f"{model} on {benchmark.name}"
    ledger = bench.open_ledger()
    problems = run.benchmark(benchmark.name)
    requests = ProblemRequests(problems, benchmark.samples, run.recipe.seed)
    try:
        endpoint = reach(
            bench.found(model),
            requests,
            sampling=evaluate.sampling,
            ledger=ledger,
            opened=bench.opened,
        )
        with metered(f"ask {label}", total=len(requests)) as meter:
            answers = ask(
                endpoint,
                requests,
                sampling=evaluate.sampling,
                books=Books(ledger),
                meter=meter,
                stop=run.stop,
            )
    except TeacherError as error:
        raise EngineError(f"{label}: {error}; its log is in {run.engines()}") from error
    return list(answers), answers.usage()


def _require_room(
    recipe: Recipe, checkpoint: Path, problems: Sequence[Problem], benchmark: str
) -> None:
    """Raise RecipeError where the longest prompt and its answer exceed the engine's context."""
    tokenizer = load_adapted(checkpoint)
    prompts = (render_prompt(tokenizer, problem.prompt) for problem in problems)
    longest = max(len(text_ids(tokenizer, prompt)) for prompt in prompts)
    # One more: a token for the beginning of the sequence, which some engines add.
    needed = longest + 1 + recipe.evaluate.sampling.max_tokens
    context = recipe.evaluate.serve.context
    if needed > context:
        raise RecipeError(
            f"evaluate.serve.context: {context} is too small for {benchmark}: its longest prompt "
            f"({longest} tokens) and max_tokens need {needed}"
        )


def _require_answers(run: Run, label: str, traces: Sequence[Trace]) -> None:
    """Raise EngineError where a request failed: a score must not blame the model for it."""
    errors = [trace.error for trace in traces if trace.finish_reason == "error"]
    if errors:
        raise EngineError(
            f"{label}: {len(errors)} of {len(traces)} requests failed, the first: {errors[0]}; the "
            f"engine's log is in {run.engines()}. What was answered is kept: run again to ask "
            "the rest, with a larger evaluate.timeout where they timed out"
        )


def _scores_task(run: Run, resolved: Sequence[ResolvedBenchmark]) -> Task:
    recipe = run.recipe
    cells = [(model, benchmark) for benchmark in resolved for model in models(recipe)]
    inputs = [
        path(model, benchmark.name)
        for model, benchmark in cells
        for path in (run.score_traces, run.score_verdicts)
    ]

    def work() -> Mapping[str, Any]:
        scores: list[Score] = []
        results: dict[tuple[str, str], Outcomes] = {}
        for model, benchmark in cells:
            traces = read_rows(run.score_traces(model, benchmark.name), Trace)
            verdicts = read_rows(run.score_verdicts(model, benchmark.name), Verdict)
            protocol = dumps(protocol_of(recipe, benchmark))
            scores.append(score_row(model, benchmark.name, traces, verdicts, protocol=protocol))
            results[model, benchmark.name] = outcomes(verdicts)
        comparisons = comparison_rows(results, compared(recipe))
        write_rows(run.scores(), scores, Score)
        write_rows(run.comparisons(), comparisons, Comparison)
        possible = len(compared(recipe)) * len(resolved)
        return {
            "scores": len(scores),
            "comparisons": len(comparisons),
            "left_out": possible - len(comparisons),
        }

    settings = {
        "models": models(recipe),
        "protocols": {b.name: protocol_of(recipe, b) for b in resolved},
    }
    outputs = (run.scores(), run.comparisons())
    return Task("evaluate", "scores", tuple(inputs), outputs, settings, work)


def _gguf(run: Run, model: str) -> Path:
    quantization = run.recipe.evaluate.serve.quantization
    return run.folder("evaluate") / "gguf" / f"{model}.{quantization}.gguf"


def _sources(run: Run, model: str) -> tuple[Path, ...]:
    """Return the files a model comes from: none for a base that is no local path."""
    if model != BASE:
        return (_checkpoint(run, model),)
    path = Path(run.recipe.base).expanduser()
    return (path,) if path.exists() else ()


def _checkpoint(run: Run, model: str) -> Path:
    """Return a model's folder; the base is downloaded or converted where need be."""
    if model == BASE:
        return resolve(run.recipe.base)
    return run.merged() if model == MERGED else run.specialist(model)


def _served(run: Run, model: str) -> Path:
    if run.recipe.evaluate.serve.engine == "llama.cpp":
        return _gguf(run, model)
    return _checkpoint(run, model)
