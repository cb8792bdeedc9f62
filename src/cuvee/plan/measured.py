"""What a run folder has measured, as data; and how many requests are answered at once.

Numbers problem by problem, of a pilot or of a run under way. Not here: how they are read
(`cuvee.plan.reading`), what follows from them (`cuvee.plan.estimate`).
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from cuvee.recipe import Recipe, Teacher
from cuvee.runfolder import is_incomplete

About = Literal["judge", "rubric", "refine"]
"""What a teacher may be asked about answers that are there."""


@dataclasses.dataclass(frozen=True)
class Answers:
    """What one model answered in one domain or benchmark: means a problem, in order."""

    requests: int
    prompt: tuple[float, ...]
    """Tokens; of problems with a counted answer."""
    completion: tuple[float, ...]
    seconds: tuple[float, ...]
    """Of one request."""
    wall: float
    """Seconds the whole task took."""
    around: float
    """Of those, what was not spent at the full number of requests in flight: start and tail."""
    usd: float | None
    each: tuple[float, ...] = ()
    """Requests of each problem that was asked."""

    @property
    def problems(self) -> int:
        """Return how many problems have an answer."""
        return len(self.seconds)


@dataclasses.dataclass(frozen=True)
class Selected:
    """What became of a domain's answers, problem by problem."""

    right: tuple[float, ...]
    """Share of each problem's answers in the first round that are correct."""
    answers: int
    """In the first round."""
    all_answers: int = 0
    """In all rounds."""
    usable: tuple[tuple[float, ...], ...] = ()
    """Examples each problem could give (before `target`) after the first round, the second, ...;
    empty where select has not run."""
    chosen: tuple[float, ...] = ()
    """Tokens of the chosen traces, before anything refines them."""
    trained: tuple[float, ...] = ()
    """Tokens of the examples; empty where the recipe that is planned refines in another way."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """All that a run folder says."""

    folder: Path | None = None
    limit: int | None = None
    """The pilot's problems a domain; None: the folder is of the whole run."""
    manifest: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    problems: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Domain or benchmark -> problems loaded."""
    teach: Mapping[tuple[str, str], Answers] = dataclasses.field(default_factory=dict)
    """(domain, teacher); of the first round."""
    about: Mapping[tuple[About, str], Answers] = dataclasses.field(default_factory=dict)
    """(what for, domain) -> what a teacher was asked about answers, by the problem."""
    evaluate: Mapping[tuple[str, str], Answers] = dataclasses.field(default_factory=dict)
    """(model, benchmark)."""
    selected: Mapping[str, Selected] = dataclasses.field(default_factory=dict)
    train: Mapping[str, tuple[float, float, float]] = dataclasses.field(default_factory=dict)
    """Name -> tokens trained, seconds of it, seconds around it; same base and settings."""
    spent: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Teacher -> dollars the ledger has booked for this folder."""
    notes: tuple[str, ...] = ()

    def seconds(self, task: str) -> float | None:
        """Return what a task took; None where it is not done."""
        entry = self.manifest.get(task)
        return None if entry is None or is_incomplete(entry) else float(entry["seconds"])

    def is_done(self, task: str, limit: int | None) -> bool:
        """Return whether a task of a plan with this limit has been done in the folder."""
        return self.limit == limit and self.seconds(task) is not None


NOTHING_YET = Measured()


def in_flight(teacher: Teacher) -> int:
    """Return how many requests a teacher answers at once: no more than its engine has slots."""
    if teacher.serve is None:
        return teacher.concurrency
    return min(teacher.concurrency, teacher.serve.slots * teacher.serve.replicas)


def evaluate_flight(recipe: Recipe) -> int:
    """Return how many requests a model of the run answers at once while it is evaluated."""
    serve = recipe.evaluate.serve
    return min(recipe.evaluate.concurrency, serve.slots * serve.replicas)
