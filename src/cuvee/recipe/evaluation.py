"""`evaluate:`: what is measured, and with which engine.

Also the declaration of a benchmark: one small YAML file, cuvee's own or a user's.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from cuvee.recipe.base import Section
from cuvee.recipe.domains import Source, VerifierName, Window, require_question
from cuvee.recipe.serving import Serve


class OwnSampling(Section):
    """Keys of `Sampling` where they are given; None leaves them to who is asked next."""

    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)


class Reference(Section):
    """A score that somebody published for a model."""

    model: str
    score: float = Field(ge=0, le=100)
    """Per cent."""
    source: str
    """Where it was published."""
    note: str = ""
    """Of its protocol, where that is known."""


class Declaration(Section):
    """A benchmark: where its problems are, how they are asked, checked and sampled."""

    name: str = ""
    """The file's name without its suffix; never written in the file."""
    title: str
    source: str
    """Hub id, or a path as in `Source`."""
    revision: str | None = None
    config: str | None = None
    split: str = "test"
    files: dict[str, list[str]] = Field(default_factory=dict)
    """Config -> its files on the hub, where a loading script would name them."""
    columns: dict[str, str] = Field(default_factory=dict)
    where: dict[str, Any] = Field(default_factory=dict)
    window: Window | None = None
    count: int | None = Field(default=None, ge=1)
    problems: int | None = Field(default=None, ge=1)
    """How many there are, as published."""
    verifier: VerifierName
    prompt: str | None = None
    """The user message with `{question}` in it; None: the verifier's default."""
    samples: int = Field(default=1, ge=1)
    sampling: OwnSampling = OwnSampling()
    licence: str | None = None
    note: str = ""
    references: tuple[Reference, ...] = ()

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if self.verifier == "judge":
            raise ValueError("verifier: a judge cannot take a score yet; use another")
        if self.prompt is not None:
            require_question(self.prompt)
        if self.files and self.config not in self.files:
            raise ValueError(
                f"config must be one of those with files: {', '.join(self.files)}; "
                f"got {self.config!r}"
            )
        return self


class Benchmark(Section):
    """An entry of `evaluate.benchmarks`: problems of one's own, or changes of a known one.

    With `problems` and `domain` it is declared here. Without `problems` the name is that of a
    known benchmark, and what is given replaces what is declared.
    """

    problems: Source | None = None
    domain: str | None = None
    """The domain it measures; the prompt and verifier of declared problems are the domain's
    unless given here. None: the first domain with its verifier."""
    verifier: VerifierName | None = None
    prompt: str | None = None
    samples: int | None = Field(default=None, ge=1)
    sampling: OwnSampling = OwnSampling()
    source: str | None = None
    revision: str | None = None
    config: str | None = None
    split: str | None = None
    columns: dict[str, str] | None = None
    where: dict[str, Any] | None = None
    window: Window | Literal["all"] | None = None
    """`all` takes the declared window away."""
    count: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _either(self) -> Self:
        if self.problems is None:
            return self
        if given := [key for key in CHANGES if getattr(self, key) is not None]:
            raise ValueError(
                f"{', '.join(given)}: of a known benchmark; with `problems` they stand in there"
            )
        if self.domain is None:
            raise ValueError("`problems` of one's own need `domain`: which one they measure")
        return self


CHANGES = ("source", "revision", "config", "split", "columns", "where", "window", "count")
"""Keys of `Benchmark` that change where a known benchmark's problems come from."""


def _kind(entry: Any) -> str:
    """Return which of the three forms of an entry it is; one error then says what is wrong."""
    if isinstance(entry, str):
        return "path"
    return "samples" if isinstance(entry, int | float) else "mapping"


Entry = Annotated[
    Annotated[int, Field(ge=1), Tag("samples")]
    | Annotated[str, Tag("path")]
    | Annotated[Benchmark, Tag("mapping")],
    Discriminator(_kind),
]


class Evaluate(Section):
    """The benchmarks, and one protocol for all of them."""

    benchmarks: dict[str, Entry] = Field(default_factory=dict)
    """Name -> samples of a benchmark that cuvee knows by that name; the path of a `.yaml` file
    that declares one; or a mapping (`Benchmark`)."""
    serve: Serve = Serve()
    sampling: OwnSampling = OwnSampling()
    """For all benchmarks; a key that is not given is as each benchmark declares it."""
    concurrency: int = Field(default=32, ge=1)
    timeout: float = Field(default=3600, gt=0)
    teachers: list[str] = Field(default_factory=list)
    """Teachers that are scored too, beside the models of the run."""
