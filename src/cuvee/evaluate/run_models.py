"""The models of a run as files that an engine can serve, and what serves them.

In: a run whose models are trained and merged. Out: the checkpoint of each, its GGUF export
(llama.cpp alone), and a `Reachable` that starts an engine for it. Not here: asking.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cuvee.errors import RecipeError
from cuvee.evaluate.measure import served
from cuvee.evaluate.protocol import BASE, MERGED
from cuvee.models.adapted import load_adapted
from cuvee.models.checkpoint import resolve
from cuvee.models.template import render_prompt
from cuvee.models.tokens import text_ids
from cuvee.problems.benchmarks import ResolvedBenchmark
from cuvee.records import Problem, read_rows
from cuvee.runfolder import Run, Task
from cuvee.teach.reach import Reachable


def find_model(run: Run, model: str) -> Reachable:
    """Return a model of the run by its identity, and what serves it.

    Raises as `cuvee.models.engines.engine_identity` does.
    """
    evaluate = run.recipe.evaluate
    return served(
        model,
        str(gguf(run, model) if is_exported(run) else checkpoint(run, model)),
        evaluate.serve,
        concurrency=evaluate.concurrency,
        timeout=evaluate.timeout,
        engines=run.engines(),
    )


def is_exported(run: Run) -> bool:
    """Return whether the engine serves GGUF files, which are written for it first."""
    return run.recipe.evaluate.serve.engine == "llama.cpp"


def export_task(run: Run, model: str) -> Task:
    """Return the task that writes a model's GGUF file."""
    out = gguf(run, model)

    def work() -> Mapping[str, Any]:
        from cuvee.models.gguf_write import write_gguf  # loads torch

        quantization = run.recipe.evaluate.serve.quantization
        write_gguf(checkpoint(run, model), out, quantization=quantization)
        return {"bytes": out.stat().st_size}

    settings = {"base": run.recipe.base} if model == BASE else {}
    return Task("evaluate", f"export/{model}", sources(run, model), (out,), settings, work)


def require_room(run: Run, model: str, benchmark: ResolvedBenchmark) -> None:
    """Raise RecipeError where the longest prompt and its answer exceed the engine's context."""
    tokenizer = load_adapted(checkpoint(run, model))
    rows = read_rows(run.benchmark(benchmark.name), Problem)
    prompts = (render_prompt(tokenizer, row.prompt) for row in rows)
    longest = max((len(text_ids(tokenizer, prompt)) for prompt in prompts), default=0)
    # One more: a token for the beginning of the sequence, which some engines add.
    needed = longest + 1 + benchmark.sampling.max_tokens
    context = run.recipe.evaluate.serve.context
    if needed > context:
        raise RecipeError(
            f"evaluate.serve.context: {context} is too small for {benchmark.name}: its longest "
            f"prompt ({longest} tokens) and max_tokens need {needed}"
        )


def gguf(run: Run, model: str) -> Path:
    """Return where a model's GGUF file stands."""
    quantization = run.recipe.evaluate.serve.quantization
    return run.folder("evaluate") / "gguf" / f"{model}.{quantization}.gguf"


def sources(run: Run, model: str) -> tuple[Path, ...]:
    """Return the files a model comes from: none for a base that is no local path."""
    if model != BASE:
        return (checkpoint(run, model),)
    path = Path(run.recipe.base).expanduser()
    return (path,) if path.exists() else ()


def checkpoint(run: Run, model: str) -> Path:
    """Return a model's folder; the base is downloaded or converted where need be."""
    if model == BASE:
        return resolve(run.recipe.base)
    return run.merged() if model == MERGED else run.specialist(model)
