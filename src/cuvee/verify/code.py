"""Does a program do what its tests say? Every program in a sandbox of its own.

Programs and their tests (`cuvee.verify.forms`) in, one `Judgement` each out, in order. Of
`function` and `stdin` tests the expected outputs never enter the sandbox: what a program
says is compared here. Asserts have to run beside the program, which could forge their
result; their verdicts say so in `checker`. `function` cases share one interpreter, and a
method of a class `Solution` counts as the function; `stdin` cases have a fresh process each.
Not here: what a sandbox is (`cuvee.verify.sandbox`).
"""

import dataclasses
import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cuvee.errors import VerifierError
from cuvee.progress import Tick
from cuvee.recipe import Verify
from cuvee.records import VerdictName
from cuvee.verify import sandbox
from cuvee.verify.forms import AssertTests, FunctionTests, StdinTests, parse_tests
from cuvee.verify.judgement import Judgement
from cuvee.verify.outputs import same_text, same_value
from cuvee.verify.watch import Ended, Limits

_SHOWN = 200


@dataclasses.dataclass(frozen=True)
class _Finding:
    verdict: VerdictName
    reason: str
    detail: str | None = None


def check_code(
    programs: Sequence[tuple[str, str]], *, limits: Verify, sandbox_kind: str, tick: Tick
) -> list[Judgement]:
    """Test (program, tests) pairs, one a core at once; return judgements in the same order.

    `correct` (`passed`); `wrong` (`wrong_output`, `runtime_error`, `time_limit`,
    `memory_limit`, `output_limit`, `missing_function`, `syntax_error`) with the failing case
    in `detail`; `not_checked` (`malformed_tests`, `sandbox_failed`). Raises RecipeError where
    the sandbox is wanted and cannot run at all.
    """
    if not programs:
        return []
    sandbox.require(sandbox_kind)

    def check_one(pair: tuple[str, str]) -> Judgement:
        return check_program(*pair, limits=limits, sandbox_kind=sandbox_kind)

    judgements = []
    threads = ThreadPoolExecutor(limits.processes or os.cpu_count() or 1)
    try:
        for judgement in threads.map(check_one, programs):
            judgements.append(judgement)
            tick(1)
    finally:
        threads.shutdown(cancel_futures=True)  # Ctrl-C must not test the rest first
    return judgements


def check_program(program: str, tests: str, *, limits: Verify, sandbox_kind: str) -> Judgement:
    """Test one program; see `check_code`."""
    begin = time.monotonic()
    checker = sandbox_kind
    try:
        parsed = parse_tests(tests)
    except VerifierError as error:
        finding = _Finding("not_checked", "malformed_tests", str(error))
    else:
        if isinstance(parsed, FunctionTests):
            finding = _check_function(program, parsed, limits, sandbox_kind)
        elif isinstance(parsed, StdinTests):
            finding = _check_stdin(program, parsed, limits, sandbox_kind)
        else:
            checker = f"{sandbox_kind} forgeable"
            finding = _check_asserts(program, parsed, limits, sandbox_kind)
    return Judgement(
        finding.verdict,
        finding.reason,
        checker,
        extracted=program,
        detail=finding.detail,
        seconds=time.monotonic() - begin,
    )


def _check_function(program: str, tests: FunctionTests, limits: Verify, kind: str) -> _Finding:
    answered = 0
    finding: _Finding | None = None

    def take(line: bytes) -> bool:
        nonlocal answered, finding
        report = _read(line)
        if report.get("event") == "ready":
            return True
        case = _case(answered, tests.arguments)
        if report.get("event") != "result":
            finding = _failure(report, case)
        elif not same_value(report.get("value"), tests.expected[answered]):
            got = f"{case}: got {_short(report.get('value'))}"
            finding = _Finding("wrong", "wrong_output", got)
        else:
            answered += 1
        return finding is None and answered < len(tests.expected)

    job = {
        "kind": "function",
        "program": program,
        "fn_name": tests.fn_name,
        "cases": tests.arguments,
    }
    ended = _run(job, "", kind, limits, take, extensions=len(tests.expected) - 1)
    if finding is not None:
        return finding
    if answered == len(tests.expected):
        return _Finding("correct", "passed")
    return _ended_early(ended, _case(answered, tests.arguments))


def _check_stdin(program: str, tests: StdinTests, limits: Verify, kind: str) -> _Finding:
    for index, (given, wanted) in enumerate(zip(tests.inputs, tests.outputs, strict=True)):
        case = _case(index, tests.inputs)
        reports: list[dict[str, Any]] = []
        take = _collector(reports)
        ended = _run({"kind": "stdin", "program": program}, given, kind, limits, take)
        if reports:
            return _failure(reports[0], case)
        if ended.how != "exit" or ended.exit_code != 0:
            return _ended_early(ended, case)
        printed = ended.stdout.decode("utf-8", "replace")
        if not same_text(printed, wanted):
            return _Finding("wrong", "wrong_output", f"{case}: got {_short(printed)}")
    return _Finding("correct", "passed")


def _check_asserts(program: str, tests: AssertTests, limits: Verify, kind: str) -> _Finding:
    reports: list[dict[str, Any]] = []
    job = {"kind": "assert", "program": program, "asserts": tests.code}
    ended = _run(job, "", kind, limits, _collector(reports))
    if not reports:
        return _ended_early(ended, "asserts")
    if reports[0].get("event") == "end":
        return _Finding("correct", "passed")
    return _failure(reports[0], "asserts")


def _collector(reports: list[dict[str, Any]]) -> Callable[[bytes], bool]:
    """Return what collects the first report after `ready`, and ends the program with it."""

    def take(line: bytes) -> bool:
        report = _read(line)
        if report.get("event") != "ready":
            reports.append(report)
        return not reports

    return take


def _run(
    job: dict[str, Any],
    given: str,
    kind: str,
    limits: Verify,
    take: Callable[[bytes], bool],
    *,
    extensions: int = 0,
) -> Ended:
    return sandbox.run(
        job,
        stdin=given.encode("utf-8", "surrogatepass"),
        kind=kind,
        limits=Limits(limits.code_seconds, limits.memory_mb, extensions),
        on_report=take,
    )


def _read(line: bytes) -> dict[str, Any]:
    """Read a report; one the program made up may be anything."""
    try:
        report = json.loads(line)
    except (ValueError, RecursionError):
        return {"event": "unreadable"}
    return report if isinstance(report, dict) else {"event": "unreadable"}


def _failure(report: dict[str, Any], case: str) -> _Finding:
    """Return what a report that is no result says."""
    text = str(report.get("text", ""))[:500]
    detail = f"{case}: {text}"
    if report.get("event") == "bad_tests":
        return _Finding("not_checked", "malformed_tests", text)
    phase, error = report.get("phase"), report.get("type")
    if phase == "syntax":
        return _Finding("wrong", "syntax_error", text)
    if phase == "missing":
        return _Finding("wrong", "missing_function", text)
    if error == "MemoryError":
        return _Finding("wrong", "memory_limit", detail)
    if phase == "result":
        return _Finding("wrong", "wrong_output", f"{case}: returned no JSON value: {text}")
    if phase == "assert" and error == "AssertionError":
        return _Finding("wrong", "wrong_output", detail)
    return _Finding("wrong", "runtime_error", detail)


def _ended_early(ended: Ended, case: str) -> _Finding:
    """Return what the end of a program says that ended before it had answered."""
    if ended.how == "not_started":
        lines = ended.stderr.strip().splitlines() or [f"exit code {ended.exit_code}"]
        return _Finding("not_checked", "sandbox_failed", lines[-1])
    if ended.how in ("time_limit", "output_limit"):
        return _Finding("wrong", ended.how, case)
    lines = ended.stderr.strip().splitlines()
    said = f", {lines[-1][:_SHOWN]}" if lines else ""
    return _Finding(
        "wrong", "runtime_error", f"{case}: ended with exit code {ended.exit_code}{said}"
    )


def _case(index: int, inputs: Sequence[Any]) -> str:
    return f"case {index + 1} of {len(inputs)}, input {_short(inputs[index])}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}..."
