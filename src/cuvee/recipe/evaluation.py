"""`evaluate:` and `release:`: what is measured, with which engine, and what is published."""

from typing import Literal

from pydantic import Field

from cuvee.recipe.base import Section
from cuvee.recipe.domains import Source, VerifierName
from cuvee.recipe.serving import Sampling, Serve


class Benchmark(Section):
    """Held-out problems: a source like a domain's, and how often each is sampled."""

    problems: Source
    domain: str
    """The domain it measures; its prompt and verifier are used unless given here."""
    verifier: VerifierName | None = None
    prompt: str | None = None
    samples: int = Field(default=1, ge=1)


class Evaluate(Section):
    """The benchmarks, and one protocol for all of them."""

    benchmarks: dict[str, int | Benchmark] = Field(default_factory=dict)
    """Name -> declaration, or -> samples for a benchmark cuvee knows by name."""
    serve: Serve = Serve()
    sampling: Sampling = Sampling()
    concurrency: int = Field(default=32, ge=1)
    timeout: float = Field(default=3600, gt=0)


class Release(Section):
    """What the last stage writes beside the report."""

    gguf: list[Literal["F32", "F16", "BF16", "Q8_0"]] = Field(default_factory=list)
    card: bool = True
