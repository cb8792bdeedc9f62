"""Tests that call one function of a program: one process for all cases; it is told inputs only.

A program and `FunctionTests`, `ReferenceTests` or the cases of a `Plan` in, a `Finding` out.
A result counts for the case whose turn it is, so a program that writes reports of its own
only says early what it could have returned. Not here: the two other ways of assertion tests
(`cuvee.verify.code.apart`).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from cuvee.errors import VerifierError
from cuvee.verify.code.asserts import Assertion
from cuvee.verify.code.findings import (
    OUTPUT_BYTES,
    PASSED,
    Finding,
    Room,
    case_name,
    ended_early,
    failure,
    read,
    run,
    short,
)
from cuvee.verify.code.forms import FunctionTests, ReferenceTests
from cuvee.verify.code.outputs import NotPlainError, holds, rebuild, same_plain, same_value
from cuvee.verify.code.plain import pack

Accept = Callable[[int, Any], bool]
"""Gets a case's index and what was returned, as JSON; returns whether that is right."""


def check_function(program: str, tests: FunctionTests, room: Room) -> Finding:
    """Compare what the function returns with the expected JSON values."""

    def accept(index: int, value: Any) -> bool:
        return same_value(value, tests.expected[index], tolerance=tests.tolerance)

    return _check_calls(program, tests.fn_name, tests.arguments, accept, room, plain=False)


def check_assertions(
    program: str, entry: str, assertions: Sequence[Assertion], room: Room
) -> Finding:
    """Make the calls of asserts and say whether what they assert holds."""
    arguments = [pack(assertion.arguments) for assertion in assertions]

    def accept(index: int, value: Any) -> bool:
        return holds(assertions[index], rebuild(value))

    return _check_calls(program, entry, arguments, accept, room, plain=True)


def check_reference(program: str, tests: ReferenceTests, room: Room) -> Finding:
    """Compare what the function returns with what the reference program's does.

    A case that is too much for the reference program itself is left out, and said in
    `detail`. Raises VerifierError where the reference program fails otherwise.
    """
    expected = _expected(tests, room)
    used = [index for index, value in enumerate(expected) if value is not _TOO_MUCH]

    def accept(index: int, value: Any) -> bool:
        return same_plain(
            rebuild(value),
            rebuild(expected[used[index]]),
            tolerance=tests.tolerance,
            as_sets=tests.as_sets,
        )

    arguments = [tests.arguments[index] for index in used]
    finding = _check_calls(program, tests.fn_name, arguments, accept, room, plain=True)
    left_out = [str(index + 1) for index in range(len(expected)) if index not in used]
    if finding.verdict != "correct" or not left_out:
        return finding
    said = f"case {', '.join(left_out)} of {len(expected)} left out: too much for the reference"
    return dataclasses.replace(finding, detail=said)


_TOO_MUCH = object()
_MOST_LEFT_OUT = 5
_LIMITS = ("time_limit", "memory_limit", "output_limit")


@functools.lru_cache(maxsize=4)
def _expected(tests: ReferenceTests, room: Room) -> tuple[Any, ...]:
    """Return what the reference program returns in each case, packed, or _TOO_MUCH."""
    values: list[Any] = []

    def accept(_: int, value: Any) -> bool:
        values.append(value)
        return True

    while len(values) < len(tests.arguments):
        rest = tests.arguments[len(values) :]
        found = _check_calls(tests.program, tests.fn_name, rest, accept, room, plain=True)
        if found.verdict == "correct":
            break
        if found.reason not in _LIMITS or values.count(_TOO_MUCH) == _MOST_LEFT_OUT:
            raise VerifierError(f"the reference program is {found.reason}: {found.detail}")
        values.append(_TOO_MUCH)
    return tuple(values)


def _check_calls(
    program: str,
    fn_name: str,
    arguments: Sequence[Any],
    accept: Accept,
    room: Room,
    *,
    plain: bool,
) -> Finding:
    answered = -1  # the first report says that the program is ready
    finding: Finding | None = None

    def take(line: bytes) -> bool:
        nonlocal answered, finding
        answered += 1
        if answered == 0:
            return True
        case = answered - 1
        report = read(line) if len(line) <= OUTPUT_BYTES else {}
        if not report:
            finding = Finding("wrong", "output_limit", case_name(case, arguments))
        elif report.get("event") != "result":
            finding = failure(report, case_name(case, arguments), program)
        elif not _accepted(accept, case, report.get("value")):
            got = f"{case_name(case, arguments)}: got {short(report.get('value'))}"
            finding = Finding("wrong", "wrong_output", got)
        elif answered == len(arguments):
            finding = PASSED
        return finding is None

    job = {
        "kind": "function",
        "program": program,
        "fn_name": fn_name,
        "cases": arguments,
        "plain": plain,
    }
    ended = run(job, room, take, cases=len(arguments))
    return finding or ended_early(ended, case_name(max(0, answered), arguments))


def _accepted(accept: Accept, case: int, value: Any) -> bool:
    try:
        return accept(case, value)
    except NotPlainError:
        return False
