"""Benchmarks: what the recipe declares, and what cuvee knows by name.

In: an entry of `evaluate.benchmarks`. Out: `ResolvedBenchmark`, which says where the
problems are, whose domain they measure and how they are asked and checked. Nothing is
loaded here (`cuvee.problems.stage` does that).
"""

import dataclasses

from cuvee.errors import RecipeError
from cuvee.problems.sources import Asked
from cuvee.recipe import Benchmark, Domain, Recipe, Source


@dataclasses.dataclass(frozen=True)
class Known:
    """A published benchmark that a recipe may give by name."""

    source: Source
    verifier: str
    note: str
    """Licence and what to know of it."""
    missing: str | None = None
    """What cuvee lacks to run it, if anything."""


@dataclasses.dataclass(frozen=True)
class ResolvedBenchmark:
    """A benchmark with everything decided."""

    name: str
    domain: str
    verifier: str
    prompt: str | None
    """The user message with `{question}` in it; None: the verifier's default."""
    source: Source
    samples: int


def _hub(source: str, *, split: str, config: str | None = None, **columns: str) -> Source:
    return Source(source=source, split=split, config=config, columns=columns)


KNOWN = {
    "aime24": Known(
        _hub("HuggingFaceH4/aime_2024", split="train", question="problem", gold="answer"),
        "math",
        "30 problems of 2024 AIME I and II; the hub names no licence; problems © MAA",
    ),
    "aime25": Known(
        _hub("yentinglin/aime_2025", split="train", question="problem", gold="answer"),
        "math",
        "30 problems of 2025 AIME I and II; problems © MAA",
    ),
    "math500": Known(
        _hub("HuggingFaceH4/MATH-500", split="test", question="problem", gold="answer"),
        "math",
        "500 problems of MATH's test set, as chosen for PRM800K; MIT",
    ),
    "gsm8k": Known(
        _hub("openai/gsm8k", config="main", split="test", question="question", gold="answer"),
        "math",
        "1,319 grade-school problems; MIT",
    ),
    "gpqa_diamond": Known(
        _hub("Idavidrein/gpqa", config="gpqa_diamond", split="train"),
        "choice",
        "198 questions with four choices; CC BY 4.0, gated: accept its terms on the hub and set "
        "HF_TOKEN",
    ),
    "livecodebench": Known(
        _hub("livecodebench/code_generation_lite", split="test"),
        "code",
        "279 problems of 2024-08 to 2025-02 in release_v5; CC licence of the hub card",
        missing="the hub has it as a loading script, which `datasets` does not run any more; "
        "download its test*.jsonl and declare the benchmark with their paths",
    ),
}


def resolve_benchmark(name: str, declared: int | Benchmark, recipe: Recipe) -> ResolvedBenchmark:
    """Return what an entry of `evaluate.benchmarks` means in a recipe.

    A declared benchmark takes its domain's verifier and prompt where it gives none; the
    domain's prompt only if the verifier is the domain's too. A benchmark given by name
    alone belongs to the first domain of the recipe with its verifier.
    Raises RecipeError for an unknown name, for one that cannot be run yet, and where no
    domain has the verifier.
    """
    if isinstance(declared, Benchmark):
        if declared.problems.traces is not None:
            raise RecipeError(
                f"evaluate.benchmarks.{name}.problems.traces: a benchmark is answered by the "
                "models it measures; take `traces` out"
            )
        domain = recipe.domains[declared.domain]
        verifier = declared.verifier or domain.verifier
        inherited = domain.prompt if verifier == domain.verifier else None
        prompt = declared.prompt or inherited
        return ResolvedBenchmark(
            name, declared.domain, verifier, prompt, declared.problems, declared.samples
        )
    if name not in KNOWN:
        raise RecipeError(
            f"evaluate.benchmarks.{name}: not a benchmark known by name; known: "
            f"{', '.join(KNOWN)}; or declare it with `problems` and `domain`"
        )
    known = KNOWN[name]
    if known.missing is not None:
        raise RecipeError(
            f"evaluate.benchmarks.{name}: cannot be run by name: {known.missing}, or take it out "
            "of evaluate.benchmarks"
        )
    for domain_name, domain in recipe.domains.items():
        if domain.verifier == known.verifier:
            return ResolvedBenchmark(
                name, domain_name, known.verifier, domain.prompt, known.source, declared
            )
    raise RecipeError(
        f"evaluate.benchmarks.{name}: no domain has its verifier {known.verifier!r}; "
        "declare the benchmark with `problems` and `domain`"
    )


def asked(benchmark: ResolvedBenchmark) -> Asked:
    """Return how a benchmark's items become problems.

    Raises RecipeError where its prompt has no `{question}`.
    """
    asking = {"problems": [benchmark.source], "verifier": benchmark.verifier}
    try:
        domain = Domain.model_validate({**asking, "prompt": benchmark.prompt})
    except ValueError as error:
        raise RecipeError(
            f"evaluate.benchmarks.{benchmark.name}.prompt: must be a format string with "
            f"{{question}}, got {benchmark.prompt!r}"
        ) from error
    return Asked(benchmark.domain, benchmark.verifier, domain.ask)
