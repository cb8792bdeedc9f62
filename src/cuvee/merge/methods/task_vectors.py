"""Task arithmetic and TIES, and what all methods on sparse task vectors share.

All of them have one form. Per tensor, with base b [rows, d], models x_m [rows, d], m < k:

    v_m = sparse(x_m - b)           each method's own step: `Sparsify`
    result = b + lambda * mean      `summed` or `elected`

In: a stack with a base. Out: a rule whose emit works on a copy of the block. Where the mean
is 0 the result is the base's own number, bit for bit. Means do not depend on the models'
order (see `sparse_kernels`). Thinning at random is in `drops`, by two-sided magnitude in
`breadcrumbs`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from cuvee.errors import MergeError
from cuvee.merge.blocks import Block, Rule, Stack, copied, order_statistics, sums
from cuvee.merge.kernels import Array
from cuvee.merge.methods.sparse_kernels import add_elected, add_sum, distances, trim
from cuvee.merge.methods.spec import Method, Parameter

Sparsify = Callable[[Block], Array]
"""Turns `block.models` into sparse task vectors in place and returns them: [k, n]."""
Emit = Callable[[Block], Array]


class Mixing(TypedDict):
    """How sparse task vectors are added up: the parameters that these methods share."""

    normalize: bool
    """Divide the sum of weighted task vectors by the sum of the weights that went into it."""
    rescale: bool
    """Scale up what is left of a task vector; how is each method's own matter."""
    lambda_: float
    """Factor of the mean task vector."""
    int8_mask: bool
    """Changes nothing: in mergekit it saves memory, here there is no mask to save."""


WEIGHT = Parameter("weight", float, None, each_model=True)
DENSITY = Parameter("density", float, 1.0, low=0.0, high=1.0, each_model=True)


def mixing_parameters(*, normalize: bool, rescale: bool) -> tuple[Parameter, ...]:
    """Return the parameters of `Mixing` with a method's defaults."""
    return (
        Parameter("normalize", bool, normalize),
        Parameter("rescale", bool, rescale),
        Parameter("lambda", float, 1.0),
        Parameter("int8_mask", bool, default=False),
    )


def task_arithmetic(
    stack: Stack, *, weight: Sequence[float], normalize: bool, lambda_: float, int8_mask: bool
) -> Rule:
    """Add up the weighted task vectors (Ilharco et al. 2022, arXiv 2212.04089).

    result [rows, d] = b + lambda * sum_m weight[m] (x_m - b) / N, with N = sum_m weight[m] if
    `normalize` (1 where that is below 1e-8), else 1. `int8_mask` changes nothing.
    Raises MergeError without a base.
    """
    mixing = Mixing(normalize=normalize, rescale=False, lambda_=lambda_, int8_mask=int8_mask)
    return Rule(summed(differences, weight=weight, mixing=mixing))


def ties(
    stack: Stack, *, weight: Sequence[float], density: Sequence[float], **mixing: Unpack[Mixing]
) -> Rule:
    """Trim, elect signs, take the disjoint mean (Yadav et al. 2023, arXiv 2306.01708).

    v_m = x_m - b where |x_m - b| is among the `density[m]` n largest of the tensor's n, else 0
    (at least one element is kept unless the density is 0; equal magnitudes are kept together,
    so more are kept where the smallest kept one occurs several times). Then `elected`.
    With `rescale`, which the paper does not have, v_m is scaled to the L1 norm of x_m - b.
    Raises MergeError without a base.
    """
    n = stack.elements
    wanted = {
        m: [n - max(1, int(share * n))] for m, share in enumerate(density) if n and 0 < share < 1
    }
    found = magnitudes_at(stack, wanted)
    low = [found[m][0] if m in found else lowest(share) for m, share in enumerate(density)]
    cut, facts = trimmed(stack, low=low, high=[math.inf] * stack.models, rescale=mixing["rescale"])
    return Rule(elected(cut, weight=weight, mixing=mixing), facts)


def lowest(density: float) -> float:
    """Return the threshold of a density that needs no order statistic: all or nothing."""
    return 0.0 if density > 0 else math.inf


def based(block: Block) -> tuple[Array, Array]:
    """Return a block's models as [k, n] and its base as [n], both views.

    Raises MergeError where there is no base.
    """
    if block.base is None:
        raise MergeError("a method on task vectors needs a base model: give `base_model`")
    return block.models.reshape(len(block.models), -1), block.base.reshape(-1)


def differences(block: Block) -> Array:
    """Return the task vectors [k, n] as they are (a `Sparsify`)."""
    models, base = based(block)
    models -= base
    return models


def magnitudes_at(stack: Stack, ranks: Mapping[int, Sequence[int]]) -> dict[int, list[float]]:
    """Return |x_m - b| at the given ranks (0: the smallest) for each model m named.

    Exact, in two passes over the tensor; none if no model is named.
    """
    if not ranks:
        return {}
    which = list(ranks)

    def scores(block: Block) -> Array:
        models, base = based(block)
        distances(models, base)
        return models if len(which) == len(models) else models[which]

    found = order_statistics(stack, scores, [ranks[m] for m in which])
    return dict(zip(which, found, strict=True))


def trimmed(
    stack: Stack, *, low: Sequence[float], high: Sequence[float], rescale: bool
) -> tuple[Sparsify, dict[str, list[float | None]]]:
    """Return the step that keeps low[m] <= |x_m - b| <= high[m], and what to record of it.

    With `rescale` each is multiplied by |x_m - b|_1 / |what is kept|_1 over the whole tensor
    (by 1 where nothing but zeros is kept), which takes one more pass.
    """
    lows, highs = np.array(low, np.float32), np.array(high, np.float32)

    def cut(block: Block, scale: NDArray[np.float32]) -> Array:
        models, base = based(block)
        trim(models, base, lows, highs, scale)
        return models

    def norms(block: Block) -> NDArray[np.float64]:
        models, base = based(block)
        whole = np.abs(models - base).sum(axis=1, dtype=np.float64)
        return np.stack([whole, np.abs(cut(block, ones)).sum(axis=1, dtype=np.float64)])

    ones = np.ones(stack.models, np.float32)
    facts = {"kept_from": [finite(value) for value in low], "kept_to": [finite(v) for v in high]}
    if not rescale or not stack.elements:
        return lambda block: cut(block, ones), facts
    whole, kept = sums(stack, norms)
    ratio = np.divide(whole, kept, out=np.ones_like(whole), where=kept > 0)
    scale = ratio.astype(np.float32)
    return lambda block: cut(block, scale), facts | {"scales": scale.tolist()}


def finite(value: float) -> float | None:
    """Return a threshold as JSON has it: None for an infinite one, which bounds nothing."""
    return value if math.isfinite(value) else None


def summed(sparsify: Sparsify, *, weight: Sequence[float], mixing: Mixing) -> Emit:
    """Return the emit of b + lambda * sum_m weight[m] v_m / N.

    N = sum_m weight[m] if `normalize` (1 where its magnitude is below 1e-8, as in mergekit),
    else 1.
    """
    divisor = math.fsum(weight) if mixing["normalize"] else 1.0
    factor = mixing["lambda_"] / (divisor if abs(divisor) >= 1e-8 else 1.0)
    weights = (np.array(weight, np.float64) * factor).astype(np.float32)

    def emit(block: Block) -> Array:
        own = copied(block)
        deltas, (_, base) = sparsify(own), based(own)
        add_sum(deltas, weights, base)
        return base.reshape(block.models.shape[1:])

    return emit


def elected(sparsify: Sparsify, *, weight: Sequence[float], mixing: Mixing) -> Emit:
    """Return the emit of TIES's last two steps, element by element.

    s = sign of sum_m weight[m] v_m (+ for 0); A = {m: weight[m] v_m has the sign s};
    result = b + lambda * (sum over A of weight[m] v_m) / N, with N = the sum of weight[m] over
    A if `normalize` (1 where that is 0), else 1. The paper has no weights: all 1.
    """
    vote = np.array(weight, np.float64)
    divide = vote if mixing["normalize"] else np.zeros_like(vote)
    weights = np.stack([vote, vote * mixing["lambda_"], divide]).astype(np.float32)

    def emit(block: Block) -> Array:
        own = copied(block)
        deltas, (_, base) = sparsify(own), based(own)
        add_elected(deltas, weights, base)
        return base.reshape(block.models.shape[1:])

    return emit


METHODS_HERE: tuple[Method, ...] = (
    Method(
        "task_arithmetic",
        task_arithmetic,
        base="required",
        models=(1, None),
        parameters=(
            WEIGHT,
            Parameter("normalize", bool, default=False),
            Parameter("lambda", float, 1.0),
            Parameter("int8_mask", bool, default=False),
        ),
        paper="Ilharco et al. 2022, arXiv 2212.04089",
    ),
    Method(
        "ties",
        ties,
        base="required",
        models=(1, None),
        parameters=(WEIGHT, DENSITY, *mixing_parameters(normalize=True, rescale=False)),
        paper="Yadav et al. 2023, arXiv 2306.01708",
    ),
)
