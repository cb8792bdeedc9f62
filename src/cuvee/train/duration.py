"""How long a training takes: its operations, and how many a second a device really does.

Operations a token, forward and backward: 6 for each weight in a matrix (Kaplan et al. 2020,
arXiv:2001.08361, section 2.1; the embedding is looked up, not multiplied) and 12 * layers *
width of the heads * tokens of the row for attention (Chowdhery et al. 2022,
arXiv:2204.02311, appendix B). Gradient checkpointing computes the layers' forward pass once
more: 8 instead of 6, and 16 instead of 12. LoRA computes no gradients of the frozen weights: 4
instead of 6. Rows are taken as attended to in full: with sdpa's mask the other half, and the
other rows of a packed one, are multiplied too. Not here: memory (`cuvee.train.memory`), start-up,
checkpoints and the held-out rows.
"""

import dataclasses
import time
from typing import Literal

from cuvee.models.shape import ModelShape
from cuvee.recipe import Train
from cuvee.train.memory import numbers

SHARE = 0.4
"""Of the products' speed that a whole training step reaches on a GPU: assumed, not measured."""
SHARE_ON_CPU = 0.5
"""The same on a CPU, against a product of two large matrices: assumed as well."""
_WIDTH = 1024
"""Rows and columns of the matrices that are multiplied to measure a device."""
_PATIENCE = 0.5
"""Seconds a measurement may take."""


@dataclasses.dataclass(frozen=True)
class Speed:
    """What one device does."""

    operations: float
    """Multiplications and additions a second, of large matrices."""
    share: float
    """Of that what a training reaches, in (0, 1]."""
    source: str
    """Where the numbers are from, in words."""


def operations(shape: ModelShape, *, tokens: int, row: int, train: Train) -> float:
    """Return multiplications and additions to train on `tokens` tokens in rows of `row`."""
    again = 1 if train.gradient_checkpointing else 0
    passes = 2 if train.lora else 3  # forward, gradient of the input, gradient of the weights
    adapters = shape.adapter_parameters(train.lora.rank) if train.lora else 0
    layers = 2 * shape.layers * shape.layer_matrices * (passes + again)
    layers += 2 * adapters * (3 + again)
    attention = 4 * shape.layers * shape.query * row * (3 + again)
    return float(tokens) * (layers + attention + 2 * shape.head * passes)


def seconds(
    shape: ModelShape, *, tokens: int, row: int, train: Train, processes: int, speed: Speed
) -> float:
    """Return the seconds a training takes on `tokens` tokens (of all epochs together).

    `row` is the length of a row as it is attended over: that of a packed row where
    `train.packing`. `processes` share the tokens and are each as fast as `speed`; what they
    lose waiting for each other is in its share.
    """
    needed = operations(shape, tokens=tokens, row=row, train=train)
    return needed / (speed.operations * speed.share * processes)


def measure_speed(train: Train, *, device: Literal["cpu", "cuda"]) -> Speed:
    """Return the speed of this machine's device, measured in about a second.

    The measured product is of two square matrices in the type the training computes in.
    """
    import torch  # not before: a plan for another machine needs none

    kind = torch.bfloat16 if numbers(train, device).product == 2 else torch.float32
    width = _WIDTH if device == "cpu" else 8 * _WIDTH
    left = torch.ones(width, width, dtype=kind, device=device)
    torch.mm(left, left)  # the first one sets the libraries up
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < _PATIENCE:
        start = time.perf_counter()
        float(torch.mm(left, left)[0, 0])  # reading a number waits for the device
        best = min(best, time.perf_counter() - start)
    share = SHARE if device == "cuda" else SHARE_ON_CPU
    done = 2 * width**3 / best
    words = "bf16" if kind == torch.bfloat16 else "fp32"
    return Speed(
        operations=done,
        share=share,
        source=f"{done / 1e12:.2f} tera-operations a second, measured with {words} matrices of "
        f"{width} x {width} on this {device}; {share:.0%} of it taken for a whole training step",
    )
