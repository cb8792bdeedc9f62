"""Arcee Fusion as mergekit computes it, for those who must reproduce a published merge.

Written from its description; no code of mergekit is used. Its arithmetic runs in the config's
dtype and step by step in torch, so whole tensors are in memory, and its quantiles come from
1,000,000 scores drawn by a generator that all tensors share: up to 0.1.4 two random
permutations of every larger tensor, in 0.1.5 one draw with replacement. Equal bits also take
the same torch build and instruction set; on another machine a few elements in ten thousand
differ. Use `cuvee.merge.methods.fusion` for anything else.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cuvee.merge.blocks import Block, Rule, Stack
from cuvee.merge.kernels import Array
from cuvee.merge.methods.fusion import QUARTILES, Anchor, FusionStatistics

Version = Literal["0.1.0", "0.1.5"]
Dtype = Literal["bfloat16", "float16", "float32"]
SAMPLE = 1_000_000
"""Larger tensors are sampled."""
EPSILON = 1e-8
"""Added to both softmaxes (and lost in 16-bit dtypes)."""


def generators(seed: int, steps: int) -> list[torch.Generator]:
    """Return a generator for each fusion of a chain: mergekit seeds every run anew."""
    return [torch.Generator().manual_seed(seed) for _ in range(steps)]


def arcee_fusion_mergekit(
    stack: Stack,
    *,
    anchor: Anchor,
    version: Version,
    dtype: Dtype,
    file_dtype: Dtype,
    draws: Sequence[torch.Generator],
) -> Rule:
    """Return the rule that fuses the models [models] in order as runs of mergekit would.

    `dtype`: what it computes in; `file_dtype`: to what a chain rounds between fusions, as the
    files between two runs do. The last result is float32, as mergekit's before it is written.
    `draws`: one generator a fusion (`generators`); they move on with every tensor over
    `SAMPLE` elements, so tensors must come in mergekit's order, that of their names. Facts:
    `fusions`, as `arcee_fusion`.
    """
    torch_dtype, between = getattr(torch, dtype), getattr(torch, file_dtype)
    statistics: list[FusionStatistics] = []
    whole = stack.read(0, stack.rows).models if stack.elements else np.zeros((1, 0, 0), np.float32)
    result = torch.from_numpy(whole[0].copy()).to(torch_dtype)
    for number, draw in enumerate(draws if stack.elements else ()):
        following = torch.from_numpy(whole[number + 1].copy()).to(torch_dtype)
        before = (result.to(between) if number else result).to(torch_dtype)
        a, b = (following, before) if anchor == "later" else (before, following)
        result, found = _fuse(a, b, version, draw)
        statistics.append(found)
    values: Array = result.float().numpy()

    def emit(block: Block) -> Array:
        rows, d = block.models.shape[1:]
        begin = block.begin // d
        return values[begin : begin + rows]

    return Rule(emit, {"fusions": [dataclasses.asdict(found) for found in statistics]})


def _fuse(
    anchor: Tensor, other: Tensor, version: Version, draw: torch.Generator
) -> tuple[Tensor, FusionStatistics]:
    """Return the fusion of two tensors [rows, d] of one dtype (float32 mask), and what it did."""
    p = torch.softmax(other, -1) + EPSILON
    q = torch.softmax(anchor, -1) + EPSILON
    scores = (other - anchor).abs() * torch.sum(p * torch.log(p / q), -1, keepdim=True)
    q1, median, q3 = _quartiles(scores.reshape(-1), version, draw)
    threshold = median + 1.5 * (q3 - q1)  # each step rounded to the dtype
    mask = (scores >= threshold).float()
    fused = anchor + (other - anchor) * mask
    return fused, FusionStatistics(
        elements=anchor.numel(),
        differing=int((anchor != other).sum()),
        adopted=int(mask.sum(dtype=torch.float64)),
        q1=float(q1),
        median=float(median),
        q3=float(q3),
        threshold=float(threshold),
        degenerate=bool((anchor != other).any()) and bool(q1 == q3),
    )


def _quartiles(scores: Tensor, version: Version, draw: torch.Generator) -> list[Tensor]:
    """Return Q1, median and Q3 of a sample, as elements at floor indices of its sort."""
    if version == "0.1.5":
        drawn = _sample(scores, version, draw)
        return [_at(drawn, share) for share in QUARTILES]
    middle = _sample(scores, version, draw)  # the median was drawn first, and apart
    outer = _sample(scores, version, draw)
    return [_at(outer, 0.25), _at(middle, 0.5), _at(outer, 0.75)]


def _sample(scores: Tensor, version: Version, draw: torch.Generator) -> Tensor:
    """Return the scores, or of more than SAMPLE of them a sample, sorted."""
    n = len(scores)
    if n > SAMPLE:
        if version == "0.1.5":
            scores = scores[torch.randint(n, (SAMPLE,), generator=draw)]
        else:
            scores = scores[torch.randperm(n, generator=draw)[:SAMPLE]]
    return torch.sort(scores).values


def _at(ordered: Tensor, share: float) -> Tensor:
    # float32, as the product is taken there: it decides where the index is cut.
    index = (torch.tensor(share) * (len(ordered) - 1)).long()
    return ordered[index]
