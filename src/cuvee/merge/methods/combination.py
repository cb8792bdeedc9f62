"""Weighted sums of the inputs: the emit of every rule that is linear in them.

Products and sums are taken in float64 and rounded once to float32. So a number that all
inputs share comes out unchanged, bit for bit, where the weights sum to one (in float32,
0.3 x + 0.7 x is not always x); two inputs may change places without any effect, and more
with none but where a sum lies within 1e-15 of the middle between two float32 numbers.
An input of weight 0 is not looked at.

In: weights in float64 and blocks of a stack; out: blocks [rows, d]. Nothing here decides on
weights, except `shares` and `rest_for_base`, which complete them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cuvee.errors import MergeError
from cuvee.merge.blocks import Block, Raw, Rule, Stack, bfloat16_rows
from cuvee.merge.diagnostics.measures import Counted, Sums, sums_of_pair, sums_on_base
from cuvee.merge.kernels import LANES, Array, Bits, folded, kernel, rounded_bits, widened
from cuvee.merge.threads import scratch

Weights = NDArray[np.float64]
Emit = Callable[[Block], Array]

CHUNK = 2048
"""Elements that `add_up` takes at a time: their sums stay in a core's first cache."""
NOISE = 1e-12
"""A base's weight below this is the rounding of 1 - (a sum that is 1)."""


@kernel
def add_up(
    first: Array, others: Array, used: NDArray[np.int64], weights: Weights, out: Array
) -> None:
    """Write `weights[0] * first + sum_u weights[1 + u] * others[used[u]]` to out [n].

    first: [n]; others: [k, n]; used: [u], u >= 1.
    """
    sums = np.empty(CHUNK, np.float64)
    last = used.size - 1
    for begin in range(0, first.size, CHUNK):
        x = first[begin : begin + CHUNK]
        total = sums[: x.size]
        for i in range(x.size):
            total[i] = weights[0] * np.float64(x[i])
        for u in range(last):
            y = others[used[u], begin : begin + CHUNK]
            for i in range(x.size):
                total[i] += weights[1 + u] * np.float64(y[i])
        y = others[used[last], begin : begin + CHUNK]
        for i in range(x.size):
            out[begin + i] = np.float32(total[i] + weights[1 + last] * np.float64(y[i]))


@kernel
def add_up_two(x: Array, y: Array, a: float, b: float, out: Array) -> None:
    """Write `a x + b y` to out [n]: what `add_up` does for two inputs, at less cost."""
    for i in range(x.size):
        out[i] = np.float32(a * np.float64(x[i]) + b * np.float64(y[i]))


@kernel
def combine_rows(
    inputs: tuple[Bits, Bits],
    factors: Weights,
    out: Bits,
    found: tuple[NDArray[np.float64], NDArray[np.int64]],
) -> int:
    """Write two inputs [rows, d] in bfloat16, added up as `add_up_two` does, rounded, to `out`.

    `factors`: [2], of the inputs. To `found` is added what `measures.Counted` holds of x, y and the
    result. Returns how many values of the result are not finite.
    """
    a, b = factors[0], factors[1]
    lanes = np.empty((5, LANES), np.float32)
    sum0, sum1, sum2, sum3, sum4 = lanes[0], lanes[1], lanes[2], lanes[3], lanes[4]
    squares, counts = found
    bad = 0
    for i in range(out.shape[0]):
        lanes[:] = np.float32(0)
        differing = moved = not_first = not_second = lost = np.int32(0)
        for begin in range(0, out.shape[1], LANES):
            one = inputs[0][i, begin : begin + LANES]
            two = inputs[1][i, begin : begin + LANES]
            part = out[i, begin : begin + LANES]
            for j in range(part.size):
                x, y = widened(one[j]), widened(two[j])
                left, right = a * np.float64(x), b * np.float64(y)
                bits = rounded_bits(np.float32(left + right))
                part[j] = bits
                z = widened(bits)
                differing = np.int32(differing + np.int32(x != y))
                moved = np.int32(moved + np.int32(z != y))
                not_first = np.int32(not_first + np.int32(bits != one[j]))
                not_second = np.int32(not_second + np.int32(bits != two[j]))
                lost = np.int32(lost + np.int32((bits & np.uint16(0x7F80)) == np.uint16(0x7F80)))
                sum0[j] += x * x
                sum1[j] += y * y
                sum2[j] += z * z
                sum3[j] += (x - y) * (x - y)
                sum4[j] += (z - y) * (z - y)
        for n in range(5):
            squares[n] += folded(lanes[n])
        counts[0] += differing
        counts[1] += moved
        counts[2] += not_first
        counts[3] += not_second
        bad += int(lost)
    return bad


def combined(
    stack: Stack,
    weights: Sequence[float] | Weights,
    base_weight: float = 0.0,
    *,
    facts: Mapping[str, Any],
) -> Rule:
    """Return the rule whose emit is `combination`: direct for two models, or one on a base."""
    emit = combination(weights, base_weight)
    if (stack.models, stack.has_base) not in ((2, False), (1, True)):
        return Rule(emit, facts)
    factors = np.array([*weights, base_weight][:2], np.float64)
    if not factors.all():
        return Rule(emit, facts)
    sums_of = sums_on_base if stack.has_base else sums_of_pair

    def direct(raw: Raw, _: int, out: Bits) -> tuple[Sums, int]:
        squares, counts = np.zeros(5, np.float64), np.zeros(4, np.int64)
        inputs = bfloat16_rows(raw, out.shape)
        lost = combine_rows(inputs, factors, out, (squares, counts))
        return sums_of(Counted(out.size, squares, counts)), int(lost)

    return Rule(emit, facts, direct=direct)


def combination(weights: Sequence[float] | Weights, base_weight: float = 0.0) -> Emit:
    """Return the emit of `base_weight * base + sum_i weights[i] * models[i]`.

    weights: one a model. The base may be missing if its weight is 0.
    """
    every = np.asarray(weights, np.float64)
    used = np.flatnonzero(every)
    first = 0
    if base_weight == 0 and used.size:
        first, used = int(used[0]), used[1:]
    start = base_weight or float(every[first])
    factors = np.array([start, *every[used]])

    def emit(block: Block) -> Array:
        source = required_base(block) if base_weight else block.models[first]
        if not used.size and start == 1:
            return source
        result = scratch("combination", source.shape)
        flat, out = block.models.reshape(len(block.models), -1), result.reshape(-1)
        if used.size == 1:
            add_up_two(source.reshape(-1), flat[used[0]], factors[0], factors[1], out)
        elif used.size:
            add_up(source.reshape(-1), flat, used, factors, out)
        else:
            np.multiply(source, np.float32(start), out=result)
        return result

    return emit


def spread_combination(weights: Weights, base_weight: Weights) -> Emit:
    """Return the emit of `combination` with weights of their own for each row or column.

    weights: [models, rows, 1], or [models, 1, d]; base_weight: [rows, 1] or [1, d], zeros
    where there is no base.
    """
    by_row, with_base = weights.shape[2] == 1, bool(base_weight.any())

    def emit(block: Block) -> Array:
        _, rows, d = block.models.shape
        begin = block.begin // d
        at = slice(begin, begin + rows) if by_row else slice(None)
        terms = [(block.models[i], weights[i, at]) for i in range(len(weights))]
        if with_base:
            terms.append((required_base(block), base_weight[at]))
        total = np.full((rows, d), -0.0)  # -0.0 + x is x for all x, 0.0 too
        for values, weight in terms:
            np.add(total, weight * values, out=total, where=weight != 0)
        return total.astype(np.float32)

    return emit


def rest_for_base(weights: Weights) -> Weights:
    """Return 1 - the sum of the weights [models, ...] over models, exactly 0 where it is noise.

    It makes `base + sum_i w_i (x_i - base)` a combination of the x_i and the base.
    """
    rest = 1 - weights.sum(axis=0)
    return np.where(np.abs(rest) < NOISE, 0.0, rest)


def shares(weight: Sequence[float], *, normalize: bool, tensor: str) -> Weights:
    """Return the weights [models] in float64, divided by their sum if `normalize`.

    Raises MergeError where they are to be normalised and sum to zero.
    """
    weights = np.asarray(weight, np.float64)
    if not normalize:
        return weights
    total = weights.sum()
    if abs(total) <= NOISE * np.abs(weights).sum():
        raise MergeError(
            f"{tensor}: the weights {list(weight)} sum to zero and cannot be normalised; "
            "give weights with another sum, or switch normalisation off"
        )
    normalized: Weights = weights / total
    return normalized


def required_base(block: Block) -> Array:
    """Return the base's rows [rows, d]; raises MergeError where the stack has no base."""
    if block.base is None:
        raise no_base()
    return block.base


def no_base() -> MergeError:
    """Return the error of a method that needs a base and has none."""
    return MergeError("this method needs a base model: give `base_model`")
