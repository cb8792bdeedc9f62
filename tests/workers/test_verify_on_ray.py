"""Verdicts on a Ray of one machine are the pool's, whatever is killed on the way.

The rows are published outputs of real models: math and programs, some labelled wrong.
"""

import dataclasses
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest

from cuvee.recipe import Verify
from cuvee.records import Verdict
from cuvee.verify.clustered import check_rows_on_ray
from cuvee.verify.rows import Reading, check_rows

from .conftest import workers_of

# Of a Ray that had to be started twice: it forgets its own processes.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.slow,
    pytest.mark.sandbox,
]


def untimed(verdicts: Iterable[Verdict]) -> list[Verdict]:
    return [dataclasses.replace(verdict, seconds=0.0) for verdict in verdicts]


def on_ray(rows: Sequence[dict[str, Any]], **more: Any) -> Iterator[Verdict]:
    limits = Verify(math_seconds=30, code_seconds=30)  # a busy machine must not decide a verdict
    return check_rows_on_ray(
        rows, Reading(), limits=limits, sandbox="bubblewrap", tick=more.get("tick", lambda _: None)
    )


def by_the_pool(rows: Sequence[dict[str, Any]]) -> list[Verdict]:
    return untimed(check_rows(rows, limits=Verify(math_seconds=30, code_seconds=30)))


@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("two_cpus")
def test_all_published_outputs_get_the_pool_s_verdicts_though_a_worker_is_killed(
    outputs: list[dict[str, Any]],
) -> None:
    rows = outputs
    assert len(rows) > 7000
    ticks: list[int] = []
    verdicts = on_ray(rows, tick=ticks.append)
    got = [next(verdicts) for _ in range(len(rows) // 2)]
    killed = workers_of(os.getpid())
    os.kill(killed[0], signal.SIGKILL)
    got += verdicts
    assert sum(ticks) == len(rows)
    assert untimed(got) == by_the_pool(rows)
