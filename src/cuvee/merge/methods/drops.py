"""DARE and DELLA: task vectors thinned out at random, what is left scaled up.

In: a stack with a base, and a seed. Out: a rule (see `task_vectors`). An element's random
number depends on the seed, the tensor's name, the model's place among the models and the
element's index alone (`randomness`), so a merge repeats on any number of threads; the models'
order matters here, since it decides who gets which numbers.

Survivors are divided by their probability, as both papers have it: each element's expectation
is its own value. (mergekit scales the whole tensor to its L1 norm instead.)
"""

from collections.abc import Sequence
from typing import Unpack

import numpy as np

from cuvee.errors import RecipeError
from cuvee.merge.blocks import Block, Rule, Stack
from cuvee.merge.kernels import Array, uniform
from cuvee.merge.methods.randomness import stream_seed
from cuvee.merge.methods.sparse_kernels import drop, drop_ranked
from cuvee.merge.methods.spec import Method, Parameter
from cuvee.merge.methods.task_vectors import (
    DENSITY,
    WEIGHT,
    Mixing,
    Sparsify,
    based,
    differences,
    elected,
    mixing_parameters,
    summed,
)


def dare_linear(
    stack: Stack,
    *,
    weight: Sequence[float],
    density: Sequence[float],
    seed: int,
    **mixing: Unpack[Mixing],
) -> Rule:
    """Drop task vectors' elements at random, rescale, add up (Yu et al. 2023, arXiv 2311.03099).

    v_m = (x_m - b) / density[m] with probability density[m], else 0 (without `rescale`: not
    divided); then `summed`. Raises MergeError without a base.
    """
    sparsify = dropped(stack, density=density, rescale=mixing["rescale"], seed=seed)
    return Rule(summed(sparsify, weight=weight, mixing=mixing))


def dare_ties(
    stack: Stack,
    *,
    weight: Sequence[float],
    density: Sequence[float],
    seed: int,
    **mixing: Unpack[Mixing],
) -> Rule:
    """Drop as DARE does, then elect signs as TIES does (arXiv 2311.03099, section 4.3).

    v_m as in `dare_linear`, then `elected`. Raises MergeError without a base.
    """
    sparsify = dropped(stack, density=density, rescale=mixing["rescale"], seed=seed)
    return Rule(elected(sparsify, weight=weight, mixing=mixing))


def della(
    stack: Stack,
    *,
    weight: Sequence[float],
    density: Sequence[float],
    epsilon: Sequence[float],
    seed: int,
    **mixing: Unpack[Mixing],
) -> Rule:
    """Drop small elements more often, elect signs, fuse (Deep et al. 2024, arXiv 2406.11617).

    An element of x_m - b with the r-th smallest magnitude (r = 0..d-1) of its row of d is kept
    with probability p = density[m] - epsilon[m] + 2 epsilon[m] r / (d - 1), and then divided
    by p (without `rescale`: not divided); then `elected`. Rows run over the last dimension;
    a 1-D tensor is one row. Raises RecipeError where p would not stay within 0 and 1,
    MergeError without a base.
    """
    sparsify = ranked(stack, density=density, epsilon=epsilon, rescale=mixing["rescale"], seed=seed)
    return Rule(elected(sparsify, weight=weight, mixing=mixing))


def della_linear(
    stack: Stack,
    *,
    weight: Sequence[float],
    density: Sequence[float],
    epsilon: Sequence[float],
    seed: int,
    **mixing: Unpack[Mixing],
) -> Rule:
    """Drop as `della` does, then add up without election (`summed`); raises as it does."""
    sparsify = ranked(stack, density=density, epsilon=epsilon, rescale=mixing["rescale"], seed=seed)
    return Rule(summed(sparsify, weight=weight, mixing=mixing))


def dropped(stack: Stack, *, density: Sequence[float], rescale: bool, seed: int) -> Sparsify:
    """Return the step that keeps each element with probability density[m], in [0, 1]."""
    shares = np.array(density, np.float32)
    scale = np.array([1 / share if rescale and share else 1.0 for share in density], np.float32)
    seeds = np.array([stream_seed(seed, stack.name, m) for m in range(stack.models)], np.uint64)

    def sparsify(block: Block) -> Array:
        models, base = based(block)
        drop(models, base, block.begin, seeds, shares, scale)
        return models

    return sparsify


def ranked(
    stack: Stack,
    *,
    density: Sequence[float],
    epsilon: Sequence[float],
    rescale: bool,
    seed: int,
) -> Sparsify:
    """Return the step that keeps elements by their magnitude's rank in the row (see `della`).

    Equal magnitudes get one probability, that of their mean rank; a row of one element has
    `density`. A density of 1 keeps a task vector whole, one of 0 nothing, whatever epsilon is.
    """
    check_range(density, epsilon)
    seeds = [stream_seed(seed, stack.name, m) for m in range(stack.models)]

    def sparsify(block: Block) -> Array:
        deltas = differences(block)
        random = np.empty(block.models.shape[1:], np.float32)
        for m, (share, spread) in enumerate(zip(density, epsilon, strict=True)):
            if share >= 1:
                continue
            if share <= 0:
                deltas[m] = 0
                continue
            rows = deltas[m].reshape(random.shape)
            uniform(seeds[m], block.begin, random.reshape(-1))
            bounds = np.array([share - spread, share + spread], np.float32)
            drop_ranked(rows, sorted_keys(rows), random, bounds, float(rescale))
        return deltas

    return sparsify


def check_range(density: Sequence[float], epsilon: Sequence[float]) -> None:
    """Raise RecipeError unless density +- epsilon lie within 0 and 1, both excluded.

    A density of 0 or 1 needs no epsilon and passes.
    """
    for m, (share, spread) in enumerate(zip(density, epsilon, strict=True)):
        if 0 < share < 1 and not (share - spread > 0 and share + spread < 1):
            raise RecipeError(
                f"della, model {m}: density {share} and epsilon {spread} give probabilities"
                f" from {share - spread:g} to {share + spread:g}; both must be above 0 and"
                " below 1: choose a smaller epsilon"
            )


def sorted_keys(rows: Array) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
    """Return (bits of the magnitude) << 32 | column, [rows, d], each row in rising order.

    The bits of non-negative floats order as the floats do; the column makes keys unique, so
    that the order is the same for any sorting algorithm.
    """
    bits = np.abs(rows).view(np.uint32).astype(np.uint64)
    keys = (bits << np.uint64(32)) | np.arange(rows.shape[1], dtype=np.uint64)
    keys.sort(axis=1)
    return keys


DARE_PARAMETERS = (WEIGHT, DENSITY, *mixing_parameters(normalize=False, rescale=True))
EPSILON = Parameter("epsilon", float, 0.15, low=0.0, high=0.5, each_model=True)

METHODS_HERE: tuple[Method, ...] = (
    Method(
        "dare_linear",
        dare_linear,
        base="required",
        models=(1, None),
        parameters=DARE_PARAMETERS,
        random=True,
        paper="Yu et al. 2023, arXiv 2311.03099",
    ),
    Method(
        "dare_ties",
        dare_ties,
        base="required",
        models=(1, None),
        parameters=DARE_PARAMETERS,
        random=True,
        paper="Yu et al. 2023, arXiv 2311.03099; Yadav et al. 2023, arXiv 2306.01708",
    ),
    Method(
        "della",
        della,
        base="required",
        models=(1, None),
        parameters=(WEIGHT, DENSITY, EPSILON, *mixing_parameters(normalize=True, rescale=True)),
        random=True,
        paper="Deep et al. 2024, arXiv 2406.11617",
    ),
    Method(
        "della_linear",
        della_linear,
        base="required",
        models=(1, None),
        parameters=(WEIGHT, DENSITY, EPSILON, *mixing_parameters(normalize=False, rescale=True)),
        random=True,
        paper="Deep et al. 2024, arXiv 2406.11617",
    ),
)
