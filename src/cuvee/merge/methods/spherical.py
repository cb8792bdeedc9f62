"""Spherical interpolation of two models: slerp and nuslerp (of more: means.py).

In: a `Stack` of one tensor; out: the `Rule` that merges it, after one pass for the angle.
Both write `sin((1-t) θ)/sin θ x_0 + sin(t θ)/sin θ x_1`, θ the angle between x_0 and x_1, on
the tensors as they are (not on their directions), and fall back to `(1-t) x_0 + t x_1` where
θ is not defined or the quotient is not sound: vectors on one line, or a vector of length 0
(for which mergekit takes θ = 90° and so makes the other one 41 % longer at t = 0.5).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cuvee.errors import MergeError
from cuvee.merge.blocks import Rule, Stack
from cuvee.merge.methods.combination import (
    combined,
    rest_for_base,
    shares,
    spread_combination,
)
from cuvee.merge.methods.gram import (
    base_gram,
    column_grams,
    cosines,
    norms,
    row_grams,
    tensor_gram,
)
from cuvee.merge.methods.spec import Method, Parameter

SLERP_COLINEAR = 0.9995
"""slerp is linear where |cos θ| exceeds this (mergekit's constant)."""
NUSLERP_COLINEAR = 1e-16
"""nuslerp is linear where sin² θ does not exceed this (mergekit's constant)."""


def slerp(stack: Stack, *, t: float) -> Rule:
    """Return the spherical interpolation from the base (t = 0) to the model (t = 1).

    With x_0 the base and x_1 the model, [rows, d], each seen as one vector; θ from their
    float64 inner products. Linear where |cos θ| > 0.9995 or a tensor is zero; t in [0, 1].
    Shoemake 1985, doi:10.1145/325165.325242.
    """
    gram = base_gram(stack)
    cosine = cosines(gram)[0, 1]
    linear = np.logical_or(abs(cosine) > SLERP_COLINEAR, norms(gram).min() == 0)
    base, model = arc_weights(cosine, t, linear).tolist()
    facts = {"cosine": float(cosine), "weights": [base, model], "linear": bool(linear)}
    return combined(stack, [model], base, facts=facts)


def nuslerp(
    stack: Stack,
    *,
    weight: Sequence[float],
    nuslerp_row_wise: bool = False,
    nuslerp_flatten: bool = True,
) -> Rule:
    """Return the spherical interpolation of two models, or of their task vectors.

    t = weight_1 / (weight_0 + weight_1). With a base, x_i is model_i - base and the result
    is added to the base. Vectors: the whole tensor with `nuslerp_flatten`; else the rows [d]
    of [rows, d], or with `nuslerp_row_wise` (mergekit's name) the vectors along the leading
    dimension, [rows]: one for each column. A 1-D tensor is one vector in each case; leading
    dimensions count as one. Linear where sin² θ <= 1e-16 or a vector is zero.
    Source: arcee-ai/mergekit, nuslerp.

    Raises MergeError for weights that sum to zero (mergekit: t = 0.5), and for
    `nuslerp_row_wise` with `nuslerp_flatten`, which would have no effect.
    """
    if nuslerp_row_wise and nuslerp_flatten:
        raise MergeError(
            "nuslerp_row_wise: true has no effect on flattened tensors; "
            "add nuslerp_flatten: false, or take it out"
        )
    t = float(shares(weight, normalize=True, tensor=stack.name)[1])
    by_column = nuslerp_row_wise and stack.rows > 1
    if nuslerp_flatten:
        gram = tensor_gram(stack)[None]
    elif by_column:
        gram = column_grams(stack)
    else:
        gram = row_grams(stack)
    cosine = cosines(gram)[:, 0, 1]
    linear = np.logical_or(1 - cosine**2 <= NUSLERP_COLINEAR, norms(gram).min(axis=-1) == 0)
    weights = arc_weights(cosine, t, linear)
    rest = rest_for_base(weights) if stack.has_base else np.zeros_like(cosine)
    facts = {"vectors": len(cosine), "linear": int(np.count_nonzero(linear)), "t": t}
    if nuslerp_flatten:
        return combined(stack, weights[:, 0], float(rest[0]), facts=facts)
    if by_column:
        return Rule(spread_combination(weights[:, None, :], rest[None, :]), facts)
    return Rule(spread_combination(weights[:, :, None], rest[:, None]), facts)


def arc_weights(
    cosine: NDArray[np.float64], t: float, linear: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the weights [2, ...] of slerp for cosines [...]; (1 - t, t) where `linear`."""
    theta = np.arccos(np.where(linear, 0.0, cosine))
    sine = np.sin(theta)
    return np.stack(
        [
            np.where(linear, 1 - t, np.sin((1 - t) * theta) / sine),
            np.where(linear, t, np.sin(t * theta) / sine),
        ]
    )


METHODS_HERE = (
    Method(
        "slerp",
        slerp,
        base="required",
        models=(1, 1),
        parameters=(Parameter("t", float, None, low=0.0, high=1.0),),
        paper="Shoemake 1985, doi:10.1145/325165.325242",
    ),
    Method(
        "nuslerp",
        nuslerp,
        base="optional",
        models=(2, 2),
        parameters=(
            Parameter("weight", float, None, each_model=True),
            Parameter("nuslerp_row_wise", bool, default=False),
            Parameter("nuslerp_flatten", bool, default=True),
        ),
        paper="arcee-ai/mergekit, nuslerp",
    ),
)
