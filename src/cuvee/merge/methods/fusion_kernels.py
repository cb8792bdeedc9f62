"""The inner loops of Arcee Fusion: divergence of rows, scores, the choice.

Blocks are rows of two tensors, [rows, d], C-contiguous: as bfloat16 bits (uint16) or float32,
and read once a pass. The formulas and their reasons are in `cuvee.merge.methods.fusion`; here
is only how they are computed in as few passes as the cache allows.
"""

import numpy as np
from numpy.typing import NDArray

from cuvee.merge.kernels import LANES, Array, Bits, Row, Words, bits_of, folded, kernel, widened
from cuvee.merge.methods.divergence import row_divergence


@kernel
def diverge_rows(
    pair: tuple[Row, Row],
    begin: int,
    divergence: Array,
    sample: Words,
    every: int,
    work: tuple[Array, Array],
) -> int:
    """Write KL(softmax(other) || softmax(anchor)) of rows of (anchor, other); sample scores.

    `begin`: index of the first row in the tensor; `divergence`: [tensor's rows]. `sample`:
    [tensor's rows / every, S], to whose row i / every go S scores (as bits) of the tensor's
    row i, one from each of S equal parts, for every `every`-th i. `work`: what
    `row_divergence` overwrites. Returns how many elements differ; negative where a weight or
    a difference is not finite.
    """
    anchor, other = pair
    lanes, scratch = work
    d, size = anchor.shape[1], sample.shape[1]
    total = 0
    for i in range(anchor.shape[0]):
        a, b, row = anchor[i], other[i], begin + i
        found, differing = row_divergence(a, b, lanes, scratch)
        if differing < 0:
            return -1
        total += differing
        divergence[row] = found
        if row % every == 0:
            for k in range(size):
                first, last = k * d // size, (k + 1) * d // size
                j = first + (row * 40503) % (last - first)
                score = abs((widened(b[j]) - widened(a[j])) * divergence[row])
                sample[row // every, k] = bits_of(score)
    return total


@kernel
def scan_rows(
    pair: tuple[Row, Row],
    divergence: Array,
    windows: Words,
    counts: NDArray[np.int64],
    near: Words,
) -> int:
    """Count the scores of rows of (anchor, other) below the ends of windows; keep those inside.

    `divergence`: [rows]; `windows`: [2, 3], the first score of each window and the first
    beyond it, as bits. To `counts` [2, 3] is added how many scores are below each; to `near`
    are written those inside a window of more than one value (as bits). Returns how many were
    written: -1 where there is no room.
    """
    anchor, other = pair
    d = anchor.shape[1]
    # One flag a score, then eight flags at a time: few scores lie in a window.
    eights = np.zeros((d + 7) // 8, np.uint64)
    flags = eights.view(np.uint8)
    hits = 0
    for i in range(anchor.shape[0]):
        if hits + d + 1 > near.size:
            return -1
        a, b = anchor[i], other[i]
        flag_row(a, b, divergence[i], windows, counts, flags)
        for g in range(d // 8):
            if eights[g]:
                hits = keep_flagged(a, b, divergence[i], flags, near, (8 * g, 8 * g + 8, hits))
        hits = keep_flagged(a, b, divergence[i], flags, near, (d - d % 8, d, hits))
    return hits


@kernel
def flag_row(
    a: Row,
    b: Row,
    factor: np.float32,
    windows: Words,
    counts: NDArray[np.int64],
    flags: NDArray[np.uint8],
) -> None:
    """Count the scores [d] of a row as `scan_rows` does, and flag those that it keeps."""
    low0, low1, low2 = np.int32(windows[0, 0]), np.int32(windows[0, 1]), np.int32(windows[0, 2])
    end0, end1, end2 = np.int32(windows[1, 0]), np.int32(windows[1, 1]), np.int32(windows[1, 2])
    kept0, kept1, kept2 = (
        np.int32(end0 > low0 + 1),
        np.int32(end1 > low1 + 1),
        np.int32(end2 > low2 + 1),
    )
    below0 = below1 = below2 = upto0 = upto1 = upto2 = np.int32(0)
    for j in range(a.size):
        score = np.int32(bits_of(abs((widened(b[j]) - widened(a[j])) * factor)))
        x0, y0 = np.int32(score < low0), np.int32(score < end0)
        x1, y1 = np.int32(score < low1), np.int32(score < end1)
        x2, y2 = np.int32(score < low2), np.int32(score < end2)
        below0, upto0 = np.int32(below0 + x0), np.int32(upto0 + y0)
        below1, upto1 = np.int32(below1 + x1), np.int32(upto1 + y1)
        below2, upto2 = np.int32(below2 + x2), np.int32(upto2 + y2)
        flags[j] = np.uint8(((x0 ^ y0) & kept0) | ((x1 ^ y1) & kept1) | ((x2 ^ y2) & kept2))
    counts[0, 0] += below0
    counts[0, 1] += below1
    counts[0, 2] += below2
    counts[1, 0] += upto0
    counts[1, 1] += upto1
    counts[1, 2] += upto2


@kernel
def keep_flagged(
    a: Row,
    b: Row,
    factor: np.float32,
    flags: NDArray[np.uint8],
    near: Words,
    place: tuple[int, int, int],
) -> int:
    """Write flagged scores of elements `place[0]` to `place[1]` (not included) to `near`.

    They are written from near[place[2]] on; returns where the next one belongs.
    """
    hits = place[2]
    for j in range(place[0], place[1]):  # without a branch: hits come at random
        near[hits] = bits_of(abs((widened(b[j]) - widened(a[j])) * factor))
        hits += flags[j]
    return hits


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
            take = abs((b[j] - a[j]) * factor) >= limit
            adopted = np.int32(adopted + np.int32(take))
            c[j] = b[j] if take else a[j]
        total += int(adopted)
    return total


@kernel
def adopt_rows(
    models: tuple[Bits, Bits],
    divergence: Array,
    threshold: float,
    anchor: int,
    out: Bits,
    found: tuple[NDArray[np.float64], NDArray[np.int64]],
) -> None:
    """Write what `choose` would of two models' rows in bfloat16, and measure on the way.

    `models`: two [rows, d], of which the one of index `anchor` is the anchor; `out`: [rows, d].
    To found[0] and found[1] is added what `measures.Counted` holds of the two models x, y and
    the result z (but the squares of z - y), and as the last count how many were adopted.
    """
    limit = np.float32(threshold)
    lanes = np.empty((4, LANES), np.float32)
    sum0, sum1, sum2, sum3 = lanes[0], lanes[1], lanes[2], lanes[3]
    squares, counts = found
    for i in range(out.shape[0]):
        factor = divergence[i]
        lanes[:] = np.float32(0)
        adopted = differing = not_first = not_second = np.int32(0)
        for begin in range(0, out.shape[1], LANES):
            first = models[0][i, begin : begin + LANES]
            second = models[1][i, begin : begin + LANES]
            part = out[i, begin : begin + LANES]
            for j in range(part.size):
                x, y = widened(first[j]), widened(second[j])
                apart = y - x
                take = abs(apart * factor) >= limit
                adopted = np.int32(adopted + np.int32(take))
                differing = np.int32(differing + np.int32(apart != np.float32(0)))
                from_second = take == (anchor == 0)
                bits = second[j] if from_second else first[j]
                part[j] = bits
                not_first = np.int32(not_first + np.int32(bits != first[j]))
                not_second = np.int32(not_second + np.int32(bits != second[j]))
                z = y if from_second else x
                sum0[j] += x * x
                sum1[j] += y * y
                sum2[j] += z * z
                sum3[j] += apart * apart
        for n in range(4):
            squares[n] += folded(lanes[n])
        counts[0] += differing
        counts[2] += not_first
        counts[3] += not_second
        counts[4] += adopted
