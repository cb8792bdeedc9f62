"""What differs between two checkpoints: their tensors, and each weight of those both have.

Two checkpoint folders in, a `Difference` out, or its JSON values (`to_json`), from which
`heatmap` draws a page and `diff_table` tables. Weights are compared as float32, in blocks, so
that memory does not grow with the models. Changes nothing.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from cuvee.merge.blocks import Block, Stack, over_blocks, shape_2d
from cuvee.merge.diagnostics.measures import CHUNK, Sums, cosine, relative, rounded
from cuvee.merge.diagnostics.record import place
from cuvee.merge.inputs.headers import Checkpoint, TensorHeader, read_headers
from cuvee.merge.inputs.reader import Source, open_sources, open_tensors, read_rows, release_all
from cuvee.merge.kernels import Array, fast_kernel, kernel
from cuvee.merge.threads import Threads, open_threads, scratch
from cuvee.progress import bar

FLOATING = ("F64", "F32", "F16", "BF16")
"""Dtypes that are compared."""


@dataclasses.dataclass(frozen=True)
class Amounts:
    """How much differs, in one tensor or in several; amounts add up."""

    elements: int = 0
    squares_a: float = 0.0
    squares_b: float = 0.0
    squares_apart: float = 0.0
    """Sum of (b - a)^2."""
    differing: int = 0
    """Elements that are not equal."""
    largest: float = 0.0
    """max |b - a|."""

    @property
    def norm(self) -> float | None:
        """Return the Euclidean norm of A's weights."""
        return rounded(math.sqrt(self.squares_a))

    @property
    def difference_norm(self) -> float | None:
        """Return the Euclidean norm of B minus A."""
        return rounded(math.sqrt(self.squares_apart))

    @property
    def relative(self) -> float | None:
        """Return the norm of the difference relative to the larger norm; None if both are 0."""
        return relative(self.squares_apart, max(self.squares_a, self.squares_b))

    @property
    def share_differing(self) -> float | None:
        """Return the share of elements that are not equal, in [0, 1]; None of no elements."""
        return rounded(self.differing / self.elements) if self.elements else None

    @property
    def cosine(self) -> float | None:
        """Return the cosine between A's and B's weights; None where one of them is 0."""
        return cosine(self.squares_a, self.squares_b, self.squares_apart)


@dataclasses.dataclass(frozen=True)
class TensorDifference:
    """One tensor that both checkpoints have, in the same shape."""

    name: str
    shape: tuple[int, ...]
    dtypes: tuple[str, str]
    amounts: Amounts
    not_finite: int
    """NaN and infinite values in both; they are compared as 0."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """What differs between two checkpoints A and B."""

    a: str
    b: str
    tensors: tuple[TensorDifference, ...]
    """In A's order."""
    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]
    not_compared: tuple[tuple[str, str], ...]
    """Name and reason of tensors that both have: other shapes, or a dtype that is no float."""

    @property
    def total(self) -> Amounts:
        """Return the amounts over all tensors that were compared."""
        return added(tensor.amounts for tensor in self.tensors)

    @property
    def identical(self) -> bool:
        """Return whether both have the same tensors and every weight is equal and finite."""
        listed = self.only_in_a or self.only_in_b or self.not_compared
        broken = any(tensor.not_finite for tensor in self.tensors)
        return not (listed or broken or self.total.differing)


def diff_checkpoints(a: Path, b: Path, *, threads: int) -> Difference:
    """Return what differs between two checkpoint folders; `threads` >= 1 share the reading.

    Tensors that only one has, and those of different shapes, are listed in the result. Raises
    MergeError for folders and files that cannot be read.
    """
    one, other = read_headers(a), read_headers(b)
    common, refused = _common(one, other)
    found = []
    sources = open_sources([(one, None), (other, None)])
    with (
        open_threads(threads) as pool,
        bar("diff", total=len(common), unit="tensors") as tick,
    ):
        for name in common:
            found.append(_tensor(sources, name, pool))
            tick(1)
    return Difference(
        a=str(a),
        b=str(b),
        tensors=tuple(found),
        only_in_a=tuple(name for name in one.tensors if name not in other.tensors),
        only_in_b=tuple(name for name in other.tensors if name not in one.tensors),
        not_compared=tuple(refused),
    )


def compare(stack: Stack) -> Amounts:
    """Return how much the two models of a stack differ."""

    def block_sums(block: Block) -> Sums:
        sums = np.zeros(5, np.float64)
        flat = block.models.reshape(2, -1)
        add_difference(flat[0], flat[1], sums)
        return sums

    parts = over_blocks(stack, block_sums)
    if not parts:
        return Amounts()
    total = np.sum(parts, axis=0)
    return Amounts(
        elements=stack.elements,
        squares_a=float(total[0]),
        squares_b=float(total[1]),
        squares_apart=float(total[2]),
        differing=int(total[3]),
        largest=float(max(part[4] for part in parts)),
    )


def added(amounts: Iterable[Amounts]) -> Amounts:
    """Return the amounts of several tensors taken together."""

    def both(x: Amounts, y: Amounts) -> Amounts:
        return Amounts(
            x.elements + y.elements,
            x.squares_a + y.squares_a,
            x.squares_b + y.squares_b,
            x.squares_apart + y.squares_apart,
            x.differing + y.differing,
            max(x.largest, y.largest),
        )

    return reduce(both, amounts, Amounts())


def to_json(difference: Difference) -> dict[str, Any]:
    """Return a difference as JSON values; `heatmap.write_html` draws them."""
    return {
        "kind": "difference",
        "a": difference.a,
        "b": difference.b,
        "identical": difference.identical,
        "only_in_a": list(difference.only_in_a),
        "only_in_b": list(difference.only_in_b),
        "not_compared": [
            {"name": name, "reason": reason} for name, reason in difference.not_compared
        ],
        "totals": {"tensors": len(difference.tensors), **_amounts_json(difference.total)},
        "tensors": [
            {
                "name": tensor.name,
                **place(tensor.name),
                "shape": list(tensor.shape),
                "dtypes": list(tensor.dtypes),
                "not_finite": tensor.not_finite,
                **_amounts_json(tensor.amounts),
            }
            for tensor in difference.tensors
        ],
    }


def _common(a: Checkpoint, b: Checkpoint) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the tensors that can be compared, and why others that both have cannot."""
    common, refused = [], []
    for name, header in a.tensors.items():
        other = b.tensors.get(name)
        if other is None:
            continue
        reason = _reason(header, other)
        if reason:
            refused.append((name, reason))
        else:
            common.append(name)
    return common, refused


def _reason(a: TensorHeader, b: TensorHeader) -> str | None:
    if a.shape != b.shape:
        return f"shape {list(a.shape)} in A, {list(b.shape)} in B"
    if a.dtype not in FLOATING or b.dtype not in FLOATING:
        dtypes = a.dtype if a.dtype == b.dtype else f"{a.dtype} and {b.dtype}"
        return f"dtype {dtypes}; compared are {', '.join(FLOATING)}"
    return None


def _tensor(sources: Sequence[Source], name: str, threads: Threads) -> TensorDifference:
    header, other = (source.header(name) for source in sources)
    rows, d = shape_2d(header.shape)
    both = open_tensors(sources, name, d=d, allow_nonfinite=True)
    not_finite: list[int] = []

    def read(begin: int, end: int) -> Block:
        models = scratch("models", (2, end - begin, d))
        not_finite.extend(read_rows(both, begin, end, models))
        return Block(models, None, begin * d)

    amounts = compare(Stack(name, rows, d, 2, has_base=False, read=read, threads=threads))
    release_all(both)
    dtypes = header.dtype, other.dtype
    return TensorDifference(name, header.shape, dtypes, amounts, sum(not_finite))


def _amounts_json(amounts: Amounts) -> dict[str, Any]:
    return {
        "elements": amounts.elements,
        "norm": amounts.norm,
        "difference_norm": amounts.difference_norm,
        "relative_difference": amounts.relative,
        "share_differing": amounts.share_differing,
        "largest_difference": rounded(amounts.largest),
        "cosine": amounts.cosine,
    }


@kernel
def largest_magnitude(values: Array) -> float:
    """Return max |value| of [n], compared as integers: float maxima are not vectorised."""
    words = values.view(np.int32)
    largest = np.int32(0)
    for j in range(words.size):
        largest = max(largest, words[j] & np.int32(0x7FFFFFFF))
    return float(np.array([largest], np.int32).view(np.float32)[0])


@fast_kernel
def add_difference(a: Array, b: Array, out: Sums) -> None:
    """Add sums of a^2, b^2, (b - a)^2, differing elements of [n] to `out`; [4] is max |b - a|."""
    differences = np.empty(CHUNK, np.float32)
    for begin in range(0, a.size, CHUNK):
        end = min(begin + CHUNK, a.size)
        x, y = a[begin:end], b[begin:end]
        squares_x = squares_y = apart = differing = np.float32(0)
        for j in range(x.size):
            difference = y[j] - x[j]
            differences[j] = difference
            squares_x += x[j] * x[j]
            squares_y += y[j] * y[j]
            apart += difference * difference
            differing += np.float32(1) if x[j] != y[j] else np.float32(0)
        out[0] += squares_x
        out[1] += squares_y
        out[2] += apart
        out[3] += differing
        out[4] = max(out[4], largest_magnitude(differences[: end - begin]))
