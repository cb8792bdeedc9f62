"""What is measured, and with what: the models of a run, and the protocol of a score.

A number means little without what it was taken with, so every score carries it. Data in,
data out; nothing is opened.
"""

from typing import Any

from cuvee.errors import RecipeError
from cuvee.problems.benchmarks import ResolvedBenchmark, resolve_benchmark
from cuvee.recipe import Recipe
from cuvee.recipe.domains import DEFAULT_PROMPTS

BASE, MERGED = "base", "merged"

INDIFFERENT = {"command", "devices", "model", "replicas", "slots", "start_timeout", "threads"}
"""Keys of `evaluate.serve` that say where and how fast answers come, not which."""


def models(recipe: Recipe) -> list[str]:
    """Return the models of a run in the order they are evaluated."""
    return [BASE, *recipe.trained(), MERGED]


def benchmarks(recipe: Recipe) -> list[ResolvedBenchmark]:
    """Return the recipe's benchmarks with everything decided.

    Raises RecipeError for one that cannot be resolved, and where `max_tokens` leaves no room
    for a prompt in the engine's context.
    """
    evaluate = recipe.evaluate
    room, context = evaluate.sampling.max_tokens, evaluate.serve.context
    if evaluate.benchmarks and room >= context:
        raise RecipeError(
            f"evaluate.sampling.max_tokens: {room} leaves no room for a prompt in "
            f"evaluate.serve.context: {context}; make context larger or max_tokens smaller"
        )
    return [resolve_benchmark(name, entry, recipe) for name, entry in evaluate.benchmarks.items()]


def compared(recipe: Recipe) -> list[tuple[str, str]]:
    """Return the pairs (model, against) of models that are compared on every benchmark.

    Each trained model and the merged one against the base: what was gained. The merged model
    against each specialist: what the merge cost (the merge tax). The merged model against the
    mixture, where there is one: what splitting and merging was worth.
    """
    gained = [(model, BASE) for model in (*recipe.trained(), MERGED)]
    return gained + [(MERGED, model) for model in recipe.trained()]


def engine_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the keys of `evaluate.serve` that decide answers, as JSON values."""
    serve = recipe.evaluate.serve
    settings = serve.model_dump(mode="json", exclude=INDIFFERENT)
    if serve.engine != "llama.cpp":
        settings["quantization"] = None  # of a GGUF export, which only llama.cpp gets
    return settings


def checking_settings(recipe: Recipe) -> dict[str, Any]:
    """Return what decides verdicts apart from the problem, as JSON values."""
    limits = recipe.verify.model_dump(mode="json", exclude={"processes"})
    return {"limits": limits, "sandbox": recipe.sandbox}


def protocol_of(recipe: Recipe, benchmark: ResolvedBenchmark) -> dict[str, Any]:
    """Return what a benchmark's scores are taken with, as JSON values; the same for all models."""
    return {
        "source": benchmark.source.source,
        "limit": recipe.limit,
        "prompt": benchmark.prompt or DEFAULT_PROMPTS[benchmark.verifier],
        "verifier": benchmark.verifier,
        "samples": benchmark.samples,
        "seed": recipe.seed,
        "sampling": recipe.evaluate.sampling.model_dump(mode="json"),
        "serve": engine_settings(recipe),
        "checking": checking_settings(recipe),
    }
