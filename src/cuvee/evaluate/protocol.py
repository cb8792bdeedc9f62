"""What is measured, and with what: the models of a run, and the protocol of a score.

A number means little without what it was taken with, so every score carries it. Data in,
data out; nothing is opened.
"""

import dataclasses
from typing import Any

from cuvee.errors import RecipeError
from cuvee.problems.benchmarks import ResolvedBenchmark, resolve_benchmark
from cuvee.problems.files import is_file
from cuvee.problems.loading import GENERATED
from cuvee.recipe import Recipe, Sampling, Serve, Source, Teacher, Verify
from cuvee.recipe.domains import DEFAULT_PROMPTS

BASE, MERGED = "base", "merged"

INDIFFERENT = {
    *("address", "command", "devices", "gpus", "model", "over", "replicas", "slots"),
    *("start_timeout", "threads"),
}
"""Keys of `evaluate.serve` that say where and how fast answers come, not which."""

SEEDS = "first 16 hex digits of sha256 of JSON [seed,problem id,sample], modulo 2^31"
"""How each sample's seed is made (`cuvee.teach.request.request_seed`)."""


@dataclasses.dataclass(frozen=True)
class Taken:
    """A benchmark as it was asked: what a score's protocol says of it, whatever the model."""

    benchmark: str
    source: Source
    revision: str | None
    """Commit of a hub set, `sha256:...` of local files, None of generated problems."""
    limit: int | None
    """Problems at most, of a pilot; None: all."""
    prompt: str | None
    """With `{question}`; None: the verifier's default."""
    verifier: str
    samples: int
    seed: int
    sampling: Sampling


def models(recipe: Recipe) -> list[str]:
    """Return the models of a run in the order they are evaluated."""
    return [BASE, *recipe.trained(), MERGED]


def scored(recipe: Recipe) -> list[str]:
    """Return whoever gets a score: the models of the run, then the teachers that are named."""
    return [*models(recipe), *recipe.evaluate.teachers]


def benchmarks(recipe: Recipe) -> list[ResolvedBenchmark]:
    """Return the recipe's benchmarks with everything decided.

    Raises RecipeError for one that cannot be resolved, and where its `max_tokens` leaves no
    room for a prompt in an engine's context.
    """
    evaluate = recipe.evaluate
    found = [resolve_benchmark(name, entry, recipe) for name, entry in evaluate.benchmarks.items()]
    contexts = {"evaluate.serve.context": evaluate.serve.context} | {
        f"teachers.{teacher.name}.serve.context": teacher.serve.context
        for teacher in recipe.teachers
        if teacher.name in evaluate.teachers and teacher.serve is not None
    }
    for benchmark in found:
        for key, context in contexts.items():
            if benchmark.sampling.max_tokens >= context:
                raise RecipeError(
                    f"benchmark {benchmark.name}: max_tokens {benchmark.sampling.max_tokens} "
                    f"leaves no room for a prompt in {key}: {context}; make context larger, or "
                    "evaluate.sampling.max_tokens smaller"
                )
    return found


def compared(recipe: Recipe) -> list[tuple[str, str]]:
    """Return the pairs (model, against) of models that are compared on every benchmark.

    Each trained model and the merged one against the base: what was gained. The merged model
    against each specialist: what the merge cost (the merge tax). The merged model against the
    mixture, where there is one: what splitting and merging was worth. The merged model against
    each scored teacher: what is left to learn.
    """
    gained = [(model, BASE) for model in (*recipe.trained(), MERGED)]
    return gained + [(MERGED, model) for model in (*recipe.trained(), *recipe.evaluate.teachers)]


def engine_settings(serve: Serve) -> dict[str, Any]:
    """Return the keys of a `serve` that decide answers, as JSON values."""
    settings = serve.model_dump(mode="json", exclude=INDIFFERENT)
    if serve.engine != "llama.cpp":
        settings["quantization"] = None  # of a GGUF export, which only llama.cpp gets
    return settings


def teacher_settings(teacher: Teacher) -> dict[str, Any]:
    """Return what a protocol says of who serves a teacher, as JSON values; never a key."""
    if teacher.serve is not None:
        return engine_settings(teacher.serve) | {"model": teacher.serve.model or teacher.model}
    if teacher.scripted is not None:
        return {"engine": "scripted", **teacher.scripted.model_dump(mode="json")}
    return {"engine": "url", "url": teacher.url, "model": teacher.model}


def checking_settings(limits: Verify, sandbox: str) -> dict[str, Any]:
    """Return what decides verdicts apart from the problem, as JSON values."""
    return {"limits": limits.model_dump(mode="json", exclude={"processes"}), "sandbox": sandbox}


def taken(recipe: Recipe, benchmark: ResolvedBenchmark, *, revision: str | None) -> Taken:
    """Return a benchmark as a run asks it; `revision` is the one that was loaded."""
    return Taken(
        benchmark=benchmark.name,
        source=benchmark.source,
        revision=revision,
        limit=recipe.limit,
        prompt=benchmark.prompt,
        verifier=benchmark.verifier,
        samples=benchmark.samples,
        seed=recipe.seed,
        sampling=benchmark.sampling,
    )


def protocol_of(
    asked: Taken, *, serve: dict[str, Any], checking: dict[str, Any], system: str | None = None
) -> dict[str, Any]:
    """Return what a score is taken with, as JSON values.

    `serve` says who served the model (`engine_settings` and the engine's `version`, or
    `teacher_settings`), `checking` is `checking_settings`, `system` the system message.
    """
    return {
        "benchmark": asked.benchmark,
        **_origin(asked.source),
        "revision": asked.revision,
        "limit": asked.limit,
        "system": system,
        "prompt": asked.prompt or DEFAULT_PROMPTS[asked.verifier],
        "verifier": asked.verifier,
        "samples": asked.samples,
        "seed": asked.seed,
        "seeds": SEEDS,
        "sampling": asked.sampling.model_dump(mode="json"),
        "serve": serve,
        "checking": checking,
    }


def _origin(source: Source) -> dict[str, Any]:
    """Return where problems come from: config and split of what has them, `where` if given."""
    found: dict[str, Any] = source.model_dump(mode="json")
    if is_file(source.source) or source.source.startswith(GENERATED):
        found |= {"config": None, "split": None}
    chosen = [key for key in ("where", "window", "count") if found[key]]
    return {key: found[key] for key in ("source", "config", "split", *chosen)}
