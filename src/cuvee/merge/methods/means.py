"""Spherical means of any number of models: multislerp and karcher.

In: a `Stack` of one tensor; out: the `Rule` that merges it, after one pass over the tensor.
A mean on the sphere lies in the span of the inputs, so all of it, iterations as well, is
done on k coefficients with the inputs' k x k Gram matrix in float64; the tensors are summed
once, when a block is written. Where the directions cancel out, no mean on the sphere is
defined (every direction is as good): the result is then the linear mean, marked in the facts.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cuvee.merge.blocks import Rule, Stack
from cuvee.merge.methods.combination import combined, rest_for_base, shares
from cuvee.merge.methods.gram import Gram, cosines, norms, tensor_gram
from cuvee.merge.methods.spec import Method, Parameter


def multislerp(
    stack: Stack, *, weight: Sequence[float], normalize_weights: bool = True, eps: float = 1e-8
) -> Rule:
    """Return `(sum_i w_i n_i) m / |m|`, m = sum_i w_i x_i / (n_i + eps), n_i = |x_i|.

    x_i: model i, [rows, d] seen as one vector, or its task vector if there is a base, which
    is then added; w_i: weight_i, divided by their sum if `normalize_weights`. The published
    method (goddard.blog, "multislerp", 2025) maps the directions u_i into the tangent space
    at m / |m|, sums them there and maps back; but sum_i w_i (u_i - <u_i, m> m / |m|^2) is
    m - m = 0, so that the formula above is all of it. |m| < eps: the linear mean, for any k
    (mergekit: an error from three models on, even for a tensor that is zero in all). Raises
    MergeError for weights that sum to zero and are to be normalised.
    """
    weights = shares(weight, normalize=normalize_weights, tensor=stack.name)
    gram = tensor_gram(stack)
    lengths = norms(gram)
    mean = weights * np.divide(1, lengths + eps, out=np.zeros_like(lengths), where=lengths > 0)
    length = span_length(mean, gram)
    linear = length <= eps
    final = weights if linear else (weights @ lengths) / length * mean
    rest = float(rest_for_base(final)) if stack.has_base else 0.0
    return combined(stack, final, rest, facts={"weights": final.tolist(), "linear": linear})


@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean direction on the sphere, and how it was found."""

    coefficients: NDArray[np.float64]
    """[k] of the unit vectors; their sum has length 1."""
    iterations: int
    step: float
    """Length of the last tangent vector; below the tolerance if the iteration converged."""


def karcher(stack: Stack, *, max_iter: int = 10, tol: float = 1e-5) -> Rule:
    """Return the Karcher mean of the models' directions times the mean of their norms.

    x_i: [rows, d] of model i seen as one vector, n_i = |x_i|, u_i = x_i / n_i; the result is
    `(sum_i n_i / k) m`, m the point of the unit sphere with the least sum of squared angles
    to all u_i (Karcher 1977; for merging arXiv:2603.04972). Models that are zero in this
    tensor have no direction, but count in the mean norm; mergekit treats a norm up to `tol`
    so and returns zeros for a tensor of which all are that small. At most `max_iter` steps,
    ended by a step shorter than `tol` (radians).
    """
    gram = tensor_gram(stack)
    lengths = norms(gram)
    there = np.flatnonzero(lengths)
    found = karcher_mean(cosines(gram)[np.ix_(there, there)], max_iter=max_iter, tol=tol)
    if found is None:
        weights = np.full(stack.models, 1 / stack.models)
        return combined(stack, weights, facts={"weights": weights.tolist(), "linear": True})
    weights = np.zeros(stack.models)
    weights[there] = lengths.mean() * found.coefficients / lengths[there]
    facts = {
        "weights": weights.tolist(),
        "linear": False,
        "iterations": found.iterations,
        "step": found.step,
        "converged": found.step < tol,
    }
    return combined(stack, weights, facts=facts)


def karcher_mean(cosine: Gram, *, max_iter: int, tol: float) -> Mean | None:
    """Return the Karcher mean of unit vectors with the given cosines [k, k].

    Starts at the normalised sum and follows the mean of the logarithms
    `θ_i / sin θ_i (u_i - cos θ_i m)`. A vector opposite to m has none and is left out of that
    step. None: there is no vector, or their sum is shorter than `tol` (mergekit starts at
    the first one, so that the result depends on the models' order).
    """
    k = len(cosine)
    mean = np.full(k, 1 / max(k, 1))
    length = span_length(mean, cosine)
    if not k or length < tol:
        return None
    mean /= length
    step = 0.0
    for iteration in range(max_iter):
        dots = np.clip(cosine @ mean, -1, 1)
        theta = np.arccos(dots)
        sine = np.sin(theta)
        gains = np.divide(theta, sine, out=np.zeros(k), where=sine > tol) / k
        tangent = gains - (gains @ dots) * mean
        step = span_length(tangent, cosine)
        if step < tol:
            return Mean(mean, iteration, step)
        mean = np.cos(step) * mean + np.sin(step) / step * tangent
        mean /= span_length(mean, cosine)
    return Mean(mean, max_iter, step)


def span_length(coefficients: NDArray[np.float64], gram: Gram) -> float:
    """Return the length of sum_i c_i x_i for c [k] and the Gram matrix [k, k] of the x_i."""
    return math.sqrt(max(float(coefficients @ gram @ coefficients), 0.0))


METHODS_HERE = (
    Method(
        "multislerp",
        multislerp,
        base="optional",
        models=(2, None),
        parameters=(
            Parameter("weight", float, None, each_model=True),
            Parameter("normalize_weights", bool, default=True),
            Parameter("eps", float, 1e-8, low=0.0),
        ),
        paper='Goddard 2025, goddard.blog, "multislerp"',
    ),
    Method(
        "karcher",
        karcher,
        base="refused",
        models=(2, None),
        parameters=(
            Parameter("max_iter", int, 10, low=1),
            Parameter("tol", float, 1e-5, low=0.0),
        ),
        paper="Karcher 1977, doi:10.1002/cpa.3160300502; arXiv:2603.04972",
    ),
)
