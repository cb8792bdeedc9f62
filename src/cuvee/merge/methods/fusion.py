"""Arcee Fusion: adopt from one model the weights that stand out, keep the other's for the rest.

A stack of models in, a rule out. Not here: mergekit's own arithmetic, for those who must
reproduce a published merge (`cuvee.merge.methods.fusion_mergekit`).

The rule for an anchor A and another tensor B of one shape, row by row over the last dimension
(one distribution an output of a Linear, one a token of an embedding; a 1-D tensor is one row,
a single number a row of one)::

    q = softmax(A)   r = log softmax(B) - log softmax(A)
    KL_row = sum_j q_j (r_j e^{r_j} - expm1(r_j))          = KL(softmax(B) || softmax(A))
    importance_ij = |B_ij - A_ij| KL_row
    threshold = median + 1.5 (Q3 - Q1)                      of the tensor's importance
    fused = B where importance >= threshold, else A

This is what mergekit's `arcee_fusion` computes, without its rounding: the plain sum
``p log(p/q)`` in float32 gives up to 45 % of the rows a negative divergence for small
updates, since a first-order rounding error swamps a second-order quantity; here every term
is >= 0. `r` is taken from the difference of the weights, for the same reason. Quantiles are
exact order statistics (index floor(share * (n - 1)), as in mergekit) of all elements, not of
a random million. TinyR1 (arXiv 2503.04872, section 2.2) *writes* another rule than the code
it ran: a softmax over the whole tensor, one KL(Left || Right) a tensor, a signed difference
and `>`. The code is what made the published models, so the code's rule stands here.

More than two models are fused in a chain. The rule looks at one tensor alone, so a chain for
each tensor is a chain of whole models that is never rounded in between.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cuvee.errors import MergeError
from cuvee.merge.blocks import Block, Counts, Rule, Stack, locate, order_statistics
from cuvee.merge.kernels import HIGH_BINS, LOW_BINS, Array
from cuvee.merge.methods.fusion_kernels import WIDTH, Words, choose, score_rows
from cuvee.merge.methods.spec import Method
from cuvee.merge.threads import Threads, scratch

Anchor = Literal["later", "earlier"]
QUARTILES = (0.25, 0.5, 0.75)
KEPT = 1 << 25
"""Scores that are kept for selecting a quartile, by all threads together; more are counted."""
SAMPLE, SAMPLE_SPANS = 1 << 18, 16
"""Elements, and places in the tensor, from which the windows are guessed."""


@dataclasses.dataclass(frozen=True)
class FusionStatistics:
    """What one fusion did to one tensor. Quantiles are None for an empty tensor."""

    elements: int
    differing: int
    """Elements in which the two tensors differ."""
    adopted: int
    """Elements taken from the other tensor; 0 where the two are identical."""
    q1: float | None
    median: float | None
    q3: float | None
    threshold: float | None
    degenerate: bool
    """The middle half of the scores ties, so that the threshold is the median and at least
    half of the tensor was adopted: nearly always ties at 0 (threshold 0, all adopted), since
    hardly any weight moved, or rows of one element."""


@dataclasses.dataclass(frozen=True)
class Step:
    """One fusion of a chain, decided: which rows diverge how much, and from where to adopt."""

    divergence: Array
    """[rows] float32, >= 0."""
    statistics: FusionStatistics
    """`adopted` is still 0."""


@dataclasses.dataclass(frozen=True)
class Pass:
    """A step of a chain that is being decided."""

    stack: Stack
    before: Sequence[Step]
    """The steps before it."""
    anchor: Anchor
    divergence: Array
    """[rows]"""


@dataclasses.dataclass(frozen=True)
class Pair:
    """Rows of an anchor and the other model, as bytes of the dtypes `kinds` (`kernels.KINDS`)."""

    parts: tuple[NDArray[np.uint8], NDArray[np.uint8]]
    kinds: NDArray[np.int64]
    release: Callable[[], None] = lambda: None
    """To be called when the bytes are not needed any more."""


@dataclasses.dataclass(frozen=True)
class Scores:
    """What one pass learned of the scores, in one thread or in all."""

    high: Counts
    """[HIGH_BINS + 1]: how often each value of the upper bits occurs, and how many differ."""
    near: list[Words]
    """The scores in the windows, as bits."""
    full: list[bool]
    """[True] where there were too many of them to keep."""


def arcee_fusion(stack: Stack, *, anchor: Anchor) -> Rule:
    """Return the rule that fuses the models [models] in order, two at a time.

    `later`: the second model is the anchor of the first fusion, the third of the fusion with
    its result, and so on (TinyR1); `earlier`: what came before is the anchor. One model comes
    back as it is. Every element of the result is an exact copy of a model's. Facts:
    `fusions`, the `FusionStatistics` of each step.
    """
    if stack.models < 1:
        raise MergeError("nothing to fuse: no models")
    steps: list[Step] = []
    for _ in range(stack.models - 1):
        steps.append(_decide(stack, steps, anchor))
    adopted: dict[int, list[int]] = {}

    def emit(block: Block) -> Array:
        result, adopted[block.begin] = _fused(block, steps, anchor)
        return result

    def tally() -> dict[str, object]:
        taken = np.array(list(adopted.values()), np.int64).reshape(len(adopted), len(steps))
        totals = taken.sum(axis=0)
        found = [
            dataclasses.replace(step.statistics, adopted=int(total))
            for step, total in zip(steps, totals, strict=True)
        ]
        return {"fusions": [dataclasses.asdict(statistics) for statistics in found]}

    return Rule(emit, tally=tally)


def _decide(stack: Stack, before: Sequence[Step], anchor: Anchor) -> Step:
    """Return the next step of a chain.

    A sample tells about where the quartiles lie. A pass over the tensor counts the upper bits
    of all scores and keeps the scores near those places. Where the sample misled, the counts
    say where the quartiles are, and a second pass finds them. Raises MergeError where the
    scores overflow.
    """
    divergence = np.zeros(stack.rows, np.float32)
    if not stack.elements:
        empty = FusionStatistics(0, 0, 0, None, None, None, None, degenerate=False)
        return Step(divergence, empty)
    passing = Pass(stack, before, anchor, divergence)
    shares = np.array(QUARTILES)
    ranks = (shares * (stack.elements - 1)).astype(np.int64)
    sample = _scored(passing, _sample_spans(stack), np.zeros(3, np.uint32)).high[:-1]
    windows = _windows(sample, (shares * (sample.sum() - 1)).astype(np.int64))
    found = _scored(passing, stack.spans(), windows)
    bins, rests = locate(found.high[:-1], ranks)
    if np.any((bins < windows) | (bins >= windows + WIDTH)):
        windows = _windows(found.high[:-1], ranks)
        found = _scored(passing, stack.spans(), windows)
    if found.full:  # ties by the million
        q1, median, q3 = _counted(passing, ranks.tolist())
    else:
        q1, median, q3 = _selected(stack.threads, np.concatenate(found.near), bins, rests)
    threshold = median + 1.5 * (q3 - q1)
    if not math.isfinite(threshold):
        raise MergeError(
            f"tensor {stack.name}: its weights are so large that their differences overflow "
            "float32; a file is damaged, or a training went wrong"
        )
    differing = int(found.high[-1])
    statistics = FusionStatistics(
        elements=stack.elements,
        differing=differing,
        adopted=0,
        q1=q1,
        median=median,
        q3=q3,
        threshold=threshold,
        degenerate=bool(differing) and q1 == q3,
    )
    return Step(divergence, statistics)


def _scored(passing: Pass, spans: Sequence[tuple[int, int]], windows: Words) -> Scores:
    """Score the rows of the given spans: their divergence is written, the rest returned."""
    stack = passing.stack

    def start() -> Scores:
        return Scores(np.zeros(HIGH_BINS + 1, np.int64), [], [])

    def step(scores: Scores, number: int) -> None:
        begin, end = spans[number]
        pair = _pair(passing, (begin, end))
        work = scratch("scores", (6, stack.d))
        near = scratch("near", ((end - begin) * stack.d // 2 + stack.d + 1,)).view(np.uint32)
        differing, bad, hits = score_rows(
            pair.parts,
            pair.kinds,
            work,
            passing.divergence[begin:end],
            windows,
            (scores.high[:-1], near),
        )
        if bad:
            stack.read(begin, end)  # raises, and says where
        pair.release()
        scores.high[-1] += differing
        if hits < 0 or sum(map(len, scores.near)) > KEPT // stack.threads.count:
            scores.full[:] = [True]
            scores.near.clear()
        elif not scores.full:
            scores.near.append(near[:hits].copy())

    parts = stack.threads.fold(len(spans), start, step)
    high = parts[0].high
    for part in parts[1:]:
        high += part.high
    near = [words for part in parts for words in part.near]
    return Scores(high, near, [full for part in parts for full in part.full])


def _selected(threads: Threads, near: Words, bins: Words, rests: Counts) -> list[float]:
    """Return the scores of rank rests[r] among those whose upper bits are bins[r]."""

    def select(r: int) -> float:
        lower = near[near >> np.uint32(16) == bins[r]].astype(np.uint16)
        ends = np.cumsum(np.bincount(lower, minlength=LOW_BINS))
        word = (int(bins[r]) << 16) | int(np.searchsorted(ends, rests[r], side="right"))
        return float(np.array([word], np.uint32).view(np.float32)[0])

    return threads.map(len(bins), select)


def _counted(passing: Pass, ranks: list[int]) -> list[float]:
    """Return the scores at the given ranks of the tensor, once the rows' divergence is known."""

    def scores(block: Block) -> Array:
        result, _ = _fused(block, passing.before, passing.anchor)
        a, b = _ordered(result, block.models[len(passing.before) + 1], passing.anchor)
        with np.errstate(over="ignore", invalid="ignore"):  # a quartile shows it: `_decide`
            found: Array = np.abs((b - a) * passing.divergence[_rows(block), None])
        return found[None]

    return order_statistics(passing.stack, scores, [ranks])[0]


def _sample_spans(stack: Stack) -> list[tuple[int, int]]:
    """Return spans of rows, spread over the tensor, of about SAMPLE elements in all."""
    rows = max(1, SAMPLE // max(1, SAMPLE_SPANS * stack.d))
    if rows * SAMPLE_SPANS >= stack.rows:
        return stack.spans()
    return [
        (begin, begin + rows)
        for begin in (
            number * (stack.rows - rows) // (SAMPLE_SPANS - 1) for number in range(SAMPLE_SPANS)
        )
    ]


def _windows(high: Counts, ranks: Counts) -> Words:
    """Return the first bins of windows of WIDTH bins in whose middle the ranks lie."""
    bins, _ = locate(high, ranks)
    first: Words = np.clip(bins.astype(np.int64) - WIDTH // 2, 0, HIGH_BINS - WIDTH).astype(
        np.uint32
    )
    return first


def _fused(block: Block, steps: Sequence[Step], anchor: Anchor) -> tuple[Array, list[int]]:
    """Return a block after the given steps, and how many elements each adopted."""
    result, adopted = block.models[0], []
    for number, step in enumerate(steps):
        a, b = _ordered(result, block.models[number + 1], anchor)
        threshold = step.statistics.threshold
        if threshold is None or not step.statistics.differing:
            result = a
            adopted.append(0)
            continue
        result = scratch(f"fused {number % 2}", a.shape)
        adopted.append(int(choose(a, b, step.divergence[_rows(block)], threshold, result)))
    return result, adopted


def _pair(passing: Pass, span: tuple[int, int]) -> Pair:
    """Return (anchor, other) of a step, rows of a span as bytes."""
    stack, before, anchor = passing.stack, passing.before, passing.anchor
    if not before and (raw := stack.read_raw(*span)) is not None:
        order = [1, 0] if anchor == "later" else [0, 1]
        return Pair((raw.parts[order[0]], raw.parts[order[1]]), raw.kinds[order], raw.release)
    block = stack.read(*span)
    result, _ = _fused(block, before, anchor)
    a, b = _ordered(result, block.models[len(before) + 1], anchor)
    return Pair((_bytes(a), _bytes(b)), np.zeros(2, np.int64))


def _bytes(values: Array) -> NDArray[np.uint8]:
    return values.reshape(-1).view(np.uint8)


def _ordered(result: Array, following: Array, anchor: Anchor) -> tuple[Array, Array]:
    return (following, result) if anchor == "later" else (result, following)


def _rows(block: Block) -> slice:
    rows, d = block.models.shape[1:]
    begin = block.begin // d if d else 0
    return slice(begin, begin + rows)


METHODS_HERE = (
    Method(
        "arcee_fusion",
        arcee_fusion,
        base="refused",
        models=(1, None),
        paper="Arcee AI 2025, mergekit 0.1.0; TinyR1, arXiv 2503.04872",
    ),
)
"""Its anchor, order, mode and version are keys of the config, not parameters."""
