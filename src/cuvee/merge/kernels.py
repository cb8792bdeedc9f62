"""Inner loops of merging, compiled by numba: each reads its arrays once, in cache.

numpy would need ten to twenty passes for what these do in one, and
torch takes longer to import than a merge of 1.5 billion parameters may last. Everything here
is on contiguous float32 or integer arrays, releases the interpreter's lock and is compiled
on first use (kept on disk beside this file, or in numba's cache folder).

Sums that decide weights are taken in lanes, in an order that the source states: left to the
compiler (`fastmath`), the order of a sum changes with what it inlines where, and so would the
last bits of a merge between a first run, which compiles, and a second, which does not.
Counts are kept in int32, which is half the work for vector units: no block has 2^31 elements.
`fastmath` also assumes that no value is NaN or infinite; what looks for such values does it
on integers.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic
from numpy.typing import NDArray

Array = NDArray[np.float32]
Words = NDArray[np.uint32]
Bits = NDArray[np.uint16]
"""bfloat16, as stored."""
Row = Bits | Array
"""Weights as bfloat16 bits or float32: what kernels that say `widened` take."""
F = TypeVar("F", bound=Callable[..., Any])

HIGH_BINS = 1 << 15
"""Bins of the first histogram: sign (0), exponent and 7 bits of a float32's fraction."""
LOW_BINS = 1 << 16
"""Bins of the second: the other 16 bits."""
LANES = 256
"""Partial sums of kernels that sum as they go."""
SUM_LANES = 64
"""Partial sums of `lane_sum`."""
KINDS = {"F32": 0, "BF16": 1, "F16": 2, "F64": 3}
"""Dtypes as safetensors names them -> what `widen_all` takes them for."""


def kernel(function: F) -> F:
    """Compile loops whose order of operations stands as written, on any processor."""
    return cast("F", numba.njit(nogil=True, cache=True)(function))


def fused_kernel(function: F) -> F:
    """Compile as `kernel` does, but let x * y + z be rounded once where the processor can."""
    return cast("F", numba.njit(nogil=True, cache=True, fastmath={"contract"})(function))


def fast_kernel(function: F) -> F:
    """Compile loops whose sums may be reordered: for diagnostics, not for weights."""
    return cast("F", numba.njit(nogil=True, cache=True, fastmath=True)(function))


def instruction(function: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    """Make a function that kernels can call of one that generates its code (numba's intrinsic)."""
    return cast("Callable[[Any], Any]", intrinsic(function))


@instruction
def bits_of(_: Any, value: Any) -> Any:
    """Return a float32's bits, as uint32; for use in kernels."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return numba.uint32(numba.float32), generate


@instruction
def widened(_: Any, element: Any) -> Any:
    """Return an element of bfloat16 bits (uint16) or of float32 as float32; for use in kernels."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        bits = builder.shl(builder.zext(arguments[0], ir.IntType(32)), ir.IntType(32)(16))
        return builder.bitcast(bits, ir.FloatType())

    if element == numba.uint16:
        return numba.float32(numba.uint16), generate
    return numba.float32(numba.float32), lambda _, __, ___, arguments: arguments[0]


@kernel
def widen_bf16(bits: NDArray[np.uint16], out: Array) -> int:
    """Write bfloat16 [n], given as its bits, as float32 [n]; return how many are not finite."""
    words = out.view(np.uint32)
    bad = np.int32(0)
    for i in range(bits.size):
        word = np.uint32(bits[i])
        words[i] = word << np.uint32(16)
        bad = np.int32(bad + np.int32((word & np.uint32(0x7F80)) == np.uint32(0x7F80)))
    return int(bad)


@kernel
def widen_f16(bits: NDArray[np.uint16], out: Array) -> int:
    """Write float16 [n], given as its bits, as float32 [n]; return how many are not finite.

    The exponent is moved by a multiplication with 2^112, exact for subnormals as well.
    """
    words = out.view(np.uint32)
    shift = np.float32(2.0**112)
    bad = np.int32(0)
    for i in range(bits.size):
        word = np.uint32(bits[i])
        words[i] = (word & np.uint32(0x7FFF)) << np.uint32(13)
        out[i] *= shift
        words[i] |= (word & np.uint32(0x8000)) << np.uint32(16)
        lost = np.uint32((word & np.uint32(0x7C00)) == np.uint32(0x7C00))
        words[i] |= lost * np.uint32(0x7F800000)
        bad = np.int32(bad + np.int32(lost))
    return int(bad)


@kernel
def widen_all(parts: tuple[NDArray[np.uint8], ...], kinds: NDArray[np.int64], out: Array) -> int:
    """Write the values of n byte arrays as float32 [n, size]; return how many are not finite.

    `kinds`: [n], values of `KINDS`. float64 is rounded.
    """
    bad = 0
    for i in range(len(parts)):
        if kinds[i] == 1:
            bad += widen_bf16(parts[i].view(np.uint16), out[i])
        elif kinds[i] == 2:
            bad += widen_f16(parts[i].view(np.uint16), out[i])
        else:
            if kinds[i] == 0:
                out[i][:] = parts[i].view(np.float32)
            else:
                out[i][:] = parts[i].view(np.float64)
            bad += count_not_finite(out[i])
    return bad


@kernel
def count_not_finite(values: Array) -> int:
    """Return how many of float32 [n] are NaN or infinite."""
    words = values.view(np.uint32)
    bad = np.int32(0)
    for i in range(words.size):
        exponent = words[i] & np.uint32(0x7F800000)
        bad = np.int32(bad + np.int32(exponent == np.uint32(0x7F800000)))
    return int(bad)


@kernel
def rounded_bits(value: np.float32) -> np.uint16:
    """Return the bits of a float32 rounded to bfloat16, to nearest, ties to even."""
    word = bits_of(value)  # uint32 throughout: numba would go on in 64 bits
    even = np.uint32(np.uint32(word >> np.uint32(16)) & np.uint32(1))
    up = np.uint32(word + np.uint32(np.uint32(0x7FFF) + even))
    return np.uint16(np.uint32(up >> np.uint32(16)))


@kernel
def narrow_bf16(values: Array, bits: Bits, back: Array) -> int:
    """Round float32 [n] to bfloat16 (to nearest, ties to even); return how many do not fit.

    `bits`: the result; `back`: the result as float32. What does not fit is NaN or infinite.
    """
    bad = np.int32(0)
    for i in range(values.size):
        bits[i] = rounded_bits(values[i])
        back[i] = widened(bits[i])
        bad = np.int32(bad + np.int32((bits[i] & np.uint16(0x7F80)) == np.uint16(0x7F80)))
    return int(bad)


@kernel
def lane_sum(x: Array) -> float:
    """Return the sum of float32 [n]: `SUM_LANES` float32 lanes, added up in float64."""
    lanes = np.zeros(SUM_LANES, np.float32)
    n = x.size - x.size % SUM_LANES
    for begin in range(0, n, SUM_LANES):
        part = x[begin : begin + SUM_LANES]
        for i in range(SUM_LANES):
            lanes[i] += part[i]
    total = np.float64(0.0)
    for i in range(SUM_LANES):
        total += lanes[i]
    for i in range(n, x.size):
        total += x[i]
    return total


@kernel
def folded(lanes: Array) -> float:
    """Return the sum of float32 [LANES]: halves are added up to 16 of them, then in float64.

    `lanes` is overwritten.
    """
    half = lanes.size
    while half > 16:
        half //= 2
        for j in range(half):
            lanes[j] += lanes[j + half]
    total = np.float64(0.0)
    for j in range(half):
        total += lanes[j]
    return total


@kernel
def lane_dot(x: Array, y: Array) -> float:
    """Return the inner product of float32 [n] and [n]: exact products, eight float64 lanes."""
    n = x.size - x.size % 8
    a = b = c = d = e = f = g = h = np.float64(0.0)
    for t in range(0, n, 8):
        a += np.float64(x[t]) * np.float64(y[t])
        b += np.float64(x[t + 1]) * np.float64(y[t + 1])
        c += np.float64(x[t + 2]) * np.float64(y[t + 2])
        d += np.float64(x[t + 3]) * np.float64(y[t + 3])
        e += np.float64(x[t + 4]) * np.float64(y[t + 4])
        f += np.float64(x[t + 5]) * np.float64(y[t + 5])
        g += np.float64(x[t + 6]) * np.float64(y[t + 6])
        h += np.float64(x[t + 7]) * np.float64(y[t + 7])
    total = ((a + b) + (c + d)) + ((e + f) + (g + h))
    for t in range(n, x.size):
        total += np.float64(x[t]) * np.float64(y[t])
    return total


@kernel
def count_high(scores: Array, bins: NDArray[np.int64]) -> None:
    """Add float32 scores [n], each >= 0, to a histogram [HIGH_BINS] by their upper bits."""
    words = scores.view(np.uint32)
    for i in range(words.size):
        bins[words[i] >> np.uint32(16)] += 1


@kernel
def count_low(scores: Array, high: NDArray[np.uint32], bins: NDArray[np.int64]) -> None:
    """Add those scores whose upper bits are `high[r]` to row r of [ranks, LOW_BINS]."""
    words = scores.view(np.uint32)
    lower = np.empty(words.size + 1, np.uint16)
    for r in range(high.size):
        wanted, found = high[r], 0
        for i in range(words.size):  # without a branch: hits may be many and come at random
            lower[found] = words[i]
            found += words[i] >> np.uint32(16) == wanted
        for i in range(found):
            bins[r, lower[i]] += 1


@kernel
def uniform(seed: np.uint64, begin: int, out: Array) -> None:
    """Write random numbers in [0, 1) for elements begin, begin + 1, ... of a stream.

    Counter-based: element i gets the upper 24 bits of splitmix64's i-th output for `seed`
    (Steele, Lea and Flood 2014), so that any slice on any thread has the same numbers.
    """
    step = np.uint64(0x9E3779B97F4A7C15)
    for i in range(out.size):
        z = seed + (np.uint64(begin) + np.uint64(i) + np.uint64(1)) * step
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
        out[i] = np.float32(z >> np.uint64(40)) * np.float32(2.0**-24)
