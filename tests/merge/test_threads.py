"""Work shared by threads: results by number, the first error stops the rest."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cuvee.merge.threads import ONE_THREAD, cores, open_threads, scratch

COUNTS = pytest.mark.parametrize("count", [1, 2, 3])


@COUNTS
@pytest.mark.parametrize("items", [0, 1, 2, 100])
def test_results_come_back_by_number(count: int, items: int) -> None:
    with open_threads(count) as threads:
        assert threads.map(items, lambda number: number**2) == [n**2 for n in range(items)]


@COUNTS
def test_every_number_goes_into_one_state(count: int) -> None:
    with open_threads(count) as threads:
        states = threads.fold(100, list[int], lambda state, number: state.append(number))
    assert 1 <= len(states) <= count
    assert sorted(number for state in states for number in state) == list(range(100))


@COUNTS
def test_the_first_error_is_raised_and_stops_the_rest(count: int) -> None:
    done: list[int] = []

    def work(number: int) -> None:
        if number == 3:
            raise KeyError(number)
        done.append(number)

    with open_threads(count) as threads:
        with pytest.raises(KeyError, match="3"):
            threads.map(100_000, work)
        assert len(done) < 100_000
        assert threads.map(3, lambda number: number) == [0, 1, 2]  # the pool goes on


def test_one_thread_is_the_callers_own() -> None:
    assert ONE_THREAD.map(2, lambda _: threading.get_ident()) == [threading.get_ident()] * 2


def test_less_than_one_thread_is_refused() -> None:
    with pytest.raises(ValueError, match="threads 0"), open_threads(0):
        pass


def test_scratch_is_kept_by_key_and_thread() -> None:
    first = scratch("a test", (3, 4))
    first[:] = 1
    again = scratch("a test", (2, 5))
    assert again.shape == (2, 5)
    assert np.shares_memory(first, again)
    assert not np.shares_memory(first, scratch("another test", (3, 4)))
    with ThreadPoolExecutor(1) as executor:
        assert not np.shares_memory(first, executor.submit(scratch, "a test", (3, 4)).result())
    larger = scratch("a test", (100,))
    assert larger.size == 100
    assert larger.dtype == np.float32


def test_there_is_a_core_to_use() -> None:
    assert cores() >= 1
