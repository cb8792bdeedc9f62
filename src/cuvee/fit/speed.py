"""How fast one request is answered: the bytes read for a token over the memory's bandwidth.

Generating one token reads every weight once, and the KV cache of what has been said; GPU and CPU
work one after the other, each at its own bandwidth. That bound holds where the processor keeps
up: with few cores, or many slots at once, it does not, and prompts are bound by arithmetic.
Checked against one published measurement (tests/fit/test_speed.py): 1.62 tokens/s for a 32B in
Q8_0 on an RTX 4060 Ti of 8 GB and four channels of DDR4-2400. Not here: prompts.
"""

import dataclasses
import time

from cuvee.errors import RecipeError
from cuvee.fit.serving import Placement

GPU_SHARE, RAM_SHARE = 0.75, 0.6
"""Of the stated bandwidth that reading weights reaches: assumed, from published measurements."""
LOW, HIGH = 0.5, 1.4
"""The range said with an estimate, as factors."""
GIB = 1 << 30

GPUS: dict[str, tuple[int, int]] = {
    "RTX 3060": (12, 360),
    "RTX 3070": (8, 448),
    "RTX 3080": (10, 760),
    "RTX 3090": (24, 936),
    "RTX 4060": (8, 272),
    "RTX 4060 Ti": (8, 288),
    "RTX 4070": (12, 504),
    "RTX 4080": (16, 717),
    "RTX 4090": (24, 1008),
    "RTX 5090": (32, 1792),
    "T4": (16, 320),
    "L4": (24, 300),
    "L40S": (48, 864),
    "A100": (80, 2039),
    "H100": (80, 3350),
    "H200": (141, 4800),
}
"""GiB of memory and GB/s of bandwidth, as their makers state them."""


@dataclasses.dataclass(frozen=True)
class Bandwidth:
    """Bytes a second of a device, and where the number is from, in words."""

    bytes: float
    share: float
    """Of it what reading weights reaches, in (0, 1]."""
    source: str


@dataclasses.dataclass(frozen=True)
class Pace:
    """Tokens a second of one request."""

    tokens: float
    low: float
    high: float
    assumptions: tuple[str, ...]


def tokens_per_second(
    placed: Placement, *, ram: Bandwidth, gpu: Bandwidth | None, filled: float = 0.0
) -> Pace:
    """Return the pace of one request at a time.

    `filled`, in [0, 1]: how much of the KV cache (all slots) is read for a token. `gpu` may be
    None where nothing lies on one. Raises ValueError where something does.
    """
    on_gpu = placed.gpu_read + filled * placed.gpu_kv
    if on_gpu and gpu is None:
        raise ValueError("weights lie on a GPU of unknown bandwidth")
    seconds = (placed.ram_read + filled * placed.ram_kv) / (ram.bytes * ram.share)
    said = [f"RAM: {ram.bytes / 1e9:.0f} GB/s ({ram.source}), {ram.share:.0%} of it reached"]
    if on_gpu and gpu is not None:
        seconds += on_gpu / (gpu.bytes * gpu.share)
        said.append(
            f"GPU: {gpu.bytes / 1e9:.0f} GB/s ({gpu.source}), {gpu.share:.0%} of it reached"
        )
    tokens = 1 / seconds
    said.append(f"one request at a time, {filled:.0%} of the KV cache filled; few cores are slower")
    return Pace(tokens=tokens, low=LOW * tokens, high=HIGH * tokens, assumptions=tuple(said))


def measured_ram() -> Bandwidth:
    """Return the bandwidth of this machine's RAM: the best of eight copies of 64 MB."""
    import numpy  # not before: the table of GPUs needs none

    source = numpy.ones(1 << 23)
    target = source.copy()  # its pages are there before the first measurement
    best = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        numpy.copyto(target, source)
        best = min(best, time.perf_counter() - start)
    copied = 2 * source.nbytes / best  # read and written
    return Bandwidth(copied, 0.9, "a copy measured on this machine, with one core")


def gpu_of(text: str) -> tuple[int, Bandwidth | None]:
    """Return bytes and bandwidth of a GPU by name ("RTX 3070"), or bytes of a size ("8GB").

    Raises RecipeError for neither.
    """
    known = {name.lower(): name for name in GPUS}
    name = known.get(" ".join(text.lower().removeprefix("nvidia ").split()))
    if name is not None:
        size, speed = GPUS[name]
        return size * GIB, Bandwidth(speed * 1e9, GPU_SHARE, f"as stated for the {name}")
    try:
        return bytes_of(text), None
    except RecipeError:
        raise RecipeError(
            f"--gpu {text!r}: a size such as 8GB, or one of {', '.join(GPUS)}"
        ) from None


def bytes_of(text: str) -> int:
    """Return the bytes of a size such as 8GB: memory is sold in units of 1,024.

    Raises RecipeError for anything else.
    """
    number = text.strip().upper().removesuffix("B").removesuffix("I").removesuffix("G")
    try:
        size = float(number)
    except ValueError:
        size = -1.0
    if not 0 <= size < 1e6:
        raise RecipeError(f"{text!r}: no size such as 8GB")
    return int(size * GIB)
