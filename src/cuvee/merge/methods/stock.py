"""Model Stock: how far to go from the base to the models' mean, by the angle between them.

In: a `Stack` with a base; out: the `Rule` that merges it, after one pass over the tensor.
"""

import numpy as np
from numpy.typing import NDArray

from cuvee.merge.blocks import Rule, Stack
from cuvee.merge.methods.combination import combined, spread_combination
from cuvee.merge.methods.gram import Gram, cosines, row_grams, tensor_gram
from cuvee.merge.methods.spec import Method, Parameter


def model_stock(stack: Stack, *, filter_wise: bool = False) -> Rule:
    """Return `t mean + (1 - t) base`, t = k c / (1 + (k - 1) c) (arXiv:2403.19522, section 4.2).

    mean: of the k >= 2 models' x_i [rows, d]; c: the mean cosine between the task vectors
    x_i - base over all pairs, of the whole tensor, or with `filter_wise` of each row (a 1-D
    tensor is one row). Three choices, where mergekit decides otherwise or not at all:

    - t is 0 where c <= 0: the updates have nothing in common, and the formula, made for acute
      angles, goes to minus infinity as c nears -1 / (k - 1).
    - Cosines hold for updates of any length; mergekit divides by no less than 1e-6, which
      shrinks t for updates shorter than 1e-3 (a layer norm's, say).
    - A task vector of length 0 has the cosine 0 with all others.
    """
    gram = row_grams(stack) if filter_wise else tensor_gram(stack)
    cosine = mean_cosine(gram)
    positive = np.maximum(cosine, 0)
    k = stack.models
    t = k * positive / (1 + (k - 1) * positive)
    if not filter_wise:
        facts = {"cosine": float(cosine), "t": float(t)}
        return combined(stack, [float(t) / k] * k, 1 - float(t), facts=facts)
    each = np.broadcast_to(t[:, None] / k, (k, stack.rows, 1))
    facts = {
        "cosine": float(cosine.mean()) if cosine.size else 0.0,
        "t": float(t.mean()) if t.size else 0.0,
        "rows_kept": int(np.count_nonzero(t == 0)),
    }
    return Rule(spread_combination(each, 1 - t[:, None]), facts)


def mean_cosine(gram: Gram) -> NDArray[np.float64]:
    """Return the mean cosine [...] over the pairs of k >= 2 inputs of Gram matrices [..., k, k]."""
    cosine = cosines(gram)
    k = gram.shape[-1]
    pairs = np.triu_indices(k, 1)
    mean: NDArray[np.float64] = cosine[..., pairs[0], pairs[1]].mean(axis=-1)
    return mean


METHODS_HERE = (
    Method(
        "model_stock",
        model_stock,
        base="required",
        models=(2, None),
        parameters=(Parameter("filter_wise", bool, default=False),),
        paper="Jang et al. 2024, arXiv:2403.19522",
    ),
)
