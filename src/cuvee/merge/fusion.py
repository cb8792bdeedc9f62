"""Arcee Fusion of two tensors: adopt from one model the weights that stand out, keep the rest.

Pure functions on tensors: two tensors in, the fused tensor and its statistics out. Knows
nothing of files, names or models (`cuvee.merge.stream`).

The rule, for an anchor A and another tensor B of the same shape, row by row over the last
dimension (one distribution an output of a Linear, one a token of an embedding; a 1-D tensor
is one row, a single number is a row of one)::

    q = softmax(A)   r = log softmax(B) - log softmax(A)
    KL_row = sum_j q_j (r_j e^{r_j} - expm1(r_j))          = KL(softmax(B) || softmax(A))
    importance_ij = |B_ij - A_ij| KL_row
    threshold = median + 1.5 (Q3 - Q1)                      of the tensor's importance
    fused = B where importance >= threshold, else A

This is what mergekit's `arcee_fusion` computes, without its rounding: the plain sum
``p log(p/q)`` in float32 gives up to 45 % of the rows a negative divergence for small
updates, since a first-order rounding error swamps a second-order quantity; here every term
is >= 0. Quantiles are exact order statistics of all elements, not of a random million.
TinyR1 (arXiv 2503.04872, section 2.2) *writes* another rule than the code it ran: a softmax
over the whole tensor, one KL(Left || Right) a tensor, a signed difference and `>`. The code
is what made the published models, so the code's rule stands here.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cuvee.errors import MergeError

BLOCK_ELEMENTS = 1 << 17
"""Elements whose divergence is computed at once: temporaries that stay in the cache make it
three times as fast as ones of 16 MB."""

SMALL_RATIO = 0.05
"""Below this |r| the series of `r e^r - expm1(r)` is exact to float32; above it the formula."""


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


def fuse(anchor: Tensor, other: Tensor) -> tuple[Tensor, FusionStatistics]:
    """Return the fusion of two tensors of one shape [..., d] and its statistics.

    Every element of the result is an exact copy of the anchor's or the other's. The dtype is
    the one both fit in; arithmetic is float32. Empty tensors come back empty, identical ones
    as they are. Raises MergeError for unequal shapes and for dtypes that are not floating.
    """
    _check(anchor, other)
    dtype = torch.promote_types(anchor.dtype, other.dtype)
    a, b = anchor.to(dtype), other.to(dtype)
    differing = int(torch.count_nonzero(a != b))
    if a.numel() == 0 or differing == 0:
        zero = 0.0 if a.numel() else None
        return a.clone(), FusionStatistics(
            a.numel(), 0, 0, zero, zero, zero, zero, degenerate=False
        )
    scores = importance(a, b)
    q1, median, q3 = order_statistics(scores, (0.25, 0.5, 0.75))
    threshold = median + 1.5 * (q3 - q1)
    mask = scores >= threshold
    statistics = FusionStatistics(
        elements=a.numel(),
        differing=differing,
        adopted=int(torch.count_nonzero(mask)),
        q1=q1,
        median=median,
        q3=q3,
        threshold=threshold,
        degenerate=q1 == q3,
    )
    return torch.where(mask, b, a), statistics


def fuse_chain(
    tensors: Sequence[Tensor], *, anchor: Literal["later", "earlier"]
) -> tuple[Tensor, list[FusionStatistics]]:
    """Fuse any number of tensors in order, two at a time; one comes back as a copy.

    `later`: fuse(anchor=second, other=first), then the third as anchor of that result, and
    so on (TinyR1); `earlier`: what came before is the anchor. The rule looks at one tensor
    alone, so a chain for each tensor is the same as a chain of whole models that is kept in
    the inputs' precision. Raises MergeError as `fuse` does, and for no tensors.
    """
    if not tensors:
        raise MergeError("nothing to fuse: no tensors")
    result, statistics = tensors[0].clone(), []
    for following in tensors[1:]:
        pair = (following, result) if anchor == "later" else (result, following)
        result, found = fuse(*pair)
        statistics.append(found)
    return result, statistics


def importance(anchor: Tensor, other: Tensor) -> Tensor:
    """Return |other - anchor| times the row's divergence: float32, the tensors' shape.

    `anchor`, `other`: [..., d], floating, finite, not empty.
    """
    shape = anchor.shape
    rows = shape[-1] if shape else 1
    a, b = anchor.reshape(-1, rows), other.reshape(-1, rows)
    scores = torch.empty(a.shape, dtype=torch.float32)
    step = max(1, BLOCK_ELEMENTS // rows)
    for begin in range(0, len(a), step):
        block = slice(begin, begin + step)
        a32, b32 = a[block].float(), b[block].float()
        divergence = row_divergence(a32, b32)
        torch.mul((b32 - a32).abs_(), divergence[:, None], out=scores[block])
    return scores.reshape(shape)


def row_divergence(anchor: Tensor, other: Tensor) -> Tensor:
    """Return KL(softmax(other) || softmax(anchor)) of each row: [n, d] and [n, d] -> [n].

    float32 in and out, every value >= 0. Two steps keep it exact for small updates: the
    difference of the log-partition functions is taken from the difference of the weights
    where that is small (two values near -log d would cancel), and `r e^r - expm1(r)`, of the
    order of r^2 / 2, from its series sum_k r^k (k - 1) / k!.
    """
    delta = other - anchor
    q = torch.softmax(anchor, dim=-1)
    near = torch.log1p((q * torch.expm1(delta)).sum(dim=-1))
    far = torch.logsumexp(other, dim=-1) - torch.logsumexp(anchor, dim=-1)
    shift = torch.where(delta.abs().amax(dim=-1) < 1, near, far)
    r = delta - shift[:, None]
    series = r * r * (1 / 2 + r * (1 / 3 + r * (1 / 8 + r * (1 / 30 + r / 144))))
    exact = r * torch.exp(r) - torch.expm1(r)
    terms = torch.where(r.abs() < SMALL_RATIO, series, exact)
    return (q * terms).sum(dim=-1).clamp_min_(0)


def order_statistics(values: Tensor, shares: tuple[float, ...]) -> list[float]:
    """Return the exact order statistic of index floor(share * (n - 1)) for each share.

    No interpolation, as in mergekit. `values`: any shape, not empty, without NaN; `shares`
    in [0, 1].
    """
    flat = values.reshape(-1).numpy()
    indices = [int(share * (len(flat) - 1)) for share in shares]
    # All indices in one selection: a third of the time of one `torch.kthvalue` each.
    return [float(value) for value in np.partition(flat, indices)[indices]]


def _check(anchor: Tensor, other: Tensor) -> None:
    if anchor.shape != other.shape:
        shapes = f"{tuple(anchor.shape)} and {tuple(other.shape)}"
        raise MergeError(f"shapes differ: {shapes}; only tensors of one shape can be fused")
    for tensor in (anchor, other):
        if not tensor.is_floating_point():
            raise MergeError(f"dtype {tensor.dtype} cannot be fused; floating dtypes can")
