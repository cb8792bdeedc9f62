import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cuvee.errors import VerifierError
from cuvee.verify import pool

WORKER = """
import os, sys, time
from cuvee.verify import pool

def answer(task):
    print("noise that must not reach the channel")
    if task == "sleep":
        time.sleep(60)
    if task == "leave":
        os._exit(3)
    if task == "raise":
        raise ValueError("bad task")
    if task == "eat":
        return len(bytes(2**28))
    return [task, os.getpid()]

pool.serve(answer, memory_mb=64)
"""
COMMAND = [sys.executable, "-c", WORKER]


def run(tasks: list[Any], *, processes: int = 2, seconds: float = 30) -> list[pool.Outcome]:
    return pool.run(COMMAND, tasks, processes=processes, seconds=seconds, tick=lambda _: None)


def test_order_is_kept_whatever_happens_to_single_tasks() -> None:
    tasks = [1, "leave", 2, "raise", {"a": [None]}, "eat", "\u2028", "x" * 300_000]
    outcomes = run(tasks)
    crashed = [task in ("leave", "raise", "eat") for task in tasks]
    assert [o.status for o in outcomes] == ["crash" if c else "done" for c in crashed]
    done = [o.value[0] for o in outcomes if o.status == "done"]
    assert done == [t for t, c in zip(tasks, crashed, strict=True) if not c]
    details = {t: o.detail for t, o in zip(map(str, tasks), outcomes, strict=True)}
    assert str(details["leave"]).startswith("exit code 3")
    assert details["raise"] == "exit code 1: ValueError: bad task"
    assert "MemoryError" in str(details["eat"])


def test_a_late_worker_is_killed_and_replaced() -> None:
    outcomes = run([1, "sleep", 2], processes=1, seconds=1)
    assert [o.status for o in outcomes] == ["done", "timeout", "done"]
    assert 1 <= outcomes[1].seconds < 3
    assert outcomes[0].value[1] != outcomes[2].value[1]


def test_workers_are_kept_from_task_to_task_and_end_with_the_call() -> None:
    outcomes = run(list(range(20)))
    pids = {o.value[1] for o in outcomes}
    assert len(pids) <= 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_no_tasks_start_no_worker() -> None:
    assert pool.run(["/no/such/program"], [], processes=2, seconds=1, tick=lambda _: None) == []


def test_a_worker_that_cannot_start_is_an_error_with_its_last_words() -> None:
    command = [sys.executable, "-c", "raise SystemExit('no module')"]
    with pytest.raises(VerifierError, match="exit code 1: no module"):
        pool.run(command, [1], processes=1, seconds=1, tick=lambda _: None)


def test_busy_workers_die_with_their_parent(tmp_path: Path) -> None:
    worker = WORKER.replace(
        "time.sleep(60)", "open('busy', 'w').write(str(os.getpid())); time.sleep(60)"
    )
    script = (
        "import sys\nfrom cuvee.verify import pool\n"
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


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 30 s"
        time.sleep(0.02)
