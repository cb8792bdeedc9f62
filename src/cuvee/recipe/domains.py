"""`domains:`: where problems come from, how they are asked, checked and selected."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from cuvee.recipe.base import Section

VerifierName = Literal["math", "code", "choice", "judge", "none"]
SandboxName = Literal["bubblewrap", "landlock", "none"]

DEFAULT_PROMPTS: dict[str, str] = {
    "math": (
        "{question}\n\nPlease reason step by step, and put your final answer within \\boxed{{}}."
    ),
    "code": "{question}\n\nAnswer with one Python code block.",
    "choice": (
        "{question}\n\nPlease reason step by step, and put the letter of your choice within "
        "\\boxed{{}}."
    ),
    "judge": "{question}",
    "none": "{question}",
}


class Source(Section):
    """One source of problems.

    `source` is a hub id, a path to `.parquet/.jsonl/.json/.csv`, `generator:arithmetic`,
    `generator:functions`, or `gym:NAME` (reasoning-gym, extra `gym`).
    """

    source: str
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    where: dict[str, Any] = Field(default_factory=dict)
    """Column -> value it must have (compared as the file holds it, strings as strings)."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Our name (`question`, `gold`, `tests`) -> the column's name in the file."""
    count: int | None = Field(default=None, ge=1)
    """How many problems: required of a generator, a cap for everything else."""
    seed: int = 0
    args: dict[str, Any] = Field(default_factory=dict)
    """Arguments of a generator, checked by it."""


class Select(Section):
    """Which traces become examples. Every drop is written as a row with its reason."""

    accept: tuple[Literal["correct", "not_checked"], ...] = ("correct",)
    tokens: tuple[int, int] = (1, 32768)
    """Smallest and largest count of reasoning + answer, by the student's tokenizer."""
    per_problem: int = Field(default=1, ge=1)
    target: int | None = Field(default=None, ge=1)
    """How many examples at most; None keeps all."""
    policy: Literal["shortest", "round_robin"] = "round_robin"
    """`shortest` correct trace, or teachers in turn (balance), shortest first in each."""
    language: Literal["en", "zh", "any"] = "any"
    """The language the reasoning must be in."""
    language_share: float = Field(default=0.9, ge=0, le=1)
    """Least share of the wanted script among the letters of the reasoning."""
    max_repetition: float = Field(default=0.3, ge=0, le=1)
    """Largest share of repeated word 8-grams in the reasoning."""

    @model_validator(mode="after")
    def _window(self) -> Self:
        low, high = self.tokens
        if not 0 <= low <= high:
            raise ValueError(f"tokens must be [low, high] with 0 <= low <= high, got {self.tokens}")
        return self


class Domain(Section):
    """One training set, one specialist."""

    problems: list[Source] = Field(min_length=1)
    verifier: VerifierName
    judge: str | None = None
    """The teacher that decides, where `verifier` is `judge`; its answers are kept as traces."""
    prompt: str | None = None
    """The user message, with `{question}` in it (other braces doubled, as in str.format)."""
    select: Select = Select()

    @model_validator(mode="after")
    def _prompt(self) -> Self:
        try:
            filled = self.ask("x\x00y")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"prompt is not a format string with {{question}}: {error}") from error
        if "x\x00y" not in filled:
            raise ValueError("prompt must contain {question}")
        return self

    @model_validator(mode="after")
    def _judge(self) -> Self:
        if (self.verifier == "judge") != (self.judge is not None):
            raise ValueError(
                "judge names the teacher that decides: needed with `verifier: judge`, and "
                f"refused with any other; got verifier {self.verifier!r}, judge {self.judge!r}"
            )
        return self

    def ask(self, question: str) -> str:
        """Return the user message for a question."""
        return (self.prompt or DEFAULT_PROMPTS[self.verifier]).format(question=question)
