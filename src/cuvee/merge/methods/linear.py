"""Methods that need no pass over the tensor: linear, passthrough, nearswap.

In: a `Stack` of one tensor; out: the `Rule` that merges it. Reads no weights before emit.
"""

from collections.abc import Sequence

import numpy as np

from cuvee.merge.blocks import Block, Rule, Stack
from cuvee.merge.kernels import Array
from cuvee.merge.methods.combination import combination, combined, required_base, shares
from cuvee.merge.methods.spec import Method, Parameter


def linear(stack: Stack, *, weight: Sequence[float], normalize: bool = True) -> Rule:
    """Return the weighted mean: `sum_i w_i x_i`, with w_i = weight_i / sum(weight) if normalize.

    x_i: [rows, d] of model i; weight: one number a model, of any sign. Model soups
    (Wortsman et al. 2022, arXiv:2203.05482) take equal weights. Raises MergeError where
    weights to be normalised sum to zero (mergekit: a tensor of NaN).
    """
    weights = shares(weight, normalize=normalize, tensor=stack.name)
    return combined(stack, weights, facts={"weights": weights.tolist()})


def passthrough(stack: Stack, *, scale: Sequence[float] = (1.0,)) -> Rule:
    """Return the only model's tensor [rows, d] times `scale[0]`; unchanged bits for 1."""
    return Rule(combination(scale), {})


def nearswap(stack: Stack, *, t: float) -> Rule:
    """Move every element of the base towards the model's by at most `t`.

    With base a and model b, [rows, d]: `a + w (b - a)`, w = min(1, t / |b - a|), which is
    b clipped to [a - t, a + t] and computed so: exactly b where b is nearer than t, whereas
    mergekit divides by no less than 1e-6 and so slows t < 1e-6 down further. t >= 0, in the
    unit of the weights. Source: alchemonaut, QuartetAnemoi-70B-t0.0001 (model card).
    """
    reach = np.float32(t)

    def emit(block: Block) -> Array:
        near: Array = required_base(block)
        far: Array = block.models[0]
        if reach == 0:
            return near
        low = np.maximum(far, near - reach)
        found: Array = np.minimum(low, near + reach, out=low)
        return found

    return Rule(emit, {})


METHODS_HERE = (
    Method(
        "linear",
        linear,
        base="refused",
        models=(1, None),
        parameters=(
            Parameter("weight", float, None, each_model=True),
            Parameter("normalize", bool, default=True),
        ),
        paper="Wortsman et al. 2022, arXiv:2203.05482",
    ),
    Method(
        "passthrough",
        passthrough,
        base="refused",
        models=(1, 1),
        parameters=(Parameter("scale", float, 1.0, each_model=True),),
        paper="arcee-ai/mergekit",
    ),
    Method(
        "nearswap",
        nearswap,
        base="required",
        models=(1, 1),
        parameters=(Parameter("t", float, None, low=0.0),),
        paper="alchemonaut 2024, huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001",
    ),
)
