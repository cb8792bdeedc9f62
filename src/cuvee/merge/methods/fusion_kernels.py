"""The inner loops of Arcee Fusion: divergence of rows, scores, the choice.

Blocks are float32 [rows, d], C-contiguous and finite. The formulas and their reasons are in
`cuvee.merge.methods.fusion`; here is only how they are computed in as few passes as the cache
allows.
"""

import numpy as np
from numpy.typing import NDArray

from cuvee.merge.kernels import Array, fused_kernel, kernel, lane_sum, widen_all

Words = NDArray[np.uint32]

WIDTH = 5
"""Values of a score's upper 16 bits in a window, in which a quartile is looked for."""
NARROW = 0.05
"""Rows in which no weight moved by more take short series, exact to float32 up to here."""
SMALL = 0.35
"""|weight| up to which the short series of its exp is good to 2.5e-7."""
MODERATE = 0.5
"""|r| below which `r e^r - expm1(r)` is taken from its series, above from the formula."""
SAFE_EXPONENT = 60.0
"""Weights up to here need no shift by the row's largest: their exp neither over- nor underflows."""


@fused_kernel
def exponentials(values: Array, out: Array) -> None:
    """Write exp(values) [d], |values| <= SAFE_EXPONENT; relative error under 2e-7 (Cephes)."""
    words = out.view(np.int32)
    for j in range(values.size):
        x = values[j]
        n = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
        x = x - n * np.float32(0.693359375)
        x = x + n * np.float32(2.12194440e-4)
        p = np.float32(1.9875691500e-4)
        p = p * x + np.float32(1.3981999507e-3)
        p = p * x + np.float32(8.3334519073e-3)
        p = p * x + np.float32(4.1665795894e-2)
        p = p * x + np.float32(1.6666665459e-1)
        p = p * x + np.float32(0.5)
        out[j] = p * x * x + x + np.float32(1.0)
        words[j] += np.int32(n) << np.int32(23)


@fused_kernel
def small_exponentials(values: Array, out: Array) -> None:
    """Write exp(values) [d], |values| <= SMALL: the Taylor series to the sixth power."""
    for j in range(values.size):
        x = values[j]
        p = np.float32(1 / 120) + x * np.float32(1 / 720)
        p = np.float32(1 / 24) + x * p
        p = np.float32(1 / 6) + x * p
        p = np.float32(1 / 2) + x * p
        out[j] = np.float32(1) + x * (np.float32(1) + x * p)


@kernel
def differences(a: Array, b: Array, delta: Array) -> tuple[int, int, int]:
    """Write b - a [d] to `delta`; return how many of it exceed NARROW, of a SMALL.

    The third: how many of a or b exceed SAFE_EXPONENT.
    """
    far = large = extreme = np.int32(0)
    safe = np.float32(SAFE_EXPONENT)
    for j in range(a.size):
        x = b[j] - a[j]
        delta[j] = x
        far = np.int32(far + np.int32(abs(x) > np.float32(NARROW)))
        large = np.int32(large + np.int32(abs(a[j]) > np.float32(SMALL)))
        extreme = np.int32(extreme + np.int32((abs(a[j]) > safe) | (abs(b[j]) > safe)))
    return int(far), int(large), int(extreme)


@fused_kernel
def narrow_divergence(w: Array, delta: Array, term: Array) -> float:
    """Return KL for unnormalised q = `w` [d] and |`delta`| <= NARROW [d], from short series.

    `term`: [d], overwritten.
    """
    for j in range(w.size):  # w expm1(delta)
        x = delta[j]
        term[j] = (
            w[j] * x * (
                np.float32(1)
                + x * (np.float32(1 / 2) + x * (np.float32(1 / 6) + x * np.float32(1 / 24)))
            )
        )  # fmt: skip
    z = lane_sum(w)
    shift = np.float32(np.log1p(lane_sum(term) / z))
    for j in range(w.size):
        r = delta[j] - shift
        term[j] = (
            w[j] * r * r * (
                np.float32(1 / 2)
                + r * (np.float32(1 / 3) + r * (np.float32(1 / 8) + r * np.float32(1 / 30)))
            )
        )  # fmt: skip
    return lane_sum(term) / z


@fused_kernel
def wide_divergence(w: Array, v: Array, delta: Array) -> float:
    """Return KL for unnormalised q = `w` and p = `v` [d], `delta` [d] = log(v / w).

    `v` is overwritten.
    """
    z = lane_sum(w)
    shift = np.log(lane_sum(v) / z)
    for j in range(w.size):
        r = np.float64(delta[j]) - shift
        if abs(r) < MODERATE:
            # sum_k r^k (k - 1) / k!, k = 2 .. 10
            term = 1 / 44800 + r / 403200
            term = 1 / 5760 + r * term
            term = 1 / 840 + r * term
            term = 1 / 144 + r * term
            term = 1 / 30 + r * term
            term = 1 / 8 + r * term
            term = 1 / 3 + r * term
            term = r * r * (1 / 2 + r * term)
        else:
            term = r * np.exp(r) - np.expm1(r)
        v[j] = np.float32(w[j] * term)
    return lane_sum(v) / z


@kernel
def extreme_divergence(anchor: Array, other: Array) -> float:
    """Return KL(softmax(other) || softmax(anchor)) [d] for weights of any finite size."""
    top_a, top_b = np.float64(anchor.max()), np.float64(other.max())
    z, y = 0.0, 0.0
    for j in range(anchor.size):
        z += np.exp(anchor[j] - top_a)
        y += np.exp(other[j] - top_b)
    shift_a, shift_b = top_a + np.log(z), top_b + np.log(y)
    t = 0.0
    for j in range(anchor.size):
        log_q, log_p = anchor[j] - shift_a, other[j] - shift_b
        q, p = np.exp(log_q), np.exp(log_p)
        t += p * (log_p - log_q) - (p - q)
    return t


@kernel
def row_divergence(a: Array, b: Array, w: Array, v: Array, delta: Array) -> float:
    """Return KL(softmax(b) || softmax(a)) >= 0 of one row [d]; `w`, `v`, `delta`: scratch [d]."""
    far, large, extreme = differences(a, b, delta)
    if extreme:
        return max(extreme_divergence(a, b), 0.0)
    if large:
        exponentials(a, w)
    else:
        small_exponentials(a, w)
    if not far:
        return max(narrow_divergence(w, delta, v), 0.0)
    exponentials(b, v)
    return max(wide_divergence(w, v, delta), 0.0)


@kernel
def row_scores(a: Array, b: Array, divergence: float, scores: Array) -> int:
    """Write |b - a| times the row's divergence [d]; return how many elements differ at all.

    No score has its sign bit set, whatever the weights: a NaN's would lead out of the histogram.
    """
    factor = np.float32(divergence)
    differing = np.int32(0)
    for j in range(a.size):
        scores[j] = abs((b[j] - a[j]) * factor)
        differing = np.int32(differing + np.int32(a[j] != b[j]))
    return int(differing)


@kernel
def count_row(words: Words, windows: Words, high: NDArray[np.int64], near: Words, hits: int) -> int:
    """Add the upper bits of a row's scores [d] to `high`, and copy those in a window to `near`.

    They are written from near[hits] on; returns where the next one belongs. At least d + 1
    places must be left.
    """
    # One flag a score, then eight flags at a time: few scores lie in a window.
    eights = np.zeros((words.size + 7) // 8, np.uint64)
    flags = eights.view(np.uint8)
    first, second, third = windows[0], windows[1], windows[2]
    width = np.uint32(WIDTH)
    for j in range(words.size):
        high[words[j] >> np.uint32(16)] += 1
    for j in range(words.size):
        upper = words[j] >> np.uint32(16)
        flags[j] = (
            (np.uint32(upper - first) < width)
            | (np.uint32(upper - second) < width)
            | (np.uint32(upper - third) < width)
        )
    for g in range(words.size // 8):
        if eights[g]:
            for j in range(8 * g, 8 * g + 8):  # without a branch: hits come at random
                near[hits] = words[j]
                hits += flags[j]
    for j in range(words.size - words.size % 8, words.size):
        near[hits] = words[j]
        hits += flags[j]
    return hits


@kernel
def score_rows(
    pair: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    kinds: NDArray[np.int64],
    scratch: Array,
    divergence: Array,
    windows: Words,
    found: tuple[NDArray[np.int64], Words],
) -> tuple[int, int, int]:
    """Score rows of (anchor, other), given as bytes: one reading, rows stay in the cache.

    `kinds`: [2], dtypes as `kernels.KINDS`; `scratch`: [6, d], overwritten; `divergence`:
    [rows], written. `found`: to the first [HIGH_BINS] is added how often each value of the
    scores' upper 16 bits occurs; to the second are written the scores (as bits) whose upper
    bits lie in windows[r] ... windows[r] + WIDTH - 1 for an r of the three. Returns how many
    elements differ, how many values were not finite (what was found then means nothing), and
    how many scores lie in windows: -1 if the second array has no room for them.
    """
    rows, d = divergence.size, scratch.shape[1]
    high, near = found
    inputs, w, v, delta, scores = scratch[:2], scratch[2], scratch[3], scratch[4], scratch[5]
    size_a, size_b = pair[0].size // rows, pair[1].size // rows
    differing = bad = hits = 0
    full = False
    for i in range(rows):
        parts = (pair[0][i * size_a : (i + 1) * size_a], pair[1][i * size_b : (i + 1) * size_b])
        bad += widen_all(parts, kinds, inputs)
        a, b = inputs[0], inputs[1]
        divergence[i] = row_divergence(a, b, w, v, delta)
        differing += row_scores(a, b, divergence[i], scores)
        if hits + d + 1 > near.size:  # begin again: only the counts are of use now
            full, hits = True, 0
        hits = count_row(scores.view(np.uint32), windows, high, near, hits)
    return differing, bad, -1 if full else hits


@kernel
def choose(anchor: Array, other: Array, divergence: Array, threshold: float, out: Array) -> int:
    """Write `other` where the score reaches `threshold`, else `anchor`; return how often.

    `out` may be `anchor` or `other` itself.
    """
    limit = np.float32(threshold)
    total = 0
    for i in range(anchor.shape[0]):
        a, b, c = anchor[i], other[i], out[i]
        factor = divergence[i]
        adopted = np.int32(0)
        for j in range(a.size):
            take = abs(b[j] - a[j]) * factor >= limit
            adopted = np.int32(adopted + np.int32(take))
            c[j] = b[j] if take else a[j]
        total += int(adopted)
    return total
