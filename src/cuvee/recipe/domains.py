"""`domains:`: where problems come from, how they are asked, checked and selected."""

import datetime
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from cuvee.recipe.base import Section
from cuvee.recipe.refine import Refine
from cuvee.recipe.rubric import Rubric

VerifierName = Literal["math", "code", "choice", "judge", "instructions", "none"]
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
    "instructions": "{question}",
    "none": "{question}",
}


def require_question(prompt: str) -> None:
    """Raise ValueError where a prompt is no format string with `{question}` in it."""
    try:
        filled = prompt.format(question="x\x00y")
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise ValueError(f"prompt is not a format string with {{question}}: {error}") from error
    if "x\x00y" not in filled:
        raise ValueError("prompt must contain {question}")


class Window(Section):
    """The range that a column's dates, or numbers, must lie in; both ends belong to it."""

    column: str
    """Dates as ISO 8601 text (`2024-08-03T00:00:00` counts as its day), or whole numbers, also
    as the end of a text after a slash (`Mbpp/11`)."""
    from_: datetime.date | int | None = Field(default=None, alias="from")
    until: datetime.date | int | None = None

    @model_validator(mode="after")
    def _ends(self) -> Self:
        ends = [end for end in (self.from_, self.until) if end is not None]
        if not ends:
            raise ValueError("window needs `from`, `until` or both")
        if len({type(end) for end in ends}) > 1:
            raise ValueError(f"from and until must both be dates or numbers, got {ends}")
        if sorted(ends) != ends:
            raise ValueError(f"from must not be after until, got {ends[0]} and {ends[1]}")
        return self


class Source(Section):
    """One source of problems; its form is told by its columns (`cuvee.problems.forms`).

    `source` is a hub id, a path to `.parquet/.jsonl/.json/.csv` or a pattern of such paths, a
    folder in the hub's layout, `generator:arithmetic`, `generator:functions`, or `gym:NAME`
    (reasoning-gym, extra `gym`).
    """

    source: str
    config: str | None = None
    """`config` and `split` are of hub ids and folders, `revision` of hub ids."""
    split: str = "train"
    revision: str | None = None
    """Branch, tag or commit; None: the newest. The commit that was read is recorded."""
    files: list[str] = Field(default_factory=list)
    """Files of a hub set to read, one after another, instead of a config and split: for sets
    that are published with a loading script, which is never run."""
    where: dict[str, Any] = Field(default_factory=dict)
    """Column -> value it must have (compared as the file holds it, strings as strings)."""
    window: Window | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    """Our name (`question`, `gold`, `tests`, `reply`, `reasoning`) -> the column's name."""
    count: int | None = Field(default=None, ge=1)
    """How many problems: required of a generator, a cap for everything else."""
    seed: int = 0
    args: dict[str, Any] = Field(default_factory=dict)
    """Arguments of a generator, checked by it."""
    traces: str | None = None
    """The published teacher whose answers stand in the rows (`generations`, `conversations`,
    `messages`, ...); they become its traces."""
    licence: str | None = None
    """Of the data; None: as known of a published set by its hub id, or unknown."""


class Select(Section):
    """Which traces become examples. Every drop is written as a row with its reason."""

    accept: tuple[Literal["correct", "not_checked"], ...] = ("correct",)
    tokens: tuple[int, int] = (1, 32768)
    """Smallest and largest count of reasoning + answer, by the student's tokenizer."""
    per_problem: int = Field(default=1, ge=1)
    target: int | None = Field(default=None, ge=1)
    """How many examples at most; None keeps all."""
    policy: Literal["shortest", "closest", "round_robin", "best"] = "round_robin"
    """`shortest` correct trace; the one `closest` to `length`; teachers in turn (balance),
    shortest first in each; or the `best` by the domain's `rubric`."""
    length: int | None = Field(default=None, ge=1)
    """Tokens that `closest` aims at: needed by it, refused with any other policy."""
    balance: tuple[Literal["source", "difficulty"], ...] = ()
    """What `target` is shared out evenly over, the second within each of the first; needs a
    target. Empty takes problems as they come."""
    pass_rate: tuple[float, float] = (0, 1)
    """Least and largest share of right ones among a problem's checked traces: too low may be
    right by chance, too high may teach nothing."""
    agreement: float | None = Field(default=None, gt=0.5, le=1)
    """Where a problem has no gold: the least share of its answered traces that must state the
    same answer, which then counts as its gold. None: such problems are left out."""
    votes: int = Field(default=3, ge=2)
    """Traces that state an answer which such a vote needs at least."""
    language: Literal["en", "zh", "any"] = "any"
    """The language the reasoning must be in, told by its script."""
    language_share: float = Field(default=0.9, ge=0, le=1)
    """Least share of that script among the words of the reasoning."""
    max_repetition: float = Field(default=0.4, ge=0, le=1)
    """Largest share of repeated word 8-grams in the reasoning. A loop at its end is always too
    much."""
    max_copied: float = Field(default=0.5, ge=0, le=1)
    """Largest share of the reasoning's word 8-grams that stand in the question."""
    allow_giving_up: bool = False
    """Whether reasoning or answers that end by giving up or guessing are accepted."""
    answer_after: float = Field(default=0.1, ge=0, lt=1)
    """Share of the reasoning that must come before its first boxed answer; 0 for none."""
    rubric_min: float | None = Field(
        default=None, ge=1, le=5, exclude_if=lambda value: value is None
    )
    """Least grade that each point of the domain's `rubric` must have, 1 to 5. None: any."""

    @model_validator(mode="after")
    def _window(self) -> Self:
        low, high = self.tokens
        if not 0 <= low <= high:
            raise ValueError(f"tokens must be [low, high] with 0 <= low <= high, got {self.tokens}")
        least, most = self.pass_rate
        if not 0 <= least <= most <= 1:
            raise ValueError(
                f"pass_rate must be [low, high] with 0 <= low <= high <= 1, got {self.pass_rate}"
            )
        return self

    @model_validator(mode="after")
    def _length(self) -> Self:
        if (self.policy == "closest") != (self.length is not None):
            raise ValueError(
                "length (tokens) is needed by `policy: closest` and refused with any other; got "
                f"policy {self.policy!r}, length {self.length}"
            )
        return self

    @model_validator(mode="after")
    def _balance(self) -> Self:
        if len(set(self.balance)) != len(self.balance):
            raise ValueError(f"balance names each of source, difficulty once; got {self.balance}")
        if self.balance and self.target is None:
            raise ValueError("balance shares out a target: set target too, or leave balance out")
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
    rubric: Rubric | None = Field(default=None, exclude_if=lambda value: value is None)
    """Who grades the reasoning of traces that are right, or cannot be checked, and by what."""
    refine: Refine | None = Field(default=None, exclude_if=lambda value: value is None)
    """How the reasoning of chosen traces is tidied; None: it is trained on as it was written."""

    @model_validator(mode="after")
    def _prompt(self) -> Self:
        require_question(self.prompt or DEFAULT_PROMPTS[self.verifier])
        return self

    @model_validator(mode="after")
    def _judge(self) -> Self:
        if (self.verifier == "judge") != (self.judge is not None):
            raise ValueError(
                "judge names the teacher that decides: needed with `verifier: judge`, and "
                f"refused with any other; got verifier {self.verifier!r}, judge {self.judge!r}"
            )
        return self

    @model_validator(mode="after")
    def _rubric(self) -> Self:
        by_rubric = self.select.rubric_min is not None or self.select.policy == "best"
        if by_rubric and self.rubric is None:
            raise ValueError(
                "select.rubric_min and `policy: best` go by grades: say in `rubric: {teacher: "
                "NAME}` who gives them"
            )
        return self

    @model_validator(mode="after")
    def _agreement(self) -> Self:
        if self.select.agreement is not None and self.verifier not in ("math", "choice"):
            raise ValueError(
                "select.agreement needs answers that can be told equal: verifier math or choice; "
                f"got {self.verifier!r}"
            )
        return self

    def ask(self, question: str) -> str:
        """Return the user message for a question."""
        return (self.prompt or DEFAULT_PROMPTS[self.verifier]).format(question=question)
