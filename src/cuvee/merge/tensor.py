"""One tensor merged: its rows of all models in, its bytes in a file and its row of the record out.

A method decides on a rule, for which it may read the tensor several times; then every thread
reads a block, applies the rule, rounds, writes and measures. Not here: which tensors there are
and where they go (`cuvee.merge.stream`).
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import xxhash

from cuvee.errors import MergeError
from cuvee.merge.blocks import Block, Raw, Rule, Stack, shape_2d
from cuvee.merge.diagnostics.measures import Sums, measure, sums_length
from cuvee.merge.diagnostics.record import TensorRow
from cuvee.merge.inputs.reader import (
    Tensors,
    hashes,
    raw_rows,
    read_rows,
    release_all,
    release_rows,
)
from cuvee.merge.kernels import KINDS
from cuvee.merge.shards import DTYPES, rounded, scratch_bits, write_at
from cuvee.merge.threads import Threads, scratch


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor to be merged: as the models hold it, and where it goes."""

    name: str
    shape: tuple[int, ...]
    has_base: bool
    inputs: Tensors
    """Of the models, and then of the base, where there is one."""
    reference: Tensors
    """Of what changes are measured from, where that is not the base: one or none."""
    dtype: str
    """Of the result, a key of `shards.DTYPES`."""
    place: tuple[int, int]
    """Descriptor of the file, first byte in it."""

    @property
    def models(self) -> int:
        """How many models there are."""
        return len(self.inputs.headers) - self.has_base


@dataclasses.dataclass(frozen=True)
class Written:
    """What is known of a block once it is written."""

    sums: Sums
    read_as_0: list[int]
    """Of each input: how many values were not finite."""
    hashes: list[int]
    """Of each input's bytes."""


def merge_tensor(
    tensor: Tensor, rule_of: Callable[[Stack], Rule], threads: Threads
) -> tuple[TensorRow, list[int]]:
    """Merge one tensor into its file; return its row and the hash of each input's bytes.

    Raises MergeError for values that are not finite, before or after; OSError where writing
    fails.
    """
    stack = _stack(tensor, threads)
    rule = rule_of(stack)
    write = _write_direct if rule.direct and _may_go_direct(tensor) else _write
    spans = stack.spans()
    written = threads.map(len(spans), lambda number: write(tensor, rule, spans[number]))
    release_all(tensor.inputs)
    release_all(tensor.reference)
    sums = np.zeros(sums_length(tensor.models), np.float64)
    for block in written:
        sums += block.sums
    facts = dict(rule.facts) | (dict(rule.tally()) if rule.tally else {})
    count = len(tensor.inputs.headers)
    cleared = [sum(block.read_as_0[i] for block in written) for i in range(count)]
    if any(cleared):
        facts["read_as_0"] = cleared
    digests = [_joined([block.hashes[i] for block in written]) for i in range(count)]
    return TensorRow(tensor.name, tensor.shape, facts, tuple(sums.tolist())), digests


def _stack(tensor: Tensor, threads: Threads) -> Stack:
    rows, d = shape_2d(tensor.shape)
    return Stack(
        tensor.name,
        rows,
        d,
        tensor.models,
        tensor.has_base,
        lambda begin, end: _read(tensor, begin, end)[0],
        threads,
        lambda begin, end: _read_raw(tensor, begin, end),
    )


def _read(tensor: Tensor, begin: int, end: int) -> tuple[Block, list[int]]:
    """Return a block as float32, and how many values of each input were not finite."""
    d = shape_2d(tensor.shape)[1]
    values = scratch("inputs", (len(tensor.inputs.headers), end - begin, d))
    bad = read_rows(tensor.inputs, begin, end, values)
    base = values[tensor.models] if tensor.has_base else None
    return Block(values[: tensor.models], base, begin * d), bad


def _stored(tensor: Tensor) -> bool:
    """Say whether the stored bytes of the inputs are all there is to say of them."""
    return not tensor.inputs.allow_nonfinite and not any(tensor.inputs.low_rank)


def _read_raw(tensor: Tensor, begin: int, end: int) -> Raw | None:
    if not _stored(tensor):
        return None
    parts = raw_rows(tensor.inputs, begin, end)
    return Raw(parts, tensor.inputs.kinds, lambda: release_rows(tensor.inputs, begin, end))


def _may_go_direct(tensor: Tensor) -> bool:
    """Say whether all that a direct rule reads and writes is bfloat16, as stored."""
    kinds = set(tensor.inputs.kinds.tolist())
    no_reference = not tensor.reference.headers
    return (
        _stored(tensor) and no_reference and tensor.dtype == "bfloat16" and kinds == {KINDS["BF16"]}
    )


def _write(tensor: Tensor, rule: Rule, span: tuple[int, int]) -> Written:
    """Merge the rows of a span and write them."""
    begin, end = span
    digests = hashes(tensor.inputs, begin, end)
    block, bad = _read(tensor, begin, end)
    with np.errstate(over="ignore", invalid="ignore"):  # counted as what does not fit
        data, values, lost = rounded(rule.emit(block), tensor.dtype)
    if lost:
        raise _does_not_fit(tensor, lost)
    _put(tensor, data, block.begin)
    reference = block.base
    if tensor.reference.headers:
        reference = scratch("reference", (1, *values.shape))
        read_rows(tensor.reference, begin, end, reference)
        reference = reference[0]
    return Written(measure(block.models, reference, values), bad, digests)


def _write_direct(tensor: Tensor, rule: Rule, span: tuple[int, int]) -> Written:
    """Merge and write them by a rule that reads, rounds and measures bfloat16 at once."""
    begin, end = span
    d = shape_2d(tensor.shape)[1]
    raw = _read_raw(tensor, begin, end)
    assert raw is not None  # for the type checker: `_may_go_direct` has seen to both
    assert rule.direct is not None
    bits = scratch_bits((end - begin) * d).reshape(end - begin, d)
    sums, lost = rule.direct(raw, begin, bits)
    if lost:
        _read(tensor, begin, end)  # raises for inputs that are not finite
        raise _does_not_fit(tensor, lost)
    # Now that they are in the cache: xxhash keeps the interpreter's lock.
    digests = hashes(tensor.inputs, begin, end)
    raw.release()
    _put(tensor, bits.reshape(-1).view(np.uint8), begin * d)
    return Written(sums, [0] * len(digests), digests)


def _put(tensor: Tensor, data: np.ndarray[tuple[int], np.dtype[np.uint8]], element: int) -> None:
    """Write bytes into the tensor's place, from an element on."""
    file, place = tensor.place
    write_at(file, data, place + element * DTYPES[tensor.dtype][1])


def _does_not_fit(tensor: Tensor, lost: int) -> MergeError:
    return MergeError(
        f"tensor {tensor.name}: {lost} of the merged values do not fit in {tensor.dtype}; "
        "set out_dtype to bfloat16 or float32"
    )


def _joined(digests: list[int]) -> int:
    return int(xxhash.xxh3_64_intdigest(np.array(digests, np.uint64).tobytes()))
