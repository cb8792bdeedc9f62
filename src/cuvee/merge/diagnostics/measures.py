"""What a merge did to a tensor, in numbers people look at: norms, movement, agreement.

`measure` takes one block of the models, of the base (where there is one) and of the result,
and returns a vector of sums; vectors of blocks and of tensors add up. `describe` turns such
a vector into the measures of the record: how far each model moved from the base, where the
models' changes point the same way, which weights of the result are whose. Does not read
tensors and does not draw (`cuvee.merge.diagnostics.heatmap`).
"""

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cuvee.merge.kernels import Array, fast_kernel

Sums = NDArray[np.float64]

CHUNK = 2048
"""Elements summed in float32 before they go into float64: exact for counts, and the chunks
of all arrays stay in a core's first cache."""
SINGLE = 5
"""Sums that stand once: elements, squares of the base, squares and moves of the result, and
sign conflicts. Then three a model, and two a pair of models."""
DIGITS = 8
"""Significant digits of a measure in the record; the sums themselves hold about seven."""

ZEROS: Array = np.zeros(CHUNK, np.float32)
ZERO, ONE = np.float32(0), np.float32(1)


def sums_length(models: int) -> int:
    """Return how many numbers `measure` gives for a number of models >= 1."""
    return SINGLE + 3 * models + models * (models - 1)


def measure(models: Array, base: Array | None, result: Array) -> Sums:
    """Return the sums of one block, float64 [sums_length(k)]; the sums of blocks add up.

    `models`: [k, rows, d], k >= 1; `base` (None: changes are measured from 0) and `result`:
    [rows, d]; float32 and finite, the models as they were read. One reading of all arrays for
    two models, about 0.7 ns an element.
    """
    k = len(models)
    sums = np.zeros(sums_length(k), np.float64)
    flat, merged = models.reshape(k, -1), result.reshape(-1)
    reference = ZEROS if base is None else base.reshape(-1)
    add = add_pair if k == 2 else add_any
    add(flat, reference, merged, 0 if base is None else 1, sums)
    return sums


@dataclasses.dataclass(frozen=True)
class Counted:
    """What a kernel of two inputs x, y and a result z counted and summed on its way."""

    elements: int
    squares: NDArray[np.float64]
    """[5]: of x, y, z, x - y and z - y."""
    counts: NDArray[np.int64]
    """[4]: elements in which x differs from y, and z from y (as numbers), and in which z has
    not x's bits, and not y's."""


def sums_of_pair(found: Counted) -> Sums:
    """Return the sums that `measure` gives for two models x, y without a base.

    But for those that have a meaning only with a base: they are 0.
    """
    x, y, z, apart, _ = found.squares
    differing, _, not_x, not_y = found.counts
    n = found.elements
    return np.array([n, 0, z, 0, 0, x, y, 0, 0, n - not_x, n - not_y, apart, differing], np.float64)


def sums_on_base(found: Counted) -> Sums:
    """Return the sums that `measure` gives for one model x on a base y."""
    _, y, _, apart, delta = found.squares
    differing, moved, not_x, _ = found.counts
    n = found.elements
    return np.array([n, y, delta, moved, 0, apart, differing, n - not_x], np.float64)


def describe(sums: Sums, *, models: int, has_base: bool) -> dict[str, Any]:
    """Return the measures that a vector of sums holds, as JSON values.

    Shares are of all elements, in [0, 1]; norms are Euclidean. What has no value (a share of
    no elements, the direction of a zero change, a sum out of float32's range) is None.

    With a base: `base` {norm}; `models`, for each {delta_norm, share_moved, share_equal};
    `result` {delta_norm, share_moved}; `pairs`, for each {models: [i, j], difference_norm,
    share_differing, cosine_deltas}; `share_conflicting`, elements in which two models moved
    in opposite directions. A delta is a model minus the base; what moved differs from it.
    Without: `models` {norm, share_equal}, `result` {norm}, `pairs` as above, but with
    `cosine_weights` and `relative_difference` (to the larger norm of the two). In both,
    `share_equal` is of elements where the result is that model's, bit for bit.
    """
    elements, base, result, moved, conflicts = (float(value) for value in sums[:SINGLE])
    squares, moves, equal = sums[SINGLE : SINGLE + 3 * models].reshape(3, models)
    norm = "delta_norm" if has_base else "norm"
    rows = [
        {norm: _root(squares[i])}
        | ({"share_moved": _share(moves[i], elements)} if has_base else {})
        | {"share_equal": _share(equal[i], elements)}
        for i in range(models)
    ]
    found: dict[str, Any] = {"elements": int(elements)}
    if has_base:
        found["base"] = {"norm": _root(base)}
    found["models"] = rows
    found["result"] = {norm: _root(result)}
    if has_base:
        found["result"]["share_moved"] = _share(moved, elements)
    found["pairs"] = _pairs(sums, models, has_base=has_base)
    if has_base:
        found["share_conflicting"] = _share(conflicts, elements)
    return found


def cosine(squares_a: float, squares_b: float, squares_apart: float) -> float | None:
    """Return the cosine of two vectors from the squares of both and of their difference.

    The law of cosines: exact where they are nearly equal, and to 1e-7 elsewhere. None where
    one of them is zero or a sum is not finite.
    """
    lengths = math.sqrt(squares_a) * math.sqrt(squares_b)
    if not (lengths > 0 and math.isfinite(lengths) and math.isfinite(squares_apart)):
        return None
    return rounded(max(-1.0, min(1.0, (squares_a + squares_b - squares_apart) / (2 * lengths))))


def rounded(value: float) -> float | None:
    """Return a number for the record, to `DIGITS` digits; None for one that is not finite."""
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _pairs(sums: Sums, models: int, *, has_base: bool) -> list[dict[str, Any]]:
    """Return the measures of each pair of models, in the order of the kernels' loops."""
    squares = sums[SINGLE : SINGLE + models]
    apart, differing = sums[SINGLE + 3 * models :].reshape(2, -1)
    places = [(i, j) for i in range(models) for j in range(i + 1, models)]
    found: list[dict[str, Any]] = []
    for p, (i, j) in enumerate(places):
        measures = {
            "models": [i, j],
            "difference_norm": _root(apart[p]),
            "share_differing": _share(differing[p], sums[0]),
        }
        angle = cosine(squares[i], squares[j], apart[p])
        if has_base:
            measures["cosine_deltas"] = angle
        else:
            measures["cosine_weights"] = angle
            measures["relative_difference"] = relative(apart[p], max(squares[i], squares[j]))
        found.append(measures)
    return found


def relative(squares_apart: float, squares: float) -> float | None:
    """Return the norm of a difference relative to a norm, both given squared; None for 0."""
    return rounded(math.sqrt(squares_apart) / math.sqrt(squares)) if squares > 0 else None


def _share(count: float, elements: float) -> float | None:
    return rounded(count / elements) if elements else None


def _root(squares: float) -> float | None:
    return rounded(math.sqrt(squares))


@fast_kernel
def add_pair(models: Array, base: Array, result: Array, step: int, out: Sums) -> None:
    """Add the sums of two models [2, n] to `out`: all of them in one loop.

    `result`: [n]; `base`: [n] with step 1, or CHUNK zeros with step 0.
    """
    bits, result_bits = models.view(np.int32), result.view(np.int32)
    for begin in range(0, result.size, CHUNK):
        end = min(begin + CHUNK, result.size)
        a, b, r = models[0][begin:end], models[1][begin:end], result[begin:end]
        c = base[begin * step :][: end - begin]
        bits_a, bits_b, bits_r = bits[0][begin:end], bits[1][begin:end], result_bits[begin:end]
        squares_a = squares_b = squares_c = squares_r = apart = ZERO
        moved_a = moved_b = moved_r = equal_a = equal_b = differing = conflicts = ZERO
        for j in range(r.size):
            x, y, z, t = a[j] - c[j], b[j] - c[j], r[j] - c[j], a[j] - b[j]
            squares_a += x * x
            squares_b += y * y
            squares_r += z * z
            squares_c += c[j] * c[j]
            apart += t * t
            moved_a += ONE if a[j] != c[j] else ZERO
            moved_b += ONE if b[j] != c[j] else ZERO
            moved_r += ONE if r[j] != c[j] else ZERO
            differing += ONE if a[j] != b[j] else ZERO
            equal_a += ONE if bits_a[j] == bits_r[j] else ZERO
            equal_b += ONE if bits_b[j] == bits_r[j] else ZERO
            low, high = (x, y) if x < y else (y, x)
            conflicts += ONE if (low < ZERO) & (high > ZERO) else ZERO
        out[0] += r.size
        out[1] += squares_c
        out[2] += squares_r
        out[3] += moved_r
        out[4] += conflicts
        out[5] += squares_a
        out[6] += squares_b
        out[7] += moved_a
        out[8] += moved_b
        out[9] += equal_a
        out[10] += equal_b
        out[11] += apart
        out[12] += differing


@fast_kernel
def add_any(models: Array, base: Array, result: Array, step: int, out: Sums) -> None:
    """Add the sums of any number of models [k, n] to `out`, as `add_pair` does for two.

    Each chunk is read from the cache once a model and once a pair.
    """
    k = models.shape[0]
    bits, result_bits = models.view(np.int32), result.view(np.int32)
    lowest, highest = np.empty(CHUNK, np.float32), np.empty(CHUNK, np.float32)
    for begin in range(0, result.size, CHUNK):
        end = min(begin + CHUNK, result.size)
        r, bits_r = result[begin:end], result_bits[begin:end]
        c = base[begin * step :][: end - begin]
        low, high = lowest[: end - begin], highest[: end - begin]
        low[:] = ZERO
        high[:] = ZERO
        pair = SINGLE + 3 * k
        for i in range(k):
            m, bits_m = models[i][begin:end], bits[i][begin:end]
            squares, moved = add_apart(m, c)
            out[SINGLE + i] += squares
            out[SINGLE + k + i] += moved
            out[SINGLE + 2 * k + i] += add_equal(bits_m, bits_r)
            widen_range(m, c, low, high)
            for o in range(i + 1, k):
                squares, moved = add_apart(m, models[o][begin:end])
                out[pair] += squares
                out[pair + k * (k - 1) // 2] += moved
                pair += 1
        squares, moved = add_apart(r, c)
        out[0] += r.size
        out[1] += add_apart(c, ZEROS[: end - begin])[0]
        out[2] += squares
        out[3] += moved
        out[4] += add_opposite(low, high)


@fast_kernel
def add_apart(a: Array, b: Array) -> tuple[np.float32, np.float32]:
    """Return the sum of (a - b)^2 and the number of differing elements of [n] and [n]."""
    squares = differing = ZERO
    for j in range(a.size):
        x = a[j] - b[j]
        squares += x * x
        differing += ONE if a[j] != b[j] else ZERO
    return squares, differing


@fast_kernel
def add_equal(a: NDArray[np.int32], b: NDArray[np.int32]) -> np.float32:
    """Return in how many elements the bits [n] and [n] are the same."""
    equal = ZERO
    for j in range(a.size):
        equal += ONE if a[j] == b[j] else ZERO
    return equal


@fast_kernel
def widen_range(model: Array, base: Array, low: Array, high: Array) -> None:
    """Take the changes of one more model into the ranges [n] of changes seen."""
    for j in range(model.size):
        x = model[j] - base[j]
        low[j] = x if x < low[j] else low[j]
        high[j] = x if x > high[j] else high[j]


@fast_kernel
def add_opposite(low: Array, high: Array) -> np.float32:
    """Return how many ranges [n] reach from under 0 to over 0."""
    conflicts = ZERO
    for j in range(low.size):
        conflicts += ONE if (low[j] < ZERO) & (high[j] > ZERO) else ZERO
    return conflicts
