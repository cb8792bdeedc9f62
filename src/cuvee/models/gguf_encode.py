"""Weights in the forms a GGUF file stores them in: F32, F16, BF16 and Q8_0.

A tensor of a checkpoint in, the bytes of the file out; a value the form cannot hold is
refused. Q8_0 is llama.cpp's reference rounding to the bit, in one pass compiled by numba
(gguf's numpy takes eight). Not here: K-quants (`cuvee.models.gguf_quantize`).
"""

from typing import Any

import numba
import numpy
import torch
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray

from cuvee.errors import DataError

_BLOCK = 32
"""Numbers that share one scale in Q8_0."""
_BLOCK_BYTES = 34
"""float16 scale, 32 x int8."""
_SMALLEST = 2.0**-126
"""Scales below have no finite inverse; as float16 they are 0 in any case."""
_LARGEST = {
    Kind.F32: torch.finfo(torch.float32).max,
    Kind.F16: torch.finfo(torch.float16).max,
    Kind.BF16: torch.finfo(torch.bfloat16).max,
    Kind.Q8_0: 127 * torch.finfo(torch.float16).max,
}
FLOATS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


def encode(weight: torch.Tensor, kind: Kind) -> NDArray[Any]:
    """Return a weight as `kind` stores it; rows of Q8_0 are multiples of 32 numbers long.

    Raises DataError for a value that it cannot hold (NaN and infinity in none) and for
    weights that are no floating-point numbers.
    """
    if weight.dtype not in FLOATS:
        raise DataError(f"dtype {weight.dtype}: only floating-point weights are exported")
    _check_range(weight, limit=_LARGEST[kind])
    if kind == Kind.F16:
        half: NDArray[Any] = weight.to(torch.float16).numpy()
        return half
    if kind == Kind.BF16:
        bits: NDArray[Any] = weight.to(torch.bfloat16).view(torch.int16).numpy()
        return bits
    single: NDArray[Any] = weight.float().numpy()
    return single if kind == Kind.F32 else _q8_0(single)


def _check_range(weight: torch.Tensor, *, limit: float) -> None:
    low, high = (float(end) for end in torch.aminmax(weight))
    if not (-limit <= low and high <= limit):  # NaN compares false, too
        raise DataError(f"values from {low} to {high}; allowed is +-{limit}")


def _q8_0(weight: NDArray[Any]) -> NDArray[Any]:
    blocks = weight.reshape(-1, _BLOCK)
    stored = numpy.empty((len(blocks), _BLOCK_BYTES), dtype=numpy.uint8)
    scales = numpy.empty(len(blocks), dtype=numpy.float32)
    _fill_q8_0(blocks, stored[:, 2:].view(numpy.int8), scales)
    stored[:, :2] = scales.astype(numpy.float16).view(numpy.uint8).reshape(-1, 2)
    return stored


@numba.njit(nogil=True, cache=True)
def _fill_q8_0(blocks: Any, numbers: Any, scales: Any) -> None:
    """Round each block to int8 of its own scale, halves away from zero as llama.cpp does."""
    for block in range(len(blocks)):
        largest = numpy.float32(0)
        for i in range(_BLOCK):
            largest = max(largest, abs(blocks[block, i]))
        scale = largest / numpy.float32(127)
        scales[block] = scale
        inverse = numpy.float32(0)
        if scale >= _SMALLEST:
            inverse = numpy.float32(1) / scale
        for i in range(_BLOCK):
            number = blocks[block, i] * inverse
            whole = numpy.int32(number)
            # Not number +- 0.5: that rounds 0.49999997 up.
            rest = numpy.float32(2) * (number - numpy.float32(whole))
            numbers[block, i] = whole + numpy.int32(rest)
