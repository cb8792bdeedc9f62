import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cuvee.errors import VerifierError
from cuvee.verify.math import pool

WORKER = """
import os, sys, time
from cuvee.verify.math import worker

kept = []

def answer(task):
    print("noise that must not reach the channel")
    if task == "sleep":
        time.sleep(60)
    if task == "nap":
        time.sleep(0.6)
    if task == "leave":
        os._exit(3)
    if task == "raise":
        raise ValueError("bad task")
    if task == "eat":
        return len(bytes(2**28))
    if task == "grow":
        kept.append(bytes(2**25))
    return [task, os.getpid()]

worker.serve(answer, memory_mb=64)
"""
COMMAND = [sys.executable, "-c", WORKER]


@pytest.fixture(autouse=True)
def _no_worker_stays() -> Iterator[None]:
    yield
    pool.close()


def run(tasks: list[Any], *, processes: int = 2, seconds: float = 30) -> list[pool.Outcome]:
    return pool.run(COMMAND, tasks, processes=processes, seconds=seconds, tick=lambda _: None)


def test_order_is_kept_whatever_happens_to_single_tasks() -> None:
    tasks = [1, "leave", 2, "raise", {"a": [None]}, "eat", "\u2028", "x" * 300_000, *range(40)]
    outcomes = run(tasks)
    crashed = [task in ("leave", "raise", "eat") for task in tasks]
    assert [o.status for o in outcomes] == ["crash" if c else "done" for c in crashed]
    for task, outcome in zip(tasks, outcomes, strict=True):
        if outcome.status == "done":
            assert outcome.value[0] == task


def test_a_crash_says_how_the_worker_ended() -> None:
    left, raised, ate = run(["leave", "raise", "eat"], processes=1)
    assert left.detail is not None
    assert left.detail.startswith("exit code 3")
    assert raised.detail is not None
    assert "ValueError: bad task" in raised.detail
    assert ate.detail is not None
    assert "MemoryError" in ate.detail


def test_a_slow_task_is_killed_at_its_deadline_and_costs_its_own_row_alone() -> None:
    tasks: list[Any] = [*range(20), "sleep", *range(20)]
    outcomes = run(tasks, processes=1, seconds=1)
    assert [o.status for o in outcomes] == ["timeout" if t == "sleep" else "done" for t in tasks]
    assert 1 <= outcomes[20].seconds < 3


def test_each_task_of_a_list_has_a_deadline_of_its_own() -> None:
    outcomes = run(["nap"] * 4, processes=1, seconds=1)
    assert [o.status for o in outcomes] == ["done"] * 4


def test_workers_are_kept_from_call_to_call_and_end_with_close() -> None:
    first = {o.value[1] for o in run(list(range(20)))}
    second = {o.value[1] for o in run(list(range(20)))}
    assert len(first | second) <= 2
    pool.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in first | second)


def test_a_worker_outlives_the_thread_that_asked_for_it() -> None:
    pids: list[int] = []
    thread = threading.Thread(target=lambda: pids.append(run([1], processes=1)[0].value[1]))
    thread.start()
    thread.join()
    assert run([2], processes=1)[0].value[1] == pids[0]


def test_a_worker_that_died_while_waiting_is_replaced() -> None:
    (first,) = run([1], processes=1)
    os.kill(first.value[1], signal.SIGKILL)
    wait_until(lambda: "zombie" in Path(f"/proc/{first.value[1]}/status").read_text())
    (second,) = run([2], processes=1)
    assert second.status == "done"
    assert second.value[1] != first.value[1]


def test_a_worker_that_has_grown_is_replaced_before_it_costs_another_task() -> None:
    outcomes = run(["grow"] * 12, processes=1)
    assert [o.status for o in outcomes] == ["done"] * 12
    assert len({o.value[1] for o in outcomes}) > 1


def test_threads_may_call_at_once() -> None:
    found: dict[int, list[Any]] = {}

    def call(number: int) -> None:
        found[number] = [o.value[0] for o in run([number] * 30)]

    threads = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [number] * 30 for number in range(4)}


def test_no_tasks_start_no_worker() -> None:
    assert pool.run(["/no/such/program"], [], processes=2, seconds=1, tick=lambda _: None) == []


def test_a_worker_that_cannot_start_is_an_error_with_its_last_words() -> None:
    command = [sys.executable, "-c", "raise SystemExit('no module')"]
    with pytest.raises(VerifierError, match="exit code 1: no module"):
        pool.run(command, [1], processes=1, seconds=1, tick=lambda _: None)


def test_memory_of_the_parent_stays_flat() -> None:
    def resident_mb() -> float:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

    tasks = ["x" * 10_000] * 200
    run(tasks)
    before = resident_mb()
    for _ in range(10):
        run(tasks)
    assert resident_mb() - before < 8


def test_busy_workers_die_with_their_parent(tmp_path: Path) -> None:
    worker = WORKER.replace(
        "time.sleep(60)", "open('busy', 'w').write(str(os.getpid())); time.sleep(60)"
    )
    script = (
        "import sys\nfrom cuvee.verify.math import pool\n"
        f"command = [sys.executable, '-c', {json.dumps(worker)}]\n"
        "pool.run(command, ['sleep'], processes=1, seconds=60, tick=lambda _: None)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path)
    busy = tmp_path / "busy"
    wait_until(lambda: busy.exists() and busy.read_text() != "")
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    status = Path("/proc") / busy.read_text() / "status"
    wait_until(lambda: not status.exists() or "zombie" in status.read_text())


def test_waiting_workers_end_when_the_program_does() -> None:
    script = (
        "import sys\nfrom cuvee.verify.math import pool\n"
        f"command = [sys.executable, '-c', {json.dumps(WORKER)}]\n"
        "(done,) = pool.run(command, [1], processes=1, seconds=60, tick=lambda _: None)\n"
        "print(done.value[1])"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert not Path("/proc", ended.stdout.strip(), "status").exists()


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 30 s"
        time.sleep(0.02)
