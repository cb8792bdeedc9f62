"""Chunks on a Ray of two CPUs: in order, none lost, and what a poisonous row costs.

Functions are written inside the tests: so they travel to the workers by value.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cuvee.errors import CuveeError, DataError
from cuvee.workers.chunks import HELD_AHEAD, ROW_TRIES, Losses, map_chunks
from cuvee.workers.cluster import LOOPBACK
from cuvee.workers.nodes import check_nodes

# Of a Ray that had to be started twice: it forgets its own processes.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.slow,
    pytest.mark.usefixtures("two_cpus"),
]


def uncounted(_: int) -> None:
    pass


def refuse(row: int, why: str) -> str:
    return f"{row} given up: {why}"


def chunks_of(size: int, *, rows: int) -> Iterator[list[int]]:
    for begin in range(0, rows, size):
        yield list(range(begin, min(begin + size, rows)))


def test_results_are_in_the_order_of_the_rows_whichever_chunk_ends_first() -> None:
    def slow_at_first(rows: list[int]) -> list[str]:
        import time

        time.sleep(0.3 if rows[0] == 0 else 0)
        return [str(row) for row in rows]

    ticks: list[int] = []
    got = list(
        map_chunks(chunks_of(7, rows=100), slow_at_first, given_up=refuse, tick=ticks.append)
    )
    assert got == [str(row) for row in range(100)]
    assert sum(ticks) == 100


def test_no_rows_and_empty_chunks_are_no_work() -> None:
    def same(rows: list[int]) -> list[str]:
        return [str(row) for row in rows]

    assert list(map_chunks([], same, given_up=refuse, tick=uncounted)) == []
    assert list(map_chunks([[], [1], []], same, given_up=refuse, tick=uncounted)) == ["1"]


def test_only_a_few_chunks_a_cpu_are_taken_before_their_turn() -> None:
    def same(rows: list[int]) -> list[str]:
        return [str(row) for row in rows]

    taken = 0

    def counted() -> Iterator[list[int]]:
        nonlocal taken
        for chunk in chunks_of(1, rows=50):
            taken += 1
            yield chunk

    results = map_chunks(counted(), same, given_up=refuse, tick=uncounted)
    assert next(results) == "0"
    assert taken <= HELD_AHEAD * 2
    assert len(list(results)) == 49


def test_a_poisonous_row_is_given_up_alone_with_its_reason() -> None:
    def dies_of_13(rows: list[int]) -> list[str]:
        if 13 in rows:
            os._exit(7)
        return [str(row) for row in rows]

    losses = Losses()
    got = list(
        map_chunks(
            chunks_of(8, rows=24), dies_of_13, given_up=refuse, tick=uncounted, losses=losses
        )
    )
    assert got[:13] + got[14:] == [str(row) for row in range(24) if row != 13]
    assert got[13].startswith("13 given up: ")
    assert "WorkerCrashedError" in got[13]
    assert losses.given_up == 1
    assert losses.workers == 2 + 2 + ROW_TRIES  # of 8 rows twice, of 4 and of 2 once, alone


def test_a_row_at_which_the_function_fails_is_given_up_alone() -> None:
    def fails_at_5(rows: list[int]) -> list[str]:
        return [str(1 // (row - 5)) and str(row) for row in rows]

    got = list(map_chunks(chunks_of(4, rows=8), fails_at_5, given_up=refuse, tick=uncounted))
    assert got[5] == "5 given up: ZeroDivisionError: integer division or modulo by zero"
    assert got[:5] + got[6:] == ["0", "1", "2", "3", "4", "6", "7"]


def test_an_error_of_ours_ends_the_work_as_it_does_here() -> None:
    def refused(rows: list[int]) -> list[str]:
        raise DataError(f"row {rows[0]}: no column 'reply'")

    with pytest.raises(DataError, match="row 0: no column 'reply'"):
        list(map_chunks(chunks_of(4, rows=8), refused, given_up=refuse, tick=uncounted))


def test_a_function_that_never_works_ends_the_work_instead_of_giving_every_row_up() -> None:
    def broken(rows: list[int]) -> list[str]:
        raise ImportError("no module that we need")

    with pytest.raises(CuveeError, match=r"20 chunks failed and none was done.*no module"):
        list(map_chunks(chunks_of(4, rows=400), broken, given_up=refuse, tick=uncounted))


def test_a_worker_that_is_killed_costs_no_row(tmp_path: Path) -> None:
    def leaves_its_number(rows: list[int]) -> list[str]:
        import time

        (tmp_path / str(os.getpid())).touch()
        time.sleep(0.02)
        return [str(row) for row in rows]

    losses = Losses()
    results = map_chunks(
        chunks_of(4, rows=200), leaves_its_number, given_up=refuse, tick=uncounted, losses=losses
    )
    got = [next(results) for _ in range(40)]
    os.kill(int(next(tmp_path.iterdir()).name), signal.SIGKILL)
    got += results
    assert got == [str(row) for row in range(200)]
    assert losses.given_up == 0


def test_a_ray_that_we_start_listens_on_the_loopback_alone() -> None:
    import ray

    assert [node["NodeManagerAddress"] for node in ray.nodes()] == [LOOPBACK]


def test_every_node_says_what_stands_against_it() -> None:
    def nothing() -> list[str]:
        return []

    def no_sandbox() -> list[str]:
        return ["sandbox: bubblewrap cannot run here"]

    (node,) = check_nodes(nothing)
    assert (node.cpus, node.faults) == (2, ())
    with pytest.raises(CuveeError, match=r"1 of 1 nodes cannot take part.*\n.*bubblewrap cannot"):
        check_nodes(no_sandbox)
