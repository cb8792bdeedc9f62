"""Runs programs in a sandbox for the tests, and skips those that this machine cannot have."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cuvee.errors import RecipeError
from cuvee.verify import sandbox
from cuvee.verify.sandbox import Ended, Limits

Run = Callable[..., tuple[Ended, list[dict[str, Any]]]]
Prints = Callable[..., str]


@pytest.fixture(params=["bubblewrap", "landlock"])
def kind(request: pytest.FixtureRequest) -> str:
    """Return each kind of sandbox that keeps programs apart, where it can run."""
    return available(request.param)


@pytest.fixture
def bubblewrap() -> str:
    return available("bubblewrap")


@pytest.fixture
def landlock() -> str:
    return available("landlock")


def available(kind: str) -> str:
    try:
        sandbox.require(kind)
    except RecipeError as error:
        pytest.skip(str(error))
    return kind


@pytest.fixture
def run() -> Run:
    """Run a program as `python main.py`; return how it ended and its reports after `ready`."""

    def run_it(
        program: str, kind: str, *, stdin: bytes = b"", limits: Limits | None = None
    ) -> tuple[Ended, list[dict[str, Any]]]:
        reports: list[dict[str, Any]] = []

        def take(line: bytes) -> bool:
            reports.append(json.loads(line))
            return True

        ended = sandbox.run(
            {"kind": "stdin", "program": program},
            stdin=stdin,
            kind=kind,
            limits=limits or Limits(10, 256),
            on_report=take,
        )
        assert reports[:1] == [{"event": "ready"}], (ended, reports)
        return ended, reports[1:]

    return run_it


@pytest.fixture
def prints(run: Run) -> Prints:
    """Return what a program prints that must end well."""

    def printed(program: str, kind: str, *, stdin: bytes = b"") -> str:
        ended, reports = run(program, kind, stdin=stdin)
        assert (ended.how, ended.exit_code, reports) == ("exit", 0, []), (ended, reports)
        return ended.stdout.decode()

    return printed


@pytest.fixture
def descendants() -> Callable[[int], set[int]]:
    """Return the processes that a process has started and that theirs have."""

    def below(pid: int) -> set[int]:
        children = set()
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                children |= {int(child) for child in path.read_text().split()}
            except (FileNotFoundError, ProcessLookupError):
                continue
        return children.union(*(below(child) for child in children))

    return below


@pytest.fixture
def wait_for() -> Callable[[Callable[[], Any]], Any]:
    """Return a condition's first true value. Fails after 20 seconds without one."""

    def wait(condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if value := condition():
                return value
            time.sleep(0.02)
        raise AssertionError("it did not happen within 20 s")

    return wait
