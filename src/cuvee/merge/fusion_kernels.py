"""The inner loops of Arcee Fusion: divergence of rows, scores, the choice.

Blocks are float32 [rows, d], C-contiguous and finite. The formulas and their reasons are in
`cuvee.merge.fusion`; here is only how they are computed in as few passes as the cache allows.
"""

import numpy as np
from numpy.typing import NDArray

from cuvee.merge.kernels import Array, fused_kernel, kernel, lane_sum

NARROW = 0.05
"""Rows in which no weight moved by more take short series, exact to float32 up to here."""
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


@kernel
def differences(a: Array, b: Array, delta: Array) -> tuple[int, int]:
    """Write b - a [d] to `delta`; return how many exceed NARROW, and SAFE_EXPONENT in a or b."""
    far = extreme = np.int32(0)
    for j in range(a.size):
        x = b[j] - a[j]
        delta[j] = x
        beyond = (abs(a[j]) > np.float32(SAFE_EXPONENT)) | (abs(b[j]) > np.float32(SAFE_EXPONENT))
        far = np.int32(far + np.int32(abs(x) > np.float32(NARROW)))
        extreme = np.int32(extreme + np.int32(beyond))
    return far, extreme


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
def divergences(anchor: Array, other: Array, scratch: Array, out: Array) -> None:
    """Write KL(softmax(other) || softmax(anchor)) of each row [rows] to `out`; all >= 0.

    `scratch`: [3, d], overwritten.
    """
    w, v, delta = scratch[0], scratch[1], scratch[2]
    for i in range(anchor.shape[0]):
        a, b = anchor[i], other[i]
        far, extreme = differences(a, b, delta)
        if extreme:
            divergence = extreme_divergence(a, b)
        elif not far:
            exponentials(a, w)
            divergence = narrow_divergence(w, delta, v)
        else:
            exponentials(a, w)
            exponentials(b, v)
            divergence = wide_divergence(w, v, delta)
        out[i] = max(divergence, 0.0)


@kernel
def count_scores(anchor: Array, other: Array, divergence: Array, bins: NDArray[np.int64]) -> int:
    """Add the scores' upper 16 bits to a histogram; return how many elements differ at all.

    Score: |other - anchor| times the row's `divergence` [rows]. `bins`: [HIGH_BINS].
    """
    differing = 0
    words = np.empty(anchor.shape[1], np.uint32)
    scores = words.view(np.float32)
    for i in range(anchor.shape[0]):
        a, b = anchor[i], other[i]
        for j in range(a.size):
            scores[j] = abs(b[j] - a[j]) * divergence[i]
        for j in range(a.size):
            differing += a[j] != b[j]
        for j in range(a.size):
            bins[words[j] >> np.uint32(16)] += 1
    return differing


@kernel
def _add_lower(word: np.uint32, high: NDArray[np.uint32], bins: NDArray[np.int64]) -> None:
    for r in range(high.size):
        if word >> np.uint32(16) == high[r]:
            bins[r, word & np.uint32(0xFFFF)] += 1


@kernel
def collect_scores(
    anchor: Array,
    other: Array,
    divergence: Array,
    high: NDArray[np.uint32],
    bins: NDArray[np.int64],
) -> None:
    """Add the lower bits of scores whose upper bits are `high[r]` to row r of `bins`.

    `high`: [3] bins, in ascending order; `bins`: [3, LOW_BINS].
    """
    h0, h1, h2 = high[0], high[1], high[2]
    # About 1 % of the scores is wanted: eight flags are looked at together.
    eights = np.zeros((anchor.shape[1] + 7) // 8, np.uint64)
    flags = eights.view(np.uint8)
    words = np.empty(anchor.shape[1], np.uint32)
    scores = words.view(np.float32)
    for i in range(anchor.shape[0]):
        a, b = anchor[i], other[i]
        for j in range(a.size):
            scores[j] = abs(b[j] - a[j]) * divergence[i]
        for j in range(a.size):
            upper = words[j] >> np.uint32(16)
            flags[j] = (upper == h0) | (upper == h1) | (upper == h2)
        for g in range(eights.size):
            if eights[g]:
                for j in range(8 * g, min(8 * g + 8, a.size)):
                    if flags[j]:
                        _add_lower(words[j], high, bins)


@kernel
def choose(anchor: Array, other: Array, divergence: Array, threshold: float, out: Array) -> int:
    """Write `other` where the score reaches `threshold`, else `anchor`; return how often.

    `out` may be `anchor` or `other` itself.
    """
    limit = np.float32(threshold)
    adopted = 0
    for i in range(anchor.shape[0]):
        a, b, c = anchor[i], other[i], out[i]
        for j in range(a.size):
            take = abs(b[j] - a[j]) * divergence[i] >= limit
            adopted += take
            c[j] = b[j] if take else a[j]
    return adopted
