"""The Kullback-Leibler divergence of two rows of weights under softmax, in one pass as a rule.

Rows [d] of two tensors in, as bfloat16 bits (uint16) or float32; one number a row out. For
q = softmax(a), p = softmax(b) and x = b - a, KL(p || q) depends on x alone through its
cumulants under q (McCullagh 1987, chapter 2; p is q tilted by e^x, so that
KL = K'(1) - K(1) for the cumulant generating function K(t) = log sum_j q_j e^(t x_j))::

    KL = k2/2 + k3/3 + k4/8 + k5/30 + ...  = sum_n k_n (n - 1) / n!

Up to |x| = NARROW the terms left out are under 1e-7 of the first, and the five sums of
q x^n need no array but their own: rows of updates as training makes them. Other rows take the
longer ways below. Not here: scores and the choice (`cuvee.merge.methods.fusion_kernels`).
"""

import numpy as np

from cuvee.merge.kernels import (
    LANES,
    Array,
    Row,
    bits_of,
    folded,
    fused_kernel,
    kernel,
    lane_sum,
    widened,
)

MOMENTS = 6
NARROW = 0.05
"""Rows in which no weight moved by more take the series, exact to float32 up to here."""
SMALL = 0.35
"""|weight| up to which the short series of its exp is good to 2.5e-7."""
MODERATE = 0.5
"""|r| below which `r e^r - expm1(r)` is taken from its series, above from the formula."""
SAFE_EXPONENT = 60.0
"""Weights up to here need no shift by the row's largest: their exp neither over- nor underflows."""
SCALE = 1024.0
"""Changes are summed in this many-th parts, so that no fifth power is subnormal."""

_SMALL, _NARROW, _SAFE, _INFINITE = (
    int(np.float32(value).view(np.uint32)) for value in (SMALL, NARROW, SAFE_EXPONENT, np.inf)
)
"""As bits: those of non-negative floats order as the floats do."""


@fused_kernel
def moments(a: Row, b: Row, lanes: Array) -> tuple[int, int, int]:
    """Write sums of e^a (SCALE (b - a))^n, n = 0 ... 5, to `lanes` [MOMENTS, LANES].

    Element j of a row goes into lane j % LANES. The sums mean something where no |a| exceeds
    SMALL. Returns the largest |a| and |b - a|, as bits (at least infinity's where one is not
    finite), and how many elements differ.
    """
    lanes[:] = np.float32(0)
    s0, s1, s2, s3, s4, s5 = lanes[0], lanes[1], lanes[2], lanes[3], lanes[4], lanes[5]
    top_a = top_x = np.uint32(0)
    differing = np.int32(0)
    for begin in range(0, a.size, LANES):
        part_a, part_b = a[begin : begin + LANES], b[begin : begin + LANES]
        for j in range(part_a.size):
            y = widened(part_a[j])
            x = widened(part_b[j]) - y
            top_a = max(top_a, np.uint32(bits_of(y) & np.uint32(0x7FFFFFFF)))
            top_x = max(top_x, np.uint32(bits_of(x) & np.uint32(0x7FFFFFFF)))
            differing = np.int32(differing + np.int32(x != np.float32(0)))
            p = np.float32(1 / 120) + y * np.float32(1 / 720)
            p = np.float32(1 / 24) + y * p
            p = np.float32(1 / 6) + y * p
            p = np.float32(1 / 2) + y * p
            w = np.float32(1) + y * (np.float32(1) + y * p)
            x *= np.float32(SCALE)
            s0[j] += w
            w *= x
            s1[j] += w
            w *= x
            s2[j] += w
            w *= x
            s3[j] += w
            w *= x
            s4[j] += w
            w *= x
            s5[j] += w
    return int(top_a), int(top_x), int(differing)


@kernel
def series(lanes: Array) -> float:
    """Return KL from the sums of `moments`; negative where it is not known well enough.

    That is where the mean change is most of the mean square: their difference cancels.
    """
    t0, t1, t2 = folded(lanes[0]), folded(lanes[1]), folded(lanes[2])
    t3, t4, t5 = folded(lanes[3]), folded(lanes[4]), folded(lanes[5])
    m = t1 / t0
    k2 = t2 / t0 - m * m
    if k2 < 0.5 * (t2 / t0):
        return -1.0
    m2, m3, m4, m5 = t2 / t0, t3 / t0, t4 / t0, t5 / t0
    k3 = m3 - 3 * m2 * m + 2 * m**3
    k4 = m4 - 4 * m3 * m - 3 * m2 * m2 + 12 * m2 * m * m - 6 * m**4
    k5 = m5 - 5 * m4 * m - 10 * m3 * m2
    k5 += 20 * m3 * m * m + 30 * m2 * m2 * m - 60 * m2 * m**3 + 24 * m**5
    c = 1 / SCALE
    return c * c * (k2 / 2 + c * (k3 / 3 + c * (k4 / 8 + c * (k5 / 30))))


@kernel
def row_divergence(a: Row, b: Row, lanes: Array, scratch: Array) -> tuple[float, int]:
    """Return KL(softmax(b) || softmax(a)) >= 0 of one row [d], and how many elements differ.

    `lanes` [MOMENTS, LANES] and `scratch` [5, d] are overwritten. The count is negative where a
    weight or a difference is not finite, and the divergence then means nothing.
    """
    top_a, top_x, differing = moments(a, b, lanes)
    if top_a >= _INFINITE or top_x >= _INFINITE:
        return 0.0, -1
    if not differing:
        return 0.0, 0
    if top_a <= _SMALL and top_x <= _NARROW:
        found = series(lanes)
        if found >= 0:
            return found, differing
    y, z, w, v, x = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]
    extreme = top_a > _SAFE
    for j in range(a.size):
        y[j], z[j] = widened(a[j]), widened(b[j])
        x[j] = z[j] - y[j]
        extreme |= abs(z[j]) > np.float32(SAFE_EXPONENT)
    if extreme:
        return max(extreme_divergence(y, z), 0.0), differing
    exponentials(y, w)
    if top_x <= _NARROW:
        return max(narrow_divergence(w, x, v), 0.0), differing
    exponentials(z, v)
    return max(wide_divergence(w, v, x), 0.0), differing


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
