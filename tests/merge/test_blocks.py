"""A tensor in blocks of whole rows: every row once, and the same sums on any number of threads."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cuvee.merge import blocks
from cuvee.merge.blocks import (
    Block,
    Rule,
    Stack,
    apply,
    copied,
    counts,
    order_statistics,
    over_blocks,
    shape_2d,
    stack_of,
    sums,
)
from cuvee.merge.kernels import Array
from cuvee.merge.threads import ONE_THREAD, Threads, open_threads


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 64)


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[Threads]:
    with open_threads(request.param) as pool:
        yield pool


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((), (1, 1)), ((5,), (1, 5)), ((3, 4), (3, 4)), ((2, 3, 4), (6, 4)), ((0, 8), (0, 8))],
)
def test_rows_run_over_the_last_dimension(
    shape: tuple[int, ...], expected: tuple[int, int]
) -> None:
    assert shape_2d(shape) == expected


@given(rows=st.integers(0, 500), d=st.integers(0, 200))
def test_spans_take_every_row_once_in_order(rows: int, d: int) -> None:
    spans = Stack("x", rows, d, 1, False, lambda *_: Block(normal(1), None, 0), ONE_THREAD).spans()
    if rows * d == 0:
        assert spans == []
        return
    assert [row for begin, end in spans for row in range(begin, end)] == list(range(rows))
    assert all(end - begin == 1 or (end - begin) * d <= 64 for begin, end in spans)


def test_a_rule_sees_every_element_of_models_and_base(threads: Threads) -> None:
    models, base = [normal(21, 5, seed=seed) for seed in (1, 2)], normal(21, 5)
    stack = stack_of(models, base=base, threads=threads)

    def emit(block: Block) -> Array:
        assert block.base is not None
        found: Array = block.models[0] - 2 * block.models[1] + 3 * block.base + block.begin
        return found

    begins = np.repeat(np.arange(0, 21, 12), 12)[:21, None] * 5
    expected = models[0] - 2 * models[1] + 3 * base + begins.astype(np.float32)
    assert np.array_equal(apply(stack, Rule(emit)), expected)


def test_sums_and_counts_are_the_same_bits_on_any_threads(threads: Threads) -> None:
    x = normal(100, 30)

    def squares(block: Block) -> NDArray[np.float64]:
        return np.array([np.sum(block.models, dtype=np.float64), np.sum(block.models**2)])

    def add(block: Block, found: NDArray[np.int64]) -> None:
        found[0] += np.count_nonzero(block.models > 0)
        found[1] += 1

    one, many = stack_of([x]), stack_of([x], threads=threads)
    assert sums(many, squares).tobytes() == sums(one, squares).tobytes()
    assert counts(many, 2, add).tolist() == [int((x > 0).sum()), 50]


@settings(deadline=None)
@given(
    values=st.lists(st.floats(0, 2.0**127, width=32), min_size=1, max_size=60),
    data=st.data(),
)
def test_order_statistics_are_those_of_a_sort(values: list[float], data: st.DataObject) -> None:
    x = np.array(values, np.float32).reshape(-1, 1)
    ranks = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=4))
    stack = stack_of([x, x[::-1] / 2])
    found = order_statistics(stack, lambda block: block.models, [ranks, [0]])
    assert found == [np.sort(x.ravel())[ranks].tolist(), [float((x / 2).min())]]


def test_order_statistics_do_not_depend_on_threads(threads: Threads) -> None:
    x = np.abs(normal(100, 30))
    ranks = [0, 749, 1500, 2999]
    found = order_statistics(stack_of([x], threads=threads), lambda block: block.models, [ranks])
    assert found == [np.sort(x.ravel())[ranks].tolist()]


def test_an_empty_tensor_has_no_sum_and_no_rank_but_a_result() -> None:
    stack = stack_of([np.zeros((0, 8), np.float32)])
    assert over_blocks(stack, lambda block: block) == []
    with pytest.raises(ValueError, match="a sum over an empty tensor"):
        sums(stack, lambda _: np.zeros(1))
    with pytest.raises(ValueError, match="an order statistic of an empty tensor"):
        order_statistics(stack, lambda block: block.models, [[0]])
    assert apply(stack, Rule(lambda block: block.models[0])).shape == (0, 8)


def test_a_copy_can_be_written_to_while_the_block_stays() -> None:
    stack = stack_of([normal(3, 4)], base=normal(3, 4, seed=1))
    block = stack.read(0, 3)
    before = block.models.copy()
    copy = copied(block)
    assert copy.base is not None
    assert block.base is not None
    assert np.array_equal(copy.base, block.base)
    copy.models[:] = 0
    copy.base[:] = 0
    assert np.array_equal(block.models, before)
    assert block.base.any()
    assert copied(Block(before, None, 7)).base is None


def test_arrays_of_different_shapes_are_no_stack() -> None:
    with pytest.raises(ValueError, match="x: one shape is needed"):
        stack_of([normal(2, 3), normal(3, 2)], name="x")
    with pytest.raises(ValueError, match="one shape is needed"):
        stack_of([normal(2, 3)], base=normal(2))
    with pytest.raises(ValueError, match="one shape is needed"):
        stack_of([])
