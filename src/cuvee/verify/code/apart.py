"""Assertion tests that are more than calls: tests and program in two processes, or in one.

A program and a `Plan` in, a `Finding` out. Apart, each has a sandbox of its own and a socket
between them carries plain values, so that nothing of the program's is where the verdict is
made. Together, the program could forge its end; `cuvee.verify.code.check` marks that. Not
here: how it is decided which (`cuvee.verify.code.asserts`).
"""

import dataclasses
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cuvee.verify.code.asserts import Plan
from cuvee.verify.code.findings import (
    PASSED,
    Finding,
    Room,
    collector,
    ended_early,
    failure,
    run,
)
from cuvee.verify.sandbox import Ended

_CASE = "asserts"

Heard = tuple[Ended, dict[str, Any] | None]
"""How a process ended, and its first report."""


def check_together(program: str, plan: Plan, room: Room) -> Finding:
    """Run the tests beside the program, in one process."""
    job = {"kind": "assert", "program": program, "code": plan.code}
    reports: list[dict[str, Any]] = []
    ended = run(job, room, collector(reports))
    if not reports:
        finding = ended_early(ended, _CASE)
    elif reports[0].get("event") == "end":
        finding = PASSED
    else:
        finding = failure(reports[0], _CASE, program)
    return dataclasses.replace(finding, forgeable=True)


def check_apart(program: str, plan: Plan, room: Room) -> Finding:
    """Run the tests in a process of their own, where calls of the program are messages.

    Tests that call the program with what is no plain value (a function, say) run together
    with it after all; what the program returned does not count as such.
    """
    names = list(plan.entries)
    tests_end, program_end = socket.socketpair()
    with tests_end, program_end, ThreadPoolExecutor(1) as thread:
        job = {"kind": "candidate", "program": program, "names": names}
        running = thread.submit(_run, job, room, program_end)
        tests = _run({"kind": "tests", "code": plan.code, "names": names}, room, tests_end)
        candidate = running.result()
    if tests[1] is not None and tests[1].get("phase") == "unpassable":
        return check_together(program, plan, room)
    return _judge(tests, candidate, program)


def _run(job: dict[str, Any], room: Room, end: socket.socket) -> Heard:
    """Run one side, and let the other know when it has ended."""
    reports: list[dict[str, Any]] = []
    with end:
        ended = run(job, room, collector(reports), peer=end.fileno())
    return ended, reports[0] if reports else None


def _judge(tests: Heard, candidate: Heard, program: str) -> Finding:
    """Return the verdict: the tests' word, or where they had no answer, why there was none."""
    for ended, _ in (tests, candidate):
        if ended.how == "not_started":
            return ended_early(ended, _CASE)
    ended, report = tests
    if report is None:
        return ended_early(ended, _CASE)
    if report.get("event") == "end":
        return PASSED
    if report.get("phase") != "peer":
        return failure(report, _CASE, program)
    ended, said = candidate
    if said is not None and said.get("event") == "error":
        return failure(said, _CASE, program)
    return ended_early(ended, _CASE) if ended.how != "stopped" else failure(report, _CASE, program)
