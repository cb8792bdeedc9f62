"""Inner products of the inputs: all that spherical methods need to know of a tensor.

For inputs x_1 .. x_k (or, with a base, their task vectors x_i - base, taken in float32) the
Gram matrix G[i, j] = <x_i, x_j> gives every norm, angle and length within their span: one
pass over the tensor, float64 sums of exact products. Arrays are [..., k, k]: one matrix for
the whole tensor, for each row, or for each column (along all leading dimensions).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cuvee.merge.blocks import Block, Stack, over_blocks, sums
from cuvee.merge.kernels import KINDS, SUM_LANES, Array, Row, kernel, lane_dot, widened
from cuvee.merge.methods.combination import no_base

Gram = NDArray[np.float64]


CHUNK = 2048
"""Elements of each input that a kernel takes at a time: they stay in a core's first cache."""


@kernel
def add_products(models: Array, grams: Gram) -> None:
    """Add <models[i, r], models[j, r]> to grams[r, i, j] for j >= i.

    models: float32 [k, rows, n]; grams: float64 [rows, k, k].
    """
    k, rows, n = models.shape
    for r in range(rows):
        for begin in range(0, n, CHUNK):
            for i in range(k):
                x = models[i, r, begin : begin + CHUNK]
                for j in range(i, k):
                    grams[r, i, j] += lane_dot(x, models[j, r, begin : begin + CHUNK])


@kernel
def add_products_of_two(xs: Row, ys: Row, grams: Gram) -> None:
    """Do the same for xs and ys [rows, n], bfloat16 bits or float32: one reading."""
    lanes = np.empty((3, SUM_LANES), np.float64)
    sum0, sum1, sum2 = lanes[0], lanes[1], lanes[2]
    for r in range(xs.shape[0]):
        lanes[:] = 0.0
        for begin in range(0, xs.shape[1], SUM_LANES):
            first, second = xs[r, begin : begin + SUM_LANES], ys[r, begin : begin + SUM_LANES]
            for j in range(first.size):
                x, y = np.float64(widened(first[j])), np.float64(widened(second[j]))
                sum0[j] += x * x
                sum1[j] += x * y
                sum2[j] += y * y
        for j in range(SUM_LANES):
            grams[r, 0, 0] += sum0[j]
            grams[r, 0, 1] += sum1[j]
            grams[r, 1, 1] += sum2[j]


def vectors(block: Block) -> Array:
    """Return the models [k, rows, d], or their task vectors if there is a base (in place)."""
    if block.base is not None:
        np.subtract(block.models, block.base, out=block.models)
    return block.models


def products(inputs: Sequence[Row] | Array, shape: tuple[int, int]) -> Gram:
    """Return the Gram matrices [rows, k, k] of k inputs, each seen as `shape` = (rows, n)."""
    k = len(inputs)
    grams = np.zeros((shape[0], k, k))
    if k == 2:
        add_products_of_two(inputs[0].reshape(shape), inputs[1].reshape(shape), grams)
    else:
        add_products(np.asarray(inputs, np.float32).reshape(k, *shape), grams)
    mirrored: Gram = grams + np.triu(grams, 1).swapaxes(1, 2)
    return mirrored


def tensor_gram(stack: Stack) -> Gram:
    """Return the Gram matrix [k, k] of a whole tensor; zeros for an empty one."""
    if not stack.elements:
        return np.zeros((stack.models, stack.models))
    if stack.models == 2 and not stack.has_base:
        return pair_gram(stack, (0, 1))
    return sums(stack, lambda block: products(vectors(block), (1, block.models[0].size))[0])


def base_gram(stack: Stack) -> Gram:
    """Return the Gram matrix [2, 2] of the base and the first model, as they are.

    Raises MergeError where there is no base.
    """
    if not stack.has_base:
        raise no_base()
    return pair_gram(stack, (stack.models, 0))


def pair_gram(stack: Stack, which: tuple[int, int]) -> Gram:
    """Return the Gram matrix [2, 2] of two inputs: the models, and after them the base."""
    if not stack.elements:
        return np.zeros((2, 2))

    def of_rows(begin: int, end: int) -> Gram:
        raw = stack.read_raw(begin, end)
        if raw is not None and {int(raw.kinds[i]) for i in which} == {KINDS["BF16"]}:
            stored = [raw.parts[i].view(np.uint16) for i in which]
            found: Gram = products(stored, (1, stored[0].size))[0]
            if not np.isfinite(found).all():
                stack.read(begin, end)  # raises, and says where
            raw.release()
            return found
        block = stack.read(begin, end)
        every = [*block.models, *([] if block.base is None else [block.base])]
        found = products([every[i] for i in which], (1, block.models[0].size))[0]
        return found

    spans = stack.spans()
    parts = stack.threads.map(len(spans), lambda number: of_rows(*spans[number]))
    total: Gram = np.sum(parts, axis=0)
    return total


def row_grams(stack: Stack) -> Gram:
    """Return the Gram matrix of each row: [rows, k, k]."""
    if not stack.elements:
        return np.zeros((stack.rows, stack.models, stack.models))
    parts = over_blocks(
        stack, lambda block: products(vectors(block), (block.models.shape[1], stack.d))
    )
    return np.concatenate(parts)


def column_grams(stack: Stack) -> Gram:
    """Return the Gram matrix of each column: [d, k, k]."""

    def of_block(block: Block) -> Gram:
        models = vectors(block).astype(np.float64)
        found: Gram = np.einsum("ird,jrd->dij", models, models)
        return found

    if not stack.elements:
        return np.zeros((stack.d, stack.models, stack.models))
    return sums(stack, of_block)


def norms(gram: Gram) -> NDArray[np.float64]:
    """Return the norms [..., k] of the inputs."""
    return np.sqrt(np.diagonal(gram, axis1=-2, axis2=-1))


def cosines(gram: Gram) -> Gram:
    """Return the cosines [..., k, k] between the inputs, in [-1, 1]; 0 with a zero vector.

    Two equal vectors have exactly 1, since sqrt(a * a) is a.
    """
    squares = np.diagonal(gram, axis1=-2, axis2=-1)
    scales = np.sqrt(squares[..., :, None] * squares[..., None, :])
    return np.clip(np.divide(gram, scales, out=np.zeros_like(gram), where=scales > 0), -1, 1)
