"""What serving a GGUF file with llama.cpp takes: weights, KV cache, working memory, and where.

- weights: the file's tensors (`cuvee.fit.files`);
- KV cache: 2 * layers * width of the key heads * tokens, for every slot; llama.cpp rounds a slot's
  tokens up to 256;
- working memory: of a batch of 512 tokens 4 bytes * (3 MLP widths + 5 hidden widths) a token,
  2 bytes * the slot's context for the mask, the logits of every slot, and the process. The first
  two are what llama.cpp's log says to the hundredth of a MiB (SmolLM2-135M and Qwen2.5-Coder-1.5B,
  contexts 2,048 to 8,192, flash attention on, as it is by default).

On a GPU llama.cpp puts the last layers first, the head before them; the embeddings stay in RAM.
Measured on CPUs alone: what a GPU takes on top is assumed, and said. Not here: speed
(`cuvee.fit.speed`); other engines, which take whole GPUs.
"""

import dataclasses
import functools
import math

from cuvee.errors import DataError
from cuvee.fit.files import tensor_bytes, tensors
from cuvee.models.shape import ModelShape

KV_BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
BATCH = 512
"""Tokens llama.cpp computes at once (its default `n_ubatch`)."""
CELLS = 256
PROCESS = 60_000_000
"""Bytes of the server itself: 35 MB measured before a first request, the rest for requests."""
GPU_CONTEXT = 500_000_000
"""Bytes of CUDA's context and kernels: assumed, not measured by us."""
RAM_RESERVE = 2_000_000_000
"""Bytes of RAM left to the system: assumed."""
ERROR = 0.1
"""Of the total without a GPU: measured within 2 %, and said with a margin."""


@dataclasses.dataclass(frozen=True)
class ServingMemory:
    """Bytes, on all devices together."""

    weights: int
    kv: int
    working: int
    total: int
    assumptions: tuple[str, ...]
    """What the numbers rest on, in words."""


@dataclasses.dataclass(frozen=True)
class Placement:
    """What lies where, in bytes."""

    gpu_layers: int
    """For llama.cpp's `n_gpu_layers`: of `layers + 1`, since the head counts as one."""
    gpu: int
    ram: int
    gpu_read: int
    """Weights that the GPU reads for every token."""
    ram_read: int
    gpu_kv: int
    """KV cache on the GPU, all slots full."""
    ram_kv: int


def serving_memory(
    shape: ModelShape, quantization: str, *, context: int, slots: int, kv: str = "f16"
) -> ServingMemory:
    """Return what serving takes with `slots` requests of `context` tokens each at once.

    `kv` is in `KV_BYTES`. Raises DataError for an unknown type or one that cannot hold the
    model, and for a context or slots below 1.
    """
    _check(context, slots, kv)
    weights = sum(_layer_bytes(shape, quantization))
    cache = kv_bytes(shape, context=context, slots=slots, kv=kv)
    working = working_bytes(shape, context=context, slots=slots) + PROCESS
    said = (
        "flash attention, batches of 512 tokens (llama.cpp's defaults)",
        f"without a GPU within {ERROR:.0%}: log and memory of two models measured on a CPU",
        "on a CPU llama.cpp repacks some matrices (Q4_K and Q4_0 among them) into a second copy; "
        "the pages of the file that it replaces are given back when memory is short",
    )
    return ServingMemory(
        weights=weights,
        kv=cache,
        working=working,
        total=weights + cache + working,
        assumptions=said,
    )


def serving_bytes(shape: ModelShape, *, weights: int, context: int, slots: int) -> int:
    """Return the bytes of llama.cpp with `weights` bytes of tensors and an f16 cache, in RAM."""
    cache = kv_bytes(shape, context=context, slots=slots)
    return weights + cache + working_bytes(shape, context=context, slots=slots) + PROCESS


def kv_bytes(shape: ModelShape, *, context: int, slots: int, kv: str = "f16") -> int:
    """Return the bytes of the KV cache: `slots` of `context` tokens each."""
    _check(context, slots, kv)
    cells = slots * math.ceil(context / CELLS) * CELLS
    return int(2 * shape.layers * shape.key * cells * KV_BYTES[kv])


def working_bytes(shape: ModelShape, *, context: int, slots: int) -> int:
    """Return the bytes of llama.cpp's compute and output buffers."""
    wide = max(shape.hidden, shape.query)
    buffers = 4 * BATCH * (3 * shape.intermediate + 5 * wide)
    mask = 2 * BATCH * math.ceil(context / CELLS) * CELLS
    return buffers + mask + 4 * slots * shape.vocabulary


def layers_on_gpu(
    shape: ModelShape, quantization: str, *, gpu: int, context: int, slots: int, kv: str = "f16"
) -> Placement:
    """Return how many layers a GPU of `gpu` bytes takes, and what then lies where.

    0 bytes is no GPU. The GPU also holds its context (500 MB: assumed) and a copy of the
    working memory. Raises as `serving_memory`.
    """
    found = serving_memory(shape, quantization, context=context, slots=slots, kv=kv)
    embedding, *rest = _layer_bytes(shape, quantization)
    each_kv = found.kv // shape.layers
    working = found.working - PROCESS
    taken = GPU_CONTEXT + working
    layers = read = cache = 0
    head = rest[-1] + (embedding if shape.tied else 0)  # a tied head is copied
    for weights, keys in reversed([*((layer, each_kv) for layer in rest[:-1]), (head, 0)]):
        if taken + read + cache + weights + keys > gpu:
            break
        layers, read, cache = layers + 1, read + weights, cache + keys
    moved = read - (embedding if shape.tied and layers else 0)
    ram_read = sum(rest) - moved + (embedding if shape.tied and not layers else 0)
    return Placement(
        gpu_layers=layers,
        gpu=taken + read + cache if layers else 0,
        ram=found.weights - moved + found.kv - cache + found.working,
        gpu_read=read,
        ram_read=ram_read,
        gpu_kv=cache,
        ram_kv=found.kv - cache,
    )


def largest_context(
    shape: ModelShape, quantization: str, *, gpu: int, ram: int, slots: int, kv: str = "f16"
) -> int:
    """Return the most tokens a slot that fit, in steps of 256; 0 where not even 256 do.

    Not more than the model was made for. `ram`: bytes that may be used.
    """
    low, high = 0, (shape.context or 1 << 20) // CELLS
    while low < high:
        middle = (low + high + 1) // 2
        placed = layers_on_gpu(
            shape, quantization, gpu=gpu, context=middle * CELLS, slots=slots, kv=kv
        )
        low, high = (middle, high) if placed.ram <= ram else (low, middle - 1)
    return low * CELLS


@functools.lru_cache(maxsize=256)
def _layer_bytes(shape: ModelShape, quantization: str) -> tuple[int, ...]:
    """Return the bytes of embeddings, each layer, and head with the last norm."""
    embedding, head, layers = 0, 0, [0] * shape.layers
    for tensor in tensors(shape):
        size = tensor_bytes(tensor, shape, quantization)
        if tensor.name.startswith("blk."):
            layers[int(tensor.name.split(".")[1])] += size
        elif tensor.name.startswith("output"):
            head += size
        else:
            embedding += size
    return (embedding, *layers, head)


def _check(context: int, slots: int, kv: str) -> None:
    if context < 1 or slots < 1:
        raise DataError(f"context {context} and slots {slots}: at least 1 each")
    if kv not in KV_BYTES:
        raise DataError(f"KV cache in {kv!r}: known are {', '.join(KV_BYTES)}")
