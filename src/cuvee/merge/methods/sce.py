"""SCE: select the elements that models disagree on, weigh models by them, erase minorities.

In: a stack with a base. Out: a rule. Passes over the tensor: one to count, two for the
threshold (if a selection is made at all), one for the weights, then the merge.
"""

import math

import numpy as np
from numpy.typing import NDArray

from cuvee.merge.blocks import Block, Rule, Stack, copied, order_statistics, sums
from cuvee.merge.kernels import Array
from cuvee.merge.methods.sparse_kernels import add_elected, variance
from cuvee.merge.methods.spec import Method, Parameter
from cuvee.merge.methods.task_vectors import based, differences, finite


def sce(stack: Stack, *, select_topk: float, int8_mask: bool) -> Rule:
    """Select, calculate, erase (Wan et al. 2024, arXiv 2408.07990).

    With v_m = x_m - b [rows, d]: only elements whose variance over the models is among the
    floor(select_topk * (number of variances above 0)) largest are selected (all of them for a
    `select_topk` of 1; equal variances are kept together), the others become 0 in each v_m.
    w_m = |v_m|^2 / sum_j |v_j|^2 over the tensor. Per element, s = sign of sum_m v_m
    (+ for 0), A = {m: v_m has the sign s}; result = b + sum_A w_m v_m / sum_A w_m.
    `int8_mask` changes nothing: there is no mask to save. Raises MergeError without a base.
    """
    least = threshold(stack, select_topk)
    weight = energies(stack, least)
    weights = np.stack([np.ones_like(weight), weight, weight]).astype(np.float32)

    def emit(block: Block) -> Array:
        own = copied(block)
        deltas, (_, base) = selected(own, least), based(own)
        add_elected(deltas, weights, base)
        return base.reshape(block.models.shape[1:])

    facts = {"selected_from": finite(least), "weights": weight.tolist()}
    return Rule(emit, facts)


def variances(block: Block) -> Array:
    """Return the variance of the task vectors over the models: float32 [1, n]."""
    models, base = based(block)
    out = np.empty((1, base.size), np.float32)
    variance(models, base, out[0])
    return out


def threshold(stack: Stack, select_topk: float) -> float:
    """Return the smallest variance selected: 0 selects all, infinity nothing."""
    if select_topk >= 1 or not stack.elements:
        return 0.0

    def moved(block: Block) -> NDArray[np.float64]:
        return np.array([np.count_nonzero(variances(block))], np.float64)

    kept = int(sums(stack, moved)[0] * select_topk)
    if not kept:
        return math.inf
    return order_statistics(stack, variances, [[stack.elements - kept]])[0][0]


def selected(block: Block, least: float) -> Array:
    """Return the task vectors [k, n], 0 where the variance is below `least` (in place)."""
    chosen = variances(block) >= np.float32(least) if least > 0 else None
    deltas = differences(block)
    if chosen is not None:
        deltas *= chosen
    return deltas


def energies(stack: Stack, least: float) -> NDArray[np.float64]:
    """Return w_m [k]: each model's share of the squared task vectors; equal where all are 0."""

    def squares(block: Block) -> NDArray[np.float64]:
        deltas = selected(block, least)
        found: NDArray[np.float64] = np.square(deltas, dtype=np.float64).sum(axis=1)
        return found

    found = sums(stack, squares) if stack.elements else np.zeros(stack.models)
    total = math.fsum(found)
    if total == 0:
        return np.full(stack.models, 1 / stack.models)
    return np.divide(found, total)


METHODS_HERE: tuple[Method, ...] = (
    Method(
        "sce",
        sce,
        base="required",
        models=(1, None),
        parameters=(
            Parameter("select_topk", float, 1.0, low=0.0, high=1.0),
            Parameter("int8_mask", bool, default=False),
        ),
        paper="Wan et al. 2024, arXiv 2408.07990",
    ),
)
