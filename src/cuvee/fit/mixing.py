"""Which type llama.cpp's quantiser gives to each tensor of a model.

A name such as Q4_K_M is a mixture: the tensors that quality depends on most (values of the
attention, the second matrix of the MLP, the head) get more bits, some of them in some layers
alone; and a matrix whose rows are not a multiple of the type's block gets another type. The
rules are those of `llama_tensor_get_type_impl` and `tensor_type_fallback` in llama.cpp's
src/llama-quant.cpp, for dense llama, qwen2 and qwen3, without an importance matrix (with one
only Q4_0 and Q5_0 differ, in the `ffn_down` of the first eighth of the layers). Checked tensor
by tensor against the quantiser itself (tests/fit/test_mixing.py). Not here: bytes
(`cuvee.fit.files`); the IQ types, which depend on the importance matrix.
"""

import dataclasses
from typing import get_args

from cuvee.errors import DataError
from cuvee.models.shape import ModelShape
from cuvee.recipe.serving import Quantization

BLOCKS = {
    "F32": (1, 4),
    "F16": (1, 2),
    "BF16": (1, 2),
    "Q8_0": (32, 34),
    "Q6_K": (256, 210),
    "Q5_K": (256, 176),
    "Q5_1": (32, 24),
    "Q5_0": (32, 22),
    "Q4_K": (256, 144),
    "Q4_1": (32, 20),
    "Q4_0": (32, 18),
    "Q3_K": (256, 110),
    "Q2_K": (256, 84),
}
"""Weights and bytes of one block of a type (ggml; a test holds it against `gguf`'s table)."""

TYPES: tuple[str, ...] = (
    *get_args(Quantization), "Q5_1", "Q5_0", "Q4_1", "Q4_0", "Q3_K_L", "Q3_K_S",
)  # fmt: skip
"""Names of files whose size is known here: those that cuvee writes, and others often published."""

_PLAIN = {"F32", "F16", "BF16", "Q8_0"}
_FALLBACK = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
_SHARED_VALUES = 4
"""Query heads to a value head from which Q2_K spends more on the values."""
_LAYERS_OF_70B = 80


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor of a GGUF file."""

    name: str
    shape: tuple[int, ...]
    """Rows first, the width of a row last."""


def kind_of(tensor: Tensor, shape: ModelShape, quantization: str) -> tuple[str, bool]:
    """Return the type of a tensor in a file named `quantization`; and whether it fell back.

    Raises DataError for an unknown name, or where the rows of a plain type (Q8_0, Q4_0, ...)
    are no multiple of its block: llama.cpp and cuvee refuse to write that file.
    """
    if quantization not in TYPES:
        raise DataError(f"quantization {quantization!r}: known are {', '.join(TYPES)}")
    if len(tensor.shape) == 1:
        return "F32", False
    wanted = quantization
    if quantization not in _PLAIN:
        wanted = _mixed(tensor, shape, quantization)
    if tensor.shape[-1] % BLOCKS[wanted][0] == 0:
        return wanted, False
    if wanted not in _FALLBACK:
        raise DataError(
            f"tensor {tensor.name}: {wanted} needs rows of a multiple of {BLOCKS[wanted][0]}, "
            f"and they have {tensor.shape[-1]}"
        )
    other = _FALLBACK[wanted]
    return (other if tensor.shape[-1] % BLOCKS[other][0] == 0 else "F16"), True


def _mixed(tensor: Tensor, shape: ModelShape, quantization: str) -> str:
    """Return the type that the mixture wants, whether the shape can have it or not."""
    base, _, size = quantization.rpartition("_") if quantization[-2:] in _SIZES else ("", "", "")
    base = base or quantization  # Q4_K_M: Q4_K and M; Q6_K, Q4_0: themselves
    name = tensor.name.removesuffix(".weight")
    if name == "output" or (shape.tied and name == "token_embd"):
        return "Q6_K" if tensor.shape[-1] % BLOCKS[base][0] == 0 else "Q8_0"
    if name == "token_embd":
        return base
    _, layer, part = name.split(".")
    of = int(layer)
    if part == "attn_v":
        return _values(base, size, of, shape=shape)
    if part == "ffn_down":
        return _down(base, size, of, layers=shape.layers)
    if part == "attn_output":
        return _RAISED_OUTPUT.get(quantization, base)
    return base


_SIZES = ("_S", "_M", "_L")
_RAISED_OUTPUT = {"Q2_K": "Q3_K", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K"}


def _values(base: str, size: str, layer: int, *, shape: ModelShape) -> str:
    """Return the type of `attn_v` in a layer."""
    found = base
    if base == "Q2_K":
        shared = shape.heads // shape.key_value_heads >= _SHARED_VALUES
        found = "Q4_K" if shared else "Q3_K"
    elif base == "Q3_K" and size == "M":
        found = "Q5_K" if layer < 2 else "Q4_K"
    elif base == "Q3_K" and size == "L":
        found = "Q5_K"
    elif size == "M" and _more_bits(layer, shape.layers):
        found = "Q6_K"
    elif base == "Q4_K" and size == "S" and layer < 4:
        found = "Q5_K"
    return "Q5_K" if _is_70b(shape) and found in ("Q3_K", "Q4_K") else found


def _down(base: str, size: str, layer: int, *, layers: int) -> str:
    """Return the type of `ffn_down` in a layer."""
    if base == "Q2_K":
        return "Q3_K"
    if base == "Q3_K" and size == "M":
        return "Q5_K" if layer < layers // 16 else "Q4_K"
    if base == "Q3_K" and size == "L":
        return "Q5_K"
    if size == "M" and _more_bits(layer, layers):
        return "Q6_K"
    if base == "Q4_K" and size == "S" and layer < layers // 8:
        return "Q5_K"
    return base


def _more_bits(layer: int, layers: int) -> bool:
    """Return whether a layer is among the half that Q4_K_M and Q5_K_M spend more on."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _is_70b(shape: ModelShape) -> bool:
    """Return whether llama.cpp takes a model for one of 70B, whose values it spends more on."""
    if shape.layers != _LAYERS_OF_70B:
        return False
    if shape.architecture == "llama":
        return shape.heads != shape.key_value_heads
    return shape.architecture == "qwen2"
