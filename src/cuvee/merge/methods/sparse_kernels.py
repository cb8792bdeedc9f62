"""Inner loops of the methods on task vectors: thin them out, then add them to the base.

The first kernels turn a block of models [k, n] into sparse task vectors in place, the others
add those to the base [n], in place as well. Sums over models are taken in float64 over float32
products: exact unless magnitudes differ by more than 2^25 or so, hence the same for any order
of the models. No `fastmath`: nothing here is reordered or fused, on any processor. Divisions
are `np.divide`: the operator checks for a divisor of 0, and then no loop is vectorised.
"""

import numpy as np
from numpy.typing import NDArray

from cuvee.merge.kernels import Array, kernel, uniform

CHUNK = 2048
"""Elements taken at a time: with their sums they stay in the first-level cache."""


@kernel
def distances(models: Array, base: Array) -> None:
    """Turn models [k, n] into the magnitudes of their task vectors, |x - base|, in place."""
    for m in range(models.shape[0]):
        row = models[m]
        for i in range(row.size):
            row[i] = abs(row[i] - base[i])


@kernel
def trim(models: Array, base: Array, low: Array, high: Array, scale: Array) -> None:
    """Turn models [k, n] into task vectors cut by magnitude, in place.

    x -> scale[m] * (x - base) where low[m] <= |x - base| <= high[m], else 0.
    """
    zero = np.float32(0)
    for m in range(models.shape[0]):
        row = models[m]
        least, most, factor = low[m], high[m], scale[m]
        for i in range(row.size):
            delta = row[i] - base[i]
            size = abs(delta)
            row[i] = delta * factor if (size >= least) & (size <= most) else zero


@kernel
def drop(
    models: Array,
    base: Array,
    begin: int,
    seeds: NDArray[np.uint64],
    density: Array,
    scale: Array,
) -> None:
    """Turn models [k, n] into task vectors thinned out at random, in place.

    x -> scale[m] * (x - base) with probability density[m], else 0. `begin`: index of the first
    element in the tensor; `seeds` [k]: of the models' streams (`kernels.uniform`).
    """
    zero = np.float32(0)
    random = np.empty(CHUNK, np.float32)
    for m in range(models.shape[0]):
        keep, factor = density[m], scale[m]
        for first in range(0, models.shape[1], CHUNK):
            row = models[m, first : first + CHUNK]
            origin = base[first : first + CHUNK]
            uniform(seeds[m], begin + first, random[: row.size])
            for i in range(row.size):
                delta = row[i] - origin[i]
                row[i] = delta * factor if random[i] < keep else zero


@kernel
def drop_ranked(
    deltas: Array, keys: NDArray[np.uint64], random: Array, bounds: Array, rescale: float
) -> None:
    """Thin out a task vector [rows, d] by the rank of each magnitude in its row, in place.

    `keys` [rows, d]: (bits of the magnitude) << 32 | column, sorted in each row; `random`
    [rows, d] in [0, 1); `bounds` [2]: probability of the smallest and of the largest. Equal
    magnitudes share the mean of their ranks; a row of one element has the mean of `bounds`.
    Survivors are divided by probability^rescale, rescale being 0 or 1.
    """
    rows, d = deltas.shape
    for r in range(rows):
        first = 0
        while first < d:
            after = first + 1
            while after < d and keys[r, after] >> np.uint64(32) == keys[r, first] >> np.uint64(32):
                after += 1
            place = 0.5 * (first + after - 1) / (d - 1) if d > 1 else 0.5
            keep = bounds[0] + place * (bounds[1] - bounds[0])
            factor = np.float32(1.0 / keep if rescale else 1.0)
            for j in range(first, after):
                column = np.int64(keys[r, j] & np.uint64(0xFFFFFFFF))
                if random[r, column] < keep:
                    deltas[r, column] *= factor
                else:
                    deltas[r, column] = 0.0
            first = after


@kernel
def variance(models: Array, base: Array, out: Array) -> None:
    """Write the population variance over models [k, n] of their task vectors into `out` [n]."""
    k, n = models.shape
    mean = np.empty(CHUNK, np.float64)
    square = np.empty(CHUNK, np.float64)
    for first in range(0, n, CHUNK):
        origin = base[first : first + CHUNK]
        size = origin.size
        mean[:] = 0.0
        square[:] = 0.0
        for m in range(k):
            row = models[m, first : first + CHUNK]
            for i in range(size):
                mean[i] += np.float64(row[i] - origin[i])
        for i in range(size):
            mean[i] = np.divide(mean[i], np.float64(k))
        for m in range(k):
            row = models[m, first : first + CHUNK]
            for i in range(size):
                off = np.float64(row[i] - origin[i]) - mean[i]
                square[i] += off * off
        for i in range(size):
            # abs: a NaN let through on purpose must not sort as a negative number
            out[first + i] = abs(np.divide(square[i], np.float64(k)))


@kernel
def add_sum(deltas: Array, weights: Array, base: Array) -> None:
    """Add sum_m weights[m] deltas[m] of [k, n] to the base [n], in place.

    Where the sum is 0 the base stands as it is, bit for bit (-0 + 0 would be +0).
    """
    k, n = deltas.shape
    total = np.empty(CHUNK, np.float64)
    zero = np.float32(0)
    for first in range(0, n, CHUNK):
        target = base[first : first + CHUNK]
        size = target.size
        total[:] = 0.0
        for m in range(k):
            row = deltas[m, first : first + CHUNK]
            weight = weights[m]
            for i in range(size):
                total[i] += np.float64(row[i] * weight)
        for i in range(size):
            change = np.float32(total[i])
            target[i] = target[i] if change == zero else target[i] + change


@kernel
def add_elected(deltas: Array, weights: Array, base: Array) -> None:
    """Add the mean of those deltas [k, n] that have the elected sign to the base [n], in place.

    `weights` [3, k]: a for the vote, b for the sum, c for the divisor. Per element, the sign
    elected is that of sum_m a_m delta_m (+ for 0); over the m whose a_m delta_m has it,
    total = sum b_m delta_m and divisor = sum c_m (0 counts as 1); base += total / divisor.
    """
    k, n = deltas.shape
    votes = np.empty(CHUNK, np.float64)
    elected = np.empty(CHUNK, np.float32)
    total = np.empty(CHUNK, np.float64)
    divisor = np.empty(CHUNK, np.float64)
    zero, plus, minus = np.float32(0), np.float32(1), np.float32(-1)
    for first in range(0, n, CHUNK):
        target = base[first : first + CHUNK]
        size = target.size
        votes[:] = 0.0
        total[:] = 0.0
        divisor[:] = 0.0
        for m in range(k):
            row = deltas[m, first : first + CHUNK]
            a = weights[0, m]
            for i in range(size):
                votes[i] += np.float64(row[i] * a)
        for i in range(size):
            elected[i] = plus if votes[i] >= 0.0 else minus
        for m in range(k):
            row = deltas[m, first : first + CHUNK]
            a, b, c = weights[0, m], weights[1, m], weights[2, m]
            for i in range(size):
                agrees = row[i] * a * elected[i] > zero
                total[i] += np.float64(row[i] * b if agrees else zero)
                divisor[i] += np.float64(c if agrees else zero)
        for i in range(size):
            share = np.float32(1.0 if divisor[i] == 0.0 else divisor[i])
            mean = np.divide(np.float32(total[i]), share)
            target[i] = target[i] if mean == zero else target[i] + mean
