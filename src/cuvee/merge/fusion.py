"""Arcee Fusion: adopt from one model the weights that stand out, keep the other's for the rest.

A stack of models in, a rule out. Not here: mergekit's own arithmetic, for those who must
reproduce a published merge (`cuvee.merge.fusion_mergekit`).

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
from collections.abc import Sequence
from typing import Literal

import numpy as np

from cuvee.errors import MergeError
from cuvee.merge.blocks import Block, Counts, Rule, Stack, counts, locate, values_at
from cuvee.merge.fusion_kernels import choose, collect_scores, count_scores, divergences
from cuvee.merge.kernels import HIGH_BINS, LOW_BINS, Array
from cuvee.merge.methods.spec import Method
from cuvee.merge.threads import scratch

Anchor = Literal["later", "earlier"]
QUARTILES = (0.25, 0.5, 0.75)


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


def row_divergence(anchor: Array, other: Array) -> Array:
    """Return KL(softmax(other) || softmax(anchor)) of each row: [rows, d] twice -> [rows]."""
    found = np.empty(len(anchor), np.float32)
    divergences(anchor, other, scratch("divergence", (3, anchor.shape[1])), found)
    return found


def _decide(stack: Stack, before: Sequence[Step], anchor: Anchor) -> Step:
    """Return the next step of a chain: two passes over the tensor."""
    divergence = np.zeros(stack.rows, np.float32)
    if not stack.elements:
        empty = FusionStatistics(0, 0, 0, None, None, None, None, degenerate=False)
        return Step(divergence, empty)

    def add_high(block: Block, bins: Counts) -> None:
        a, b = _pair(block, before, anchor)
        rows = divergence[_rows(block)]
        rows[:] = row_divergence(a, b)
        bins[-1] += count_scores(a, b, rows, bins[:-1])

    found = counts(stack, HIGH_BINS + 1, add_high)
    differing = int(found[-1])
    ranks = [int(share * (stack.elements - 1)) for share in QUARTILES]
    bins, rests = locate(found[:-1], ranks)

    def add_low(block: Block, low: Counts) -> None:
        a, b = _pair(block, before, anchor)
        collect_scores(a, b, divergence[_rows(block)], bins, low)

    q1, median, q3 = values_at(bins, rests, counts(stack, (3, LOW_BINS), add_low))
    statistics = FusionStatistics(
        elements=stack.elements,
        differing=differing,
        adopted=0,
        q1=q1,
        median=median,
        q3=q3,
        threshold=median + 1.5 * (q3 - q1),
        degenerate=bool(differing) and q1 == q3,
    )
    return Step(divergence, statistics)


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


def _pair(block: Block, before: Sequence[Step], anchor: Anchor) -> tuple[Array, Array]:
    """Return (anchor, other) of the step that follows `before`."""
    result, _ = _fused(block, before, anchor)
    return _ordered(result, block.models[len(before) + 1], anchor)


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
