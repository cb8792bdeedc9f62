"""What a plan is made of: a row for each piece of work, and what it comes to. Data only."""

import dataclasses
from collections.abc import Mapping

from cuvee.plan.assumptions import Assumption
from cuvee.plan.figures import NOTHING, Figure
from cuvee.plan.machine import Machine


@dataclasses.dataclass(frozen=True)
class Row:
    """One piece of work. A figure is None where it is unknown; `note` says why."""

    stage: str
    name: str
    requests: Figure | None = NOTHING
    prompt_tokens: Figure | None = NOTHING
    """Tokens of all prompts together; `answer_tokens` of all answers."""
    answer_tokens: Figure | None = NOTHING
    usd: Figure | None = NOTHING
    hours: Figure | None = NOTHING
    disk: Figure | None = NOTHING
    """Bytes that stay."""
    scratch: Figure | None = NOTHING
    """Bytes on disk while it works, beside those."""
    memory: Figure | None = NOTHING
    """Bytes of the fullest device while it works."""
    gpus: int = 0
    """Devices it works on; 0: the CPU, or somebody else's."""
    on_nodes: bool = False
    """Whether those are other nodes' (`serve.over`), so that this machine needs none."""
    lane: str = ""
    """Rows of a stage with different lanes work side by side."""
    turn: int = 1
    """Rows of a stage with a higher turn begin when those before have ended: rounds."""
    tasks: tuple[str, ...] = ()
    """Keys in the manifest."""
    done: bool = False
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Misfit:
    """What this machine has too little of, and the nearest that would do."""

    stage: str
    resource: str
    """`memory`, `disk` or `gpus`."""
    needed: float
    here: float
    words: str
    nearest: str


@dataclasses.dataclass(frozen=True)
class Expected:
    """Whether a domain will have the examples that were asked."""

    domain: str
    problems: Figure | None
    answers: int
    """Of each problem, by all teachers."""
    pass_rate: Figure
    examples: Figure | None
    """Before `target` cuts them."""
    target: int | None
    words: str


@dataclasses.dataclass(frozen=True)
class Budgeted:
    """Whether the budget is enough for asking teachers."""

    limit: str
    """`usd`, `tokens` or `requests`."""
    most: float
    needed: Figure | None
    words: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """The whole of it."""

    name: str
    limit: int | None
    headline: str
    rows: tuple[Row, ...]
    total: Row
    left: Row
    """Of the rows that are not done."""
    spent: Mapping[str, float]
    """Teacher -> dollars spent in the run folder so far."""
    expected: tuple[Expected, ...]
    budget: tuple[Budgeted, ...]
    misfits: tuple[Misfit, ...]
    assumptions: tuple[Assumption, ...]
    notes: tuple[str, ...]
    machine: Machine
    measured_in: str | None
    """The run folder that numbers were taken from."""
