"""What a report and a card say of a run, as frozen records: counted, but not yet worded.

Made by `cuvee.release.gather`, read by the report and the card. No file is opened here.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from cuvee.lineage.preflight import Preflight
from cuvee.recipe import Recipe
from cuvee.records import Comparison, Score, Trace, Verdict
from cuvee.release.exports import Export
from cuvee.release.graded import GradedDomain
from cuvee.release.refined import RefinedCount
from cuvee.release.rounds import RoundRow


@dataclasses.dataclass(frozen=True)
class Funnel:
    """How one domain's problems became examples. Mappings are reason -> rows."""

    domain: str
    problems: int
    """Problems that were kept and asked."""
    problems_dropped: Mapping[str, int]
    traces: int
    finish: Mapping[str, int]
    """`finish_reason` -> traces; sums to `traces`."""
    verdicts: Mapping[str, Mapping[str, int]]
    """Verdict -> reason -> traces."""
    dropped: Mapping[str, int]
    """Traces that were not chosen."""
    examples: int
    untrained: int
    """Examples that training left out because they are longer than `train.max_tokens`."""
    held_out: int
    """Examples that were not trained on but measured, by `train.held_out`."""

    @property
    def loaded(self) -> int:
        """Return how many problems the sources gave."""
        return self.problems + sum(self.problems_dropped.values())

    @property
    def trained(self) -> int:
        """Return how many examples the specialist was trained on."""
        return self.examples - self.untrained - self.held_out

    @property
    def judged(self) -> int:
        """Return how many traces have a verdict."""
        return sum(sum(reasons.values()) for reasons in self.verdicts.values())

    @property
    def unaccounted(self) -> int:
        """Return the traces that are neither example nor dropped; 0 in a sound run."""
        return self.traces - self.examples - sum(self.dropped.values())


@dataclasses.dataclass(frozen=True)
class FaultCount:
    """What became of the traces that scripted teachers made with one known fault."""

    fault: str
    """`none` for the sound traces."""
    made: int
    correct: int
    """Of them, those the verifier called correct."""
    dropped: int
    trained: int
    """Of them, the examples that were trained on: neither too long nor held out."""


@dataclasses.dataclass(frozen=True)
class TeacherCount:
    """What one teacher did in all its domains."""

    name: str
    kind: str
    """`scripted`, `url`, `serve` or `published`."""
    model: str | None
    """What answers; None where a script does."""
    terms: str | None
    traces: int
    failed: int
    truncated: int
    checked: int
    """Traces with verdict correct, wrong or no_answer."""
    correct: int
    examples: int
    completion_tokens: int
    tokens_unknown: int
    """Answers (failed requests apart) whose server did not count tokens."""
    usd: float | None
    """Of all answers, by the teacher's prices; None where the price of one is unknown."""


@dataclasses.dataclass(frozen=True)
class TrainPoint:
    """One line of a trained model's log."""

    step: int
    loss: float
    tokens: int
    """Read so far."""
    seconds: float
    """Of this step."""


@dataclasses.dataclass(frozen=True)
class HeldOutPoint:
    """One measurement of the loss on the held-out examples."""

    step: int
    loss: float


@dataclasses.dataclass(frozen=True)
class Training:
    """What one training said of itself."""

    log: tuple[TrainPoint, ...]
    """In order of steps, as the next."""
    held_out: tuple[HeldOutPoint, ...]
    """Empty where nothing was held out."""
    preflight: Preflight
    has_page: bool
    """Whether `preflight.html` stands beside the weights."""


@dataclasses.dataclass(frozen=True)
class Adopted:
    """What one fusion adopted of one tensor."""

    fusion: str
    """Which model was fused into which anchor: `math into code`."""
    layer: int | None
    """None for weights outside the layers (embeddings, head, last norm)."""
    module: str
    """The tensor's name in its layer, without `.weight`: `self_attn.q_proj`."""
    share: float
    """Of the elements, in [0, 1]."""
    elements: int
    differing: int
    """Elements in which the two models differ: only these could be adopted."""
    degenerate: bool
    """The threshold was 0: all that differs was adopted, whatever it is worth."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """One trace to look at; its texts come from a model and are not to be trusted."""

    trace: Trace
    prompt: str | None
    """None where the problem is no longer there."""
    verdict: Verdict | None
    dropped: str | None
    """Why it was dropped; None for an example."""
    detail: str | None
    """What was measured when it was dropped."""


@dataclasses.dataclass(frozen=True)
class Published:
    """A score that others published, for the eye alone: it is never compared with ours."""

    model: str
    score: float
    """In [0, 1]."""
    source: str
    """Where it was published."""
    note: str
    """What is known of how it was taken; may be empty."""


@dataclasses.dataclass(frozen=True)
class Pairing:
    """How often two models answered each problem of one benchmark right."""

    benchmark: str
    model: str
    against: str
    shares: tuple[tuple[float, float], ...]
    """Of each problem: the share of checked samples that are right, of `model` and of `against`."""
    left_out: int
    """Problems that one of the two did not answer, or whose answers could not be checked."""

    @property
    def ahead(self) -> int:
        """Return on how many problems `model` is right more often."""
        return sum(own > other for own, other in self.shares)

    @property
    def behind(self) -> int:
        """Return on how many problems `against` is right more often."""
        return sum(own < other for own, other in self.shares)


@dataclasses.dataclass(frozen=True)
class TaskTime:
    """One task of the manifest."""

    stage: str
    name: str
    begun: str
    seconds: float
    counts: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Facts:
    """All that is said of a run."""

    recipe: Recipe
    recipe_text: str
    """The resolved recipe as YAML."""
    scores: tuple[Score, ...]
    comparisons: tuple[Comparison, ...]
    published: Mapping[str, tuple[Published, ...]]
    """Benchmark -> what others published of it; benchmarks without are not among them."""
    pairings: tuple[Pairing, ...]
    """The merged model against the base and against each benchmark's specialist."""
    funnels: tuple[Funnel, ...]
    faults: tuple[FaultCount, ...]
    """Empty where no scripted teacher took part."""
    teachers: tuple[TeacherCount, ...]
    lengths: Mapping[str, tuple[int, ...]]
    """Domain -> tokens of each example."""
    training: Mapping[str, Training]
    """Model -> its training: of the domains' specialists, then of the mixture if there is one."""
    adopted: tuple[Adopted, ...]
    exports: tuple[Export, ...]
    """The recipe's GGUF files, in its order."""
    samples: tuple[Sample, ...]
    refined: tuple[RefinedCount, ...]
    """Of the domains that are refined, as the next: where none is, it is empty."""
    graded: tuple[GradedDomain, ...]
    """Of those that have a rubric."""
    rounds: Mapping[str, tuple[RoundRow, ...]]
    """Domain -> the rounds that were begun; empty without `rounds`."""
    tasks: tuple[TaskTime, ...]
    """By stage, in the order they began; the tasks of `release` itself are not among them."""
    versions: Mapping[str, str]

    @property
    def wrong_trained(self) -> int | None:
        """Return how many traces with a wrong result reached training; None if unknowable."""
        if not self.faults:
            return None
        return sum(f.trained for f in self.faults if f.fault == "wrong_result")
