"""`Way`: what is known of one problem and its traces, from the source row to the training set.

Frozen records, found by `cuvee.lineage.explain`, shown by `cuvee.lineage.tree` or as JSON.
Texts are whole. No file is opened here.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from cuvee.lineage.decisions import Decision
from cuvee.lineage.requests import Asked
from cuvee.lineage.sources import SourceRecord
from cuvee.records import Dropped, Problem, Verdict
from cuvee.select.refine.rows import Refined
from cuvee.verify.judge_rubric import Grade


@dataclasses.dataclass(frozen=True)
class Grading:
    """How a teacher graded one trace by a rubric."""

    grade: Grade
    points: tuple[tuple[str, float], ...]
    """Each point of the rubric with its grade; empty where it was not graded."""
    answers: tuple[Asked, ...]
    """What the teacher wrote."""


@dataclasses.dataclass(frozen=True)
class Change:
    """One place in which a text was changed."""

    part: Literal["reasoning", "answer"]
    gone: str
    new: str
    """What stands there instead; empty where it was left out alone."""


@dataclasses.dataclass(frozen=True)
class Pass:
    """What came of refining an example in one way: by rules, or by a teacher."""

    row: Refined
    applied: Mapping[str, int]
    """Rule -> pieces it left out."""
    changes: tuple[Change, ...]
    """Empty where the text before stayed."""
    asked: Asked | None
    """The refiner's answer; None for the rules."""


@dataclasses.dataclass(frozen=True)
class Refining:
    """What became of a chosen trace before training."""

    passes: tuple[Pass, ...]
    tokens_before: int
    tokens: int
    reasoning: str
    """Of the example, as `answer`: what is trained on."""
    answer: str


@dataclasses.dataclass(frozen=True)
class Step:
    """One trace on its way."""

    asked: Asked
    verdict: Verdict | None
    """None where the stage `verify` has not written one."""
    judged: tuple[Asked, ...]
    """What a judge was asked of it, where a teacher judges."""
    in_round: int | None
    """The round it was asked in, from 1; None where there are no rounds."""
    grading: Grading | None
    """None where nobody graded it."""
    refining: Refining | None
    """None where it is no example, or examples are not refined, or not yet."""
    decisions: tuple[Decision, ...]
    """Of the filters, in their order; empty where `select` has not said, and for benchmarks."""
    chosen: bool | None
    """Whether it is an example; None where `select` has not said, and for benchmarks."""
    tokens: int | None
    """Of the example, by the student's tokenizer."""
    too_long: bool | None
    """Whether training left the example out as too long; None where that is not known."""
    held_out: bool | None
    """Whether training kept it back, to measure the loss on it; None as for `too_long`."""


@dataclasses.dataclass(frozen=True)
class Sibling:
    """Another trace of the same problem, in short."""

    id: str
    teacher: str
    sample: int
    finish_reason: str
    verdict: str | None
    """`correct: equal`."""
    end: str | None
    """`chosen`, the reason it was dropped for, or None where `select` has not said."""
    tokens: int | None
    """Of its example."""
    in_round: int | None
    """As of a `Step`."""


@dataclasses.dataclass(frozen=True)
class Way:
    """All that a run knows of one problem, and of one or all of its traces."""

    id: str
    """What was asked for."""
    kind: str
    """What it is: `problem`, `trace`, `judge` or `refiner`."""
    stands_in: str
    """`domain` or `benchmark`."""
    name: str
    """Of the domain or benchmark."""
    problem_id: str
    problem: Problem | None
    """None where it was dropped, or is no longer there."""
    drops: tuple[Dropped, ...]
    """Why it was left out; beside a problem that was kept, why copies of it were."""
    vote: Mapping[str, Any] | None
    """How its traces voted where it has no gold, as `select` recorded it: `outcome`, `answer`,
    `agree` and `traces` (how many state it, of how many), ..."""
    sources: tuple[SourceRecord, ...]
    """Those it can have come from: several where a recipe takes parts of one data set."""
    steps: tuple[Step, ...]
    siblings: tuple[Sibling, ...]
    missing: tuple[str, ...]
    """What is not there yet, with the stage that writes it."""
