"""Model Breadcrumbs: task vectors without their smallest and their largest entries.

In: a stack with a base. Out: a rule (see `task_vectors`). Both ends are cut within each
tensor, by exact order statistics; tensors too small for a share to be one element lose
nothing at that end.
"""

import math
from collections.abc import Sequence
from typing import Unpack

from cuvee.merge.blocks import Rule, Stack
from cuvee.merge.methods.spec import Method, Parameter
from cuvee.merge.methods.task_vectors import (
    DENSITY,
    WEIGHT,
    Mixing,
    Sparsify,
    elected,
    lowest,
    magnitudes_at,
    mixing_parameters,
    summed,
    trimmed,
)


def breadcrumbs(
    stack: Stack,
    *,
    weight: Sequence[float],
    density: Sequence[float],
    gamma: Sequence[float],
    **mixing: Unpack[Mixing],
) -> Rule:
    """Add up task vectors cut at both ends (Davari and Belilovsky 2023, arXiv 2312.06795).

    v_m = x_m - b where its magnitude's rank is within `kept_ranks(n, density, gamma)`, else 0
    (magnitudes equal to the last kept one of an end are kept with it); then `summed`.
    With `rescale`, which the paper does not have, v_m is scaled to the L1 norm of x_m - b.
    Raises MergeError without a base.
    """
    cut, facts = both_ends(stack, density=density, gamma=gamma, rescale=mixing["rescale"])
    return Rule(summed(cut, weight=weight, mixing=mixing), facts)


def breadcrumbs_ties(
    stack: Stack,
    *,
    weight: Sequence[float],
    density: Sequence[float],
    gamma: Sequence[float],
    **mixing: Unpack[Mixing],
) -> Rule:
    """Cut as `breadcrumbs` does, then elect signs as TIES does (arXiv 2306.01708).

    The combination is mergekit's; v_m as in `breadcrumbs`, then `elected`.
    Raises MergeError without a base.
    """
    cut, facts = both_ends(stack, density=density, gamma=gamma, rescale=mixing["rescale"])
    return Rule(elected(cut, weight=weight, mixing=mixing), facts)


def kept_ranks(n: int, *, density: float, gamma: float) -> tuple[int, int]:
    """Return the lowest and the highest rank kept of n >= 1 magnitudes (0 is the smallest).

    max(1, floor(density n)) are kept, below the floor(gamma n) largest; where both do not fit,
    fewer of the largest are dropped. `density` in (0, 1), `gamma` in [0, 1].
    """
    kept = max(1, int(density * n))
    above = min(int(gamma * n), n - kept)
    return n - above - kept, n - above - 1


def both_ends(
    stack: Stack, *, density: Sequence[float], gamma: Sequence[float], rescale: bool
) -> tuple[Sparsify, dict[str, list[float | None]]]:
    """Return the step that cuts both ends of each task vector, and what to record of it.

    A density of 1 keeps a task vector whole, its largest entries too; one of 0 nothing.
    """
    n = stack.elements
    wanted = {
        m: kept_ranks(n, density=share, gamma=top)
        for m, (share, top) in enumerate(zip(density, gamma, strict=True))
        if n and 0 < share < 1
    }
    found = magnitudes_at(stack, wanted)
    ends = [found.get(m, [lowest(share), math.inf]) for m, share in enumerate(density)]
    low, high = [low for low, _ in ends], [high for _, high in ends]
    return trimmed(stack, low=low, high=high, rescale=rescale)


PARAMETERS = (
    WEIGHT,
    DENSITY,
    Parameter("gamma", float, 0.01, low=0.0, high=1.0, each_model=True),
    *mixing_parameters(normalize=False, rescale=False),
)

METHODS_HERE: tuple[Method, ...] = (
    Method(
        "breadcrumbs",
        breadcrumbs,
        base="required",
        models=(1, None),
        parameters=PARAMETERS,
        paper="Davari and Belilovsky 2023, arXiv 2312.06795",
    ),
    Method(
        "breadcrumbs_ties",
        breadcrumbs_ties,
        base="required",
        models=(1, None),
        parameters=PARAMETERS,
        paper="Davari and Belilovsky 2023, arXiv 2312.06795; Yadav et al. 2023, arXiv 2306.01708",
    ),
)
