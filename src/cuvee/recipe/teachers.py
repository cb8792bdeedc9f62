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


class Prices(Section):
    """What a teacher costs, in US dollars a million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    """Reasoning tokens included, as servers count them."""


OF_A_PUBLISHED_TEACHER = {"name", "published", "domains", "terms"}
"""The keys that say something of a teacher that is never asked."""


class Teacher(Section):
    """One teacher; exactly one of `url`, `serve`, `scripted` and `published`."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    url: str | None = None
    """Base URL of an OpenAI-style server, ending in `/v1` as a rule."""
    model: str | None = None
    """The model's name on that server."""
    key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Environment variable that holds the API key. Keys never stand in a recipe."""
    serve: Serve | None = None
    scripted: Scripted | None = None
    published: bool = False
    """Its traces stand in the sources that name it (`traces:`); it is never asked."""
    system: str | None = None
    domains: list[str] | None = None
    """Which domains it answers; None: all."""
    samples: int = Field(default=1, ge=1)
    concurrency: int = Field(default=16, ge=1)
    timeout: float = Field(default=600, gt=0)
    """Seconds for one try of a request; with `stream`, without a word from the server."""
    deadline: float | None = Field(default=None, gt=0)
    """Seconds for a request with all its tries; None: as long as `retries` last."""
    stream: bool = False
    """Take the answer as it is written: for servers whose gateway ends long silences."""
    retries: int = Field(default=5, ge=0)
    """Tries after the first, for errors that may pass (429, 5xx, resets)."""
    sampling: Sampling = Sampling()
    usd_per_mtok: Prices | None = None
    terms: str | None = None
    """Licence or terms under which its answers may be trained on; for the report."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [k for k in ("url", "serve", "scripted", "published") if getattr(self, k)]
        if len(kinds) != 1:
            given = kinds or "none"
            raise ValueError(
                f"a teacher has exactly one of url, serve, scripted, published; got {given}"
            )
        if self.url is not None and self.model is None:
            raise ValueError("a teacher with url needs model")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url must begin with http:// or https://, got {self.url!r}")
        if self.serve is not None and (self.serve.model or self.model) is None:
            raise ValueError("a teacher with serve needs model: what to serve")
        return self

    @model_validator(mode="after")
    def _never_asked(self) -> Self:
        if not self.published:
            return self
        fields = type(self).model_fields
        idle = [
            key
            for key in sorted(set(fields) - OF_A_PUBLISHED_TEACHER)
            if getattr(self, key) != fields[key].get_default(call_default_factory=True)
        ]
        if idle:
            raise ValueError(f"a published teacher is never asked; remove {', '.join(idle)}")
        return self

    def may_answer(self, domain: str) -> bool:
        """Return whether its `domains` allow a domain."""
        return self.domains is None or domain in self.domains
