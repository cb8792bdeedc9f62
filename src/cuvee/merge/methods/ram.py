"""RAM: keep what only one model changed in full, average what several changed.

In: a stack with a base. Out: a rule. `ramplus_tl` needs one more pass to count. Which
elements a model changed is decided by a magnitude above `epsilon`.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cuvee.merge.blocks import Block, Counts, Rule, Stack, copied, counts
from cuvee.merge.kernels import Array
from cuvee.merge.methods.sparse_kernels import add_sum
from cuvee.merge.methods.spec import Method, Parameter
from cuvee.merge.methods.task_vectors import based, differences

Mask = NDArray[np.bool_]


def ram(stack: Stack, *, epsilon: float) -> Rule:
    """Merge unique and shared changes apart (Reinforced Agent Merging 2026, arXiv 2601.13572).

    With v_m = x_m - b [rows, d] and A = {m: |v_m| > epsilon} per element:
    result = b + sum_A v_m / max(1, |A|). Raises MergeError without a base.
    """
    return Rule(averaged(epsilon, np.ones(stack.models)))


def ramplus_tl(stack: Stack, *, r: float, alpha: float, epsilon: float) -> Rule:
    """Merge as `ram` does, unique changes scaled up (arXiv 2601.13572, RAM+ tensor by tensor).

    Where |A| = 1 the change of its one model m is multiplied by lambda_m = 1 + r min(rho_m,
    alpha), rho_m = (elements that m shares with others) / (elements that m alone changed) in
    this tensor; without the latter rho_m has no part in the result. The paper counts over the
    whole model, mergekit's `ramplus_tl` and this over a tensor. Raises MergeError without a
    base.
    """

    def add(block: Block, found: Counts) -> None:
        mask, number = changed(differences(block), epsilon)
        found[0] += np.count_nonzero(mask & (number > 1), axis=1)
        found[1] += np.count_nonzero(mask & (number == 1), axis=1)

    shared, unique = counts(stack, (2, stack.models), add)
    rho = shared / np.maximum(unique, 1)
    scale = 1 + r * np.minimum(rho, alpha)
    return Rule(averaged(epsilon, scale), {"unique_scales": scale.tolist()})


def changed(deltas: Array, epsilon: float) -> tuple[Mask, NDArray[np.int64]]:
    """Return which task vectors [k, n] are larger than `epsilon`, and how many are [n]."""
    mask = np.abs(deltas) > np.float32(epsilon)
    return mask, mask.sum(axis=0)


def averaged(epsilon: float, unique_scale: NDArray[np.float64]) -> Callable[[Block], Array]:
    """Return the emit of b + (sum_A c_m v_m) / max(1, |A|), c_m = unique_scale[m] if |A| = 1.

    Else c_m = 1. Where the sum is 0 the base stands bit for bit.
    """
    alone = unique_scale.astype(np.float32)[:, None]

    def emit(block: Block) -> Array:
        own = copied(block)
        deltas, (_, base) = differences(own), based(own)
        mask, number = changed(deltas, epsilon)
        deltas *= mask
        deltas *= np.where(number == 1, alone, np.float32(1))
        mean = deltas.sum(axis=0, dtype=np.float64) / np.maximum(number, 1)
        add_sum(mean.astype(np.float32)[None], np.ones(1, np.float32), base)
        return base.reshape(block.models.shape[1:])

    return emit


EPSILON = Parameter("epsilon", float, 1e-5, low=0.0)
PAPER = "Reinforced Agent Merging 2026, arXiv 2601.13572"

METHODS_HERE: tuple[Method, ...] = (
    Method(
        "ram",
        ram,
        base="required",
        models=(1, None),
        parameters=(EPSILON,),
        paper=PAPER,
    ),
    Method(
        "ramplus_tl",
        ramplus_tl,
        base="required",
        models=(1, None),
        parameters=(
            Parameter("r", float, 0.1, low=0.0),
            Parameter("alpha", float, 0.2, low=0.0),
            EPSILON,
        ),
        paper=PAPER,
    ),
)
