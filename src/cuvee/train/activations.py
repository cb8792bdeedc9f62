"""What one forward pass keeps for its backward pass, in bytes, layer by layer.

Counted tensor by tensor after transformers' llama, qwen2 and qwen3 as they are written
today, and compared with what torch really saves (tests/train/test_activations.py: the same to
the byte). Korthikanti et al. 2022 (arXiv:2205.05198, equation 2) count `T*h*(34 + 5*a*T/h)`
a layer in 16 bits for GPT-3's layer; their second term, the scores of every head, is gone
with sdpa and flash attention, and what takes its place here:

- RMSNorm is written out and computes in float32: it keeps its input and the normalised one;
- autocast casts the input of each linear layer anew, and keeps each copy;
- a gated MLP keeps four tensors of its inner width;
- sdpa with a mask (packed rows, or padding) keeps a copy of the mask in the type of the
  products for EVERY layer, and keys and values repeated to all heads: memory grows with the
  square of the row. Flash attention keeps none of it.

Not here: kernels that fuse these (`train.kernels`), which keep less.
"""

import dataclasses
from typing import Literal

from cuvee.models.shape import ModelShape
from cuvee.recipe import Lora

Attention = Literal["sdpa", "flash", "eager"]


@dataclasses.dataclass(frozen=True)
class Numbers:
    """The types and extras that decide how many bytes a number takes."""

    product: int
    """Bytes of a number in the products: 2 (bf16) or 4 (fp32)."""
    weight: int
    """Bytes of a master weight: 2 or 4."""
    lora: Lora | None = None
    dropout_mask: int = 4
    """Bytes of a number in the mask of a dropout: 4 on CPUs, 1 on GPUs."""

    @property
    def casts(self) -> bool:
        """Return whether autocast makes bf16 copies of float32 weights."""
        return self.product != self.weight


@dataclasses.dataclass(frozen=True)
class MicroBatch:
    """What one forward pass of one process reads."""

    rows: int
    """Packed rows are strung together into one."""
    width: int
    """Tokens of a row, padding included."""
    masked: bool
    """Whether attention gets a mask: parts of packed rows, or padding."""

    @property
    def tokens(self) -> int:
        """Return the tokens read, padding included."""
        return self.rows * self.width

    @property
    def pairs(self) -> int:
        """Return (token, token) pairs: the numbers of a full mask."""
        return self.rows * self.width**2


def layer_bytes(
    shape: ModelShape, numbers: Numbers, batch: MicroBatch, *, attention: Attention
) -> int:
    """Return what one layer keeps of a micro-batch, copies of weights not included."""
    kept = batch.tokens * (_norms(shape, numbers) + _linear_inputs(shape, numbers))
    kept += batch.tokens * numbers.product * (2 * shape.query + 2 * shape.key)  # q, k, v, out
    kept += batch.tokens * 4 * shape.heads  # sums of the softmax, in float32
    if attention == "eager":  # probabilities in float32, and as they are multiplied
        return kept + shape.heads * batch.pairs * (4 + (2 if numbers.product == 2 else 0))
    if batch.masked and attention == "sdpa":
        repeated = 2 * (shape.query - shape.key)
        kept += batch.tokens * numbers.product * repeated + batch.pairs * numbers.product
    return kept


def _norms(shape: ModelShape, numbers: Numbers) -> int:
    """Bytes a token of the norms: inputs in float32, normalised ones, and 1/rms in float32."""
    residual = 4 + numbers.weight if numbers.lora is None else 4
    norms = 2 * (shape.hidden * residual + 4)
    if shape.architecture == "qwen3":  # norms of queries and keys, in the type of the products
        wide, heads = shape.query + shape.key, shape.heads + shape.key_value_heads
        norms += wide * (4 + (numbers.product if numbers.lora is None else 0)) + 4 * heads
    return norms


def _linear_inputs(shape: ModelShape, numbers: Numbers) -> int:
    """Bytes a token of the inputs of the linear layers, and of the MLP between them."""
    inside = numbers.product * 4 * shape.intermediate  # gate, its silu, up, and their product
    # One after each norm; as autocast's copies one for q, k, v, gate and up each.
    inputs = shape.hidden * (2 * 5 if numbers.casts else numbers.product * 2)
    if numbers.lora is None:
        return inputs + inside
    inside += numbers.product * 7 * numbers.lora.rank
    if numbers.product == 2:  # peft casts to float32 and autocast back: a copy each
        inputs = 2 * (5 * shape.hidden + shape.query)
    if not numbers.lora.dropout:
        return inputs + inside
    wide = sum(width for width, _ in shape.linear)
    if numbers.product == 2:
        return inputs + inside + numbers.dropout_mask * wide
    # Dropped inputs of each layer instead of the shared ones.
    shared = 4 * (2 * shape.hidden + shape.intermediate)
    return inputs + inside - shared + (4 + numbers.dropout_mask) * wide


def input_bytes(shape: ModelShape, numbers: Numbers, batch: MicroBatch) -> int:
    """Return the input of one layer: all that gradient checkpointing keeps of it."""
    return batch.tokens * shape.hidden * numbers.weight


def outside_bytes(
    shape: ModelShape, numbers: Numbers, batch: MicroBatch, *, attention: Attention
) -> int:
    """Return what is kept outside the layers: last norm, rotary tables, ids, the mask itself."""
    norm = shape.hidden * (4 + numbers.weight) + 4
    rotary = 2 * shape.head_size * numbers.weight
    mask = batch.pairs if batch.masked and attention == "sdpa" else 0
    if attention == "eager":
        mask = batch.pairs * numbers.weight
    return batch.tokens * (norm + rotary + 8) + mask


def working_bytes(shape: ModelShape, numbers: Numbers, batch: MicroBatch) -> int:
    """Return what the backward pass of one layer holds beyond what was kept, at its fullest.

    Measured: the gradients of gate and up while their product's is there, and beside them
    one gradient of a matrix of the MLP before it is added to the others.
    """
    matrix = 0 if numbers.lora else shape.hidden * shape.intermediate
    return numbers.product * (2 * shape.intermediate * batch.tokens + matrix)
