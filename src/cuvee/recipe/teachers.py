"""`teachers:`: who answers the problems: a URL, a served model, or a scripted teacher."""

from typing import Literal, Self

from pydantic import Field, model_validator

from cuvee.recipe.base import Section
from cuvee.recipe.serving import Sampling, Serve

FaultName = Literal[
    "wrong_result", "no_answer", "truncated", "second_language", "repetition",
    "http_429", "http_500", "slow",
]  # fmt: skip


class Scripted(Section):
    """A teacher that needs no model: it answers generated problems by rule, over real HTTP.

    For demos and tests. It makes known faults at known rates and states each in the
    response's `system_fingerprint`, so a report can say what slipped through.
    """

    style: Literal["plain", "verbose", "terse"] = "plain"
    skill: float = Field(default=1.0, ge=0, le=1)
    """Share of requests without a fault of content; the rest are shared among `faults`."""
    faults: list[FaultName] = Field(default_factory=list)
    http_faults: float = Field(default=0.02, ge=0, le=0.5)
    """Share of requests whose first try meets a 429, a 500 or a slow answer."""
    seed: int = 0


class Teacher(Section):
    """One teacher; exactly one of `url`, `serve` and `scripted`."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    url: str | None = None
    """Base URL of an OpenAI-style server, ending in `/v1` as a rule."""
    model: str | None = None
    """The model's name on that server."""
    key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Environment variable that holds the API key. Keys never stand in a recipe."""
    serve: Serve | None = None
    scripted: Scripted | None = None
    system: str | None = None
    domains: list[str] | None = None
    """Which domains it answers; None: all."""
    samples: int = Field(default=1, ge=1)
    concurrency: int = Field(default=16, ge=1)
    timeout: float = Field(default=600, gt=0)
    """Seconds for one request."""
    retries: int = Field(default=5, ge=0)
    """Tries after the first, for errors that may pass (429, 5xx, resets)."""
    sampling: Sampling = Sampling()
    terms: str | None = None
    """Licence or terms under which its answers may be trained on; for the report."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [k for k in ("url", "serve", "scripted") if getattr(self, k) is not None]
        if len(kinds) != 1:
            given = kinds or "none"
            raise ValueError(f"a teacher has exactly one of url, serve, scripted; got {given}")
        if self.url is not None and self.model is None:
            raise ValueError("a teacher with url needs model")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url must begin with http:// or https://, got {self.url!r}")
        if self.serve is not None and (self.serve.model or self.model) is None:
            raise ValueError("a teacher with serve needs model: what to serve")
        return self
