"""One tensor as several models hold it, read in blocks of whole rows.

A method (`cuvee.merge.methods`) sees a `Stack` and never a file: it asks for sums and order
statistics over the whole tensor, each a pass over the blocks, and answers with a `Rule` that
turns a block of the inputs into a block of the result. A block's size depends on the shape
alone, sums are taken block by block in order, and counts are integers: so a result is the
same for any number of threads and any amount of memory.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cuvee.merge.kernels import HIGH_BINS, LOW_BINS, Array, Bits, count_high, count_low
from cuvee.merge.threads import ONE_THREAD, Threads, scratch

Counts = NDArray[np.int64]
T = TypeVar("T")

BLOCK_ELEMENTS = 1 << 18
"""Elements of a block and model: few enough for a core's cache, enough to pay for its calls."""


@dataclasses.dataclass(frozen=True)
class Block:
    """Consecutive rows of one tensor in float32.

    Who reads it in a pass may overwrite it; who emits may not, since others look at it after.
    """

    models: Array
    """[models, rows, d], C-contiguous."""
    base: Array | None
    """[rows, d]; None where the method has no base."""
    begin: int
    """Index of the block's first element in the flattened tensor."""


@dataclasses.dataclass(frozen=True)
class Raw:
    """Consecutive rows of one tensor as they are stored, for kernels that widen them on the way."""

    parts: tuple[NDArray[np.uint8], ...]
    """[models], and the base's where there is one: bytes; not to be written to."""
    kinds: NDArray[np.int64]
    """Of the same length, dtypes as `kernels.KINDS`."""
    release: Callable[[], None]
    """To be called when the bytes are not needed any more."""


@dataclasses.dataclass(frozen=True)
class Stack:
    """One tensor of all models: [models] x [rows, d]; a 1-D tensor is one row."""

    name: str
    rows: int
    d: int
    models: int
    has_base: bool
    read: Callable[[int, int], Block]
    """(first row, row after the last) -> their block; may be called from any thread. The
    arrays stand until the same thread reads again."""
    threads: Threads
    read_raw: Callable[[int, int], Raw | None] = lambda _begin, _end: None
    """The models' rows as bytes; None where those do not say it all (an adapter is added to
    them, or values that are not finite are to be read as 0)."""

    @property
    def elements(self) -> int:
        """Elements of the tensor in one model."""
        return self.rows * self.d

    def spans(self) -> list[tuple[int, int]]:
        """Return the (first row, row after the last) of every block, in order."""
        step = max(1, BLOCK_ELEMENTS // max(1, self.d))
        if not self.elements:
            return []
        return [(row, min(row + step, self.rows)) for row in range(0, self.rows, step)]


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a method decided for one tensor."""

    emit: Callable[[Block], Array]
    """A block of the inputs -> the block [rows, d] of the result, float32; any thread."""
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Plain JSON values for the record: thresholds, coefficients."""
    tally: Callable[[], Mapping[str, Any]] | None = None
    """More facts, known when every block has been emitted once."""
    direct: Callable[[Raw, int, Bits], tuple[NDArray[np.float64], int]] | None = None
    """The same in one reading where all inputs and the result are bfloat16: (rows as stored,
    first row, result [rows, d] to be written) -> the block's sums, as `diagnostics.measures`
    has them, and how many values of the result are not finite."""


def shape_2d(shape: Sequence[int]) -> tuple[int, int]:
    """Return (rows, d) of a shape: rows run over the last dimension; a scalar is [1, 1]."""
    d = shape[-1] if shape else 1
    rows = 1
    for size in shape[:-1]:
        rows *= size
    return rows, d


def bfloat16_rows(raw: Raw, shape: tuple[int, ...]) -> tuple[Bits, Bits]:
    """Return the rows [rows, d] of two inputs in bfloat16, as bits."""
    one, two = (part.view(np.uint16).reshape(shape) for part in raw.parts)
    return one, two


def copied(block: Block) -> Block:
    """Return a copy to write to; it stands until the same thread copies again."""
    models = scratch("copied models", block.models.shape)
    np.copyto(models, block.models)
    if block.base is None:
        return Block(models, None, block.begin)
    base = scratch("copied base", block.base.shape)
    np.copyto(base, block.base)
    return Block(models, base, block.begin)


def over_blocks(stack: Stack, function: Callable[[Block], T]) -> list[T]:
    """Return `function(block)` of every block, in order; all threads take part."""
    spans = stack.spans()
    return stack.threads.map(len(spans), lambda number: function(stack.read(*spans[number])))


def sums(stack: Stack, function: Callable[[Block], NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the sum of `function(block)` (float64, one shape) over all blocks, in their order.

    Raises ValueError for an empty tensor: a sum of nothing has no shape.
    """
    parts = over_blocks(stack, function)
    if not parts:
        raise ValueError(f"{stack.name}: a sum over an empty tensor")
    total = parts[0].copy()
    for part in parts[1:]:
        total += part
    return total


def counts(
    stack: Stack, size: int | tuple[int, ...], add: Callable[[Block, Counts], None]
) -> Counts:
    """Return int64 counts of shape `size`, to which `add(block, counts)` added every block."""
    spans = stack.spans()

    def step(total: Counts, number: int) -> None:
        add(stack.read(*spans[number]), total)

    found = stack.threads.fold(len(spans), lambda: np.zeros(size, np.int64), step)
    total: Counts = np.sum(found, axis=0)
    return total


def order_statistics(
    stack: Stack, scores: Callable[[Block], Array], ranks: Sequence[Sequence[int]]
) -> list[list[float]]:
    """Return exact order statistics of scores over a whole tensor, in two passes.

    `scores(block)` -> float32 [s, ...], finite and >= 0; `ranks[i]`: the wanted ranks among
    the tensor's n scores of family i (0 is the smallest, n - 1 the largest).
    The bits of non-negative floats order as the floats do, so a histogram of the upper bits
    finds the bin of each rank and a histogram of the lower bits within that bin the value
    itself: exact, without interpolation, and only counts are kept. Raises ValueError for an
    empty tensor.
    """
    if not stack.elements:
        raise ValueError(f"{stack.name}: an order statistic of an empty tensor")

    def add_high(block: Block, bins: Counts) -> None:
        for family, values in zip(bins, scores(block), strict=True):
            count_high(values.reshape(-1), family)

    high = counts(stack, (len(ranks), HIGH_BINS), add_high)
    places = [locate(bins, wanted) for bins, wanted in zip(high, ranks, strict=True)]
    most = max(len(bins) for bins, _ in places)

    def add_low(block: Block, bins: Counts) -> None:
        for family, values, (wanted, _) in zip(bins, scores(block), places, strict=True):
            count_low(values.reshape(-1), wanted, family)

    low = counts(stack, (len(ranks), most, LOW_BINS), add_low)
    return [
        values_at(wanted, rests, family)
        for (wanted, rests), family in zip(places, low, strict=True)
    ]


def locate(
    high: NDArray[np.int64], ranks: Sequence[int] | NDArray[np.int64]
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Return the bin of each rank in a histogram [bins], and the rank within that bin."""
    ends = np.cumsum(high)
    wanted = np.asarray(ranks, np.int64)
    bins = np.searchsorted(ends, wanted, side="right")
    return bins.astype(np.uint32), wanted - (ends[bins] - high[bins])


def values_at(
    high: NDArray[np.uint32], rests: NDArray[np.int64], low: NDArray[np.int64]
) -> list[float]:
    """Return the floats whose upper bits are `high[r]` at rank `rests[r]` of `low[r]`."""
    bits = [
        (int(upper) << 16) | int(np.searchsorted(np.cumsum(bins), rest, side="right"))
        for upper, rest, bins in zip(high, rests, low, strict=False)
    ]
    return [float(value) for value in np.array(bits, np.uint32).view(np.float32)]


def stack_of(
    arrays: Sequence[NDArray[Any]],
    *,
    base: NDArray[Any] | None = None,
    name: str = "tensor",
    threads: Threads = ONE_THREAD,
) -> Stack:
    """Return a stack of arrays in memory: one of each model, of one shape, and the base's.

    Raises ValueError where shapes differ or there is no array.
    """
    shapes = {array.shape for array in arrays} | ({base.shape} if base is not None else set())
    if not arrays or len(shapes) != 1:
        raise ValueError(f"{name}: one shape is needed, there are {sorted(shapes)}")
    rows, d = shape_2d(arrays[0].shape)

    def read(begin: int, end: int) -> Block:
        models = [array.reshape(rows, d)[begin:end] for array in arrays]
        inner = None if base is None else base.reshape(rows, d)[begin:end].astype(np.float32)
        return Block(np.stack(models).astype(np.float32), inner, begin * d)

    return Stack(name, rows, d, len(arrays), base is not None, read, threads)


def apply(stack: Stack, rule: Rule) -> Array:
    """Return the whole result of a rule: float32 [rows, d]."""
    parts = over_blocks(stack, lambda block: rule.emit(block).copy())
    return np.concatenate(parts) if parts else np.zeros((stack.rows, stack.d), np.float32)
