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
from typing import Literal, TypeVar

import numpy as np

from cuvee.errors import MergeError
from cuvee.merge.blocks import (
    Block,
    Counts,
    Raw,
    Rule,
    Stack,
    bfloat16_rows,
    order_statistics,
)
from cuvee.merge.diagnostics.measures import Counted, Sums, sums_of_pair
from cuvee.merge.kernels import KINDS, LANES, Array, Bits, Row, Words, widen_all
from cuvee.merge.methods.divergence import MOMENTS
from cuvee.merge.methods.fusion_kernels import (
    adopt_rows,
    choose,
    diverge_rows,
    scan_rows,
)
from cuvee.merge.methods.spec import Method
from cuvee.merge.threads import scratch

Anchor = Literal["later", "earlier"]
R = TypeVar("R", bound=Row)
QUARTILES = (0.25, 0.5, 0.75)
KEPT = 1 << 25
"""Scores that are kept for selecting a quartile, by all threads together; more are counted."""
SAMPLE = 1 << 16
"""Scores from which it is guessed where the quartiles lie; a tensor of fewer is sampled whole."""
SAMPLED_SHARE = 1 / 128
"""Of a larger tensor's scores are sampled at least; the more, the nearer the guess."""
MARGIN = 1.5
"""Ends of a window are `MARGIN sqrt(n)` ranks of a sample of n from its quartile: three standard
errors, at the least."""


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
    """Rows of an anchor and the other model: [rows, d] each, both bfloat16 bits or float32."""

    rows: tuple[Row, Row]
    release: Callable[[], None] = lambda: None
    """To be called when the rows are not needed any more."""


@dataclasses.dataclass(frozen=True)
class Scan:
    """What a pass learned of the scores around three windows, in one thread or in all."""

    counts: Counts
    """[2, 3]: how many scores are below each window's first value, and below its end."""
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

    if stack.models != 2:
        return Rule(emit, tally=tally)

    def direct(raw: Raw, begin: int, out: Bits) -> tuple[Sums, int]:
        sums, taken = _adopted(raw, begin, out, step=steps[0], anchor=anchor)
        adopted[begin * stack.d] = [taken]
        return sums, 0

    return Rule(emit, tally=tally, direct=direct)


def _decide(stack: Stack, before: Sequence[Step], anchor: Anchor) -> Step:
    """Return the next step of a chain.

    One pass over the tensor finds the rows' divergence and samples the scores of every row;
    between the ends that the sample gives, a second pass finds the quartiles. Where the
    sample misled, or too many scores lie there, two passes that only count find them.
    Raises MergeError where the scores overflow.
    """
    divergence = np.zeros(stack.rows, np.float32)
    if not stack.elements:
        empty = FusionStatistics(0, 0, 0, None, None, None, None, degenerate=False)
        return Step(divergence, empty)
    passing = Pass(stack, before, anchor, divergence)
    ranks = [int(share * (stack.elements - 1)) for share in QUARTILES]
    sample, differing = _diverged(passing)
    if sample.size == stack.elements:
        quartiles: list[float] | None = _values(np.sort(sample)[ranks])
    else:
        quartiles = _scanned(passing, _windows(sample), ranks)
    q1, median, q3 = quartiles or _counted(passing, ranks)
    threshold = median + 1.5 * (q3 - q1)
    if not math.isfinite(threshold):
        raise _overflow(stack)
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


def _overflow(stack: Stack) -> MergeError:
    return MergeError(
        f"tensor {stack.name}: its weights are so large that their differences overflow "
        "float32; a file is damaged, or a training went wrong"
    )


def _diverged(passing: Pass) -> tuple[Words, int]:
    """Find the rows' divergence; return a sample of scores (as bits) and how many differ."""
    stack = passing.stack
    spans = stack.spans()
    wanted = max(SAMPLE, int(stack.elements * SAMPLED_SHARE))
    each = stack.d if stack.elements <= wanted else min(stack.d, max(1, wanted // stack.rows))
    every = max(1, stack.rows * each // wanted)
    sample = np.zeros((-(-stack.rows // every), each), np.uint32)

    def diverge(number: int) -> int:
        begin, end = spans[number]
        pair = _pair(passing, (begin, end))
        work = (scratch("moments", (MOMENTS, LANES)), scratch("row", (5, stack.d)))
        found = diverge_rows(pair.rows, begin, passing.divergence, sample, every, work)
        if found < 0:
            stack.read(begin, end)  # raises for values that are not finite, and says where
            raise _overflow(stack)
        pair.release()
        return int(found)

    return sample.reshape(-1), sum(stack.threads.map(len(spans), diverge))


def _windows(sample: Words) -> Words:
    """Return between which values (as bits) the quartiles should lie: [2, 3], lows and ends."""
    n = sample.size
    reach = math.ceil(MARGIN * math.sqrt(n))
    middles = [int(share * (n - 1)) for share in QUARTILES]
    lows = [max(0, middle - reach) for middle in middles]
    highs = [min(n - 1, middle + reach) for middle in middles]
    ordered = np.sort(sample)  # vectorised in numpy, and so faster than a partition
    return np.array([ordered[lows], ordered[highs] + np.uint32(1)], np.uint32)


def _scanned(passing: Pass, windows: Words, ranks: Sequence[int]) -> list[float] | None:
    """Return the scores at the given ranks, or None where one is in no window or all are full."""
    stack = passing.stack
    spans = stack.spans()

    def start() -> Scan:
        return Scan(np.zeros((2, 3), np.int64), [], [])

    def step(scan: Scan, number: int) -> None:
        begin, end = spans[number]
        pair = _pair(passing, (begin, end))
        near = scratch("near", ((end - begin) * stack.d // 2 + stack.d + 1,)).view(np.uint32)
        hits = scan_rows(pair.rows, passing.divergence[begin:end], windows, scan.counts, near)
        pair.release()
        if hits < 0 or sum(map(len, scan.near)) + hits > KEPT // stack.threads.count:
            scan.full[:] = [True]
            scan.near.clear()
        elif not scan.full:
            scan.near.append(near[:hits].copy())

    scans = stack.threads.fold(len(spans), start, step)
    below, upto = np.sum([scan.counts for scan in scans], axis=0)
    if any(scan.full for scan in scans) or not np.all((below <= ranks) & (ranks < upto)):
        return None
    near = np.concatenate([words for scan in scans for words in scan.near])
    near.sort()  # in place: there are two copies of them as it is

    def select(r: int) -> np.uint32:
        low, end = windows[:, r]
        if end == low + 1:
            return np.uint32(low)
        first = np.searchsorted(near, low)
        return np.uint32(near[first + ranks[r] - below[r]])

    return _values([select(r) for r in range(len(ranks))])


def _values(bits: Sequence[np.uint32] | Words) -> list[float]:
    return [float(value) for value in np.asarray(bits, np.uint32).view(np.float32)]


def _counted(passing: Pass, ranks: list[int]) -> list[float]:
    """Return the scores at the given ranks of the tensor, once the rows' divergence is known."""

    def scores(block: Block) -> Array:
        result, _ = _fused(block, passing.before, passing.anchor)
        a, b = _ordered(result, block.models[len(passing.before) + 1], passing.anchor)
        with np.errstate(over="ignore", invalid="ignore"):  # a quartile shows it: `_decide`
            found: Array = np.abs((b - a) * passing.divergence[_rows(block), None])
        return found[None]

    return order_statistics(passing.stack, scores, [ranks])[0]


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


def _adopted(raw: Raw, begin: int, out: Bits, *, step: Step, anchor: Anchor) -> tuple[Sums, int]:
    """Write the fusion of two models' rows in bfloat16; return its sums and what was adopted."""
    squares, counts = np.zeros(5, np.float64), np.zeros(5, np.int64)
    threshold = step.statistics.threshold
    adopt_rows(
        bfloat16_rows(raw, out.shape),
        step.divergence[begin : begin + len(out)],
        math.inf if threshold is None or not step.statistics.differing else threshold,
        1 if anchor == "later" else 0,
        out,
        (squares, counts),
    )
    return sums_of_pair(Counted(out.size, squares, counts[:4])), int(counts[4])


def _pair(passing: Pass, span: tuple[int, int]) -> Pair:
    """Return (anchor, other) of a step, rows of a span."""
    stack, before, anchor = passing.stack, passing.before, passing.anchor
    shape = (span[1] - span[0], stack.d)
    if not before and (raw := stack.read_raw(*span)) is not None:
        raw = Raw(raw.parts[:2], raw.kinds[:2], raw.release)
        if set(raw.kinds.tolist()) == {KINDS["BF16"]}:
            one, two = bfloat16_rows(raw, shape)
        else:
            both = scratch("pair", (2, *shape))
            widen_all(raw.parts, raw.kinds, both.reshape(2, -1))
            one, two = both
        return Pair(_ordered(one, two, anchor), raw.release)
    block = stack.read(*span)
    result, _ = _fused(block, before, anchor)
    return Pair(_ordered(result, block.models[len(before) + 1], anchor))


def _ordered(result: R, following: R, anchor: Anchor) -> tuple[R, R]:
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
