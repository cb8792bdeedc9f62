r"""Tests of whole programs: a fresh process for each input; what it prints is compared here.

A program and `StdinTests` in, a `Finding` out. Where several outputs are right, the tests
bring a checker: a Python program, run in a sandbox of its own as

    python checker.py input expected output

with the names of three text files. It accepts an output by ending with exit code 0 and
printing nothing, or `1`, `ok`, `yes`, `true`, `accepted` or `correct` as the first word.
A checker that fails by an exception has its say only if it also fails on the expected output:
then it is broken; else the output was nothing it could read. Not here: comparing text
(`cuvee.verify.code.outputs`).
"""

from typing import Any

from cuvee.errors import VerifierError
from cuvee.verify.code.findings import (
    PASSED,
    Finding,
    Room,
    case_name,
    collector,
    ended_early,
    failure,
    run,
    short,
)
from cuvee.verify.code.forms import StdinTests
from cuvee.verify.code.outputs import same_text

_ACCEPTING = ("1", "1.0", "ok", "yes", "true", "accepted", "correct")


def check_stdin(program: str, tests: StdinTests, room: Room) -> Finding:
    """Run the program on each input, until one output is wrong.

    Raises VerifierError where a checker cannot judge an output.
    """
    for index, (given, wanted) in enumerate(zip(tests.inputs, tests.outputs, strict=True)):
        case = case_name(index, tests.inputs)
        reports: list[dict[str, Any]] = []
        job = {"kind": "stdin", "program": program}
        ended = run(job, room, collector(reports), stdin=given)
        if reports:
            return failure(reports[0], case, program)
        if ended.how != "exit" or ended.exit_code != 0:
            return ended_early(ended, case)
        printed = ended.stdout.decode("utf-8", "replace")
        if tests.checker is None:
            accepted = same_text(printed, wanted, tolerance=tests.tolerance)
        else:
            files = {"input": given, "expected": wanted, "output": printed}
            accepted = _accepts(tests.checker, files, room)
        if not accepted:
            return Finding("wrong", "wrong_output", f"{case}: got {short(printed)}")
    return PASSED


def _accepts(checker: str, files: dict[str, str], room: Room) -> bool:
    """Say whether a checker accepts an output; one that it cannot read it does not accept."""
    said = _ask(checker, files, room)
    if said is None and not _ask(checker, files | {"output": files["expected"]}, room):
        raise VerifierError("the checker fails on the expected output too")
    return bool(said)


def _ask(checker: str, files: dict[str, str], room: Room) -> bool | None:
    """Run a checker; None where it fails instead of judging."""
    reports: list[dict[str, Any]] = []
    job = {"kind": "checker", "program": checker, "files": files}
    ended = run(job, room, collector(reports))
    if reports or ended.how != "exit":
        return None
    words = ended.stdout.decode("utf-8", "replace").split()
    return ended.exit_code == 0 and (not words or words[0].lower() in _ACCEPTING)
