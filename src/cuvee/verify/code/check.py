"""Does a program do what its tests say? Every program in a sandbox of its own.

Programs and their tests (`cuvee.verify.code.forms`) in, one `Judgement` each out, in order.
What decides a verdict is never where the program runs: expected outputs stay here, and
asserts that are more than calls with literal results run in a second sandbox. The few that
need objects of the program run beside it, which could forge their result; such a verdict
says `forgeable` in `checker`. Not here: what a sandbox is (`cuvee.verify.sandbox`).
"""

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from cuvee.errors import VerifierError
from cuvee.progress import Tick
from cuvee.recipe import Verify
from cuvee.verify import sandbox
from cuvee.verify.code.apart import check_apart, check_together
from cuvee.verify.code.calls import check_assertions, check_function, check_reference
from cuvee.verify.code.findings import Finding, Room
from cuvee.verify.code.forms import FunctionTests, ReferenceTests, StdinTests, Tests, parse_tests
from cuvee.verify.code.programs import check_stdin
from cuvee.verify.judgement import Judgement


def check_code(
    programs: Sequence[tuple[str, str]], *, limits: Verify, sandbox_kind: str, tick: Tick
) -> list[Judgement]:
    """Test (program, tests) pairs, one a core at once; return judgements in the same order.

    `correct` (`passed`); `wrong` (`wrong_output`, `runtime_error`, `time_limit`,
    `memory_limit`, `output_limit`, `missing_function`, `syntax_error`) with the failing case
    in `detail`; `not_checked` (`malformed_tests`, `sandbox_failed`, `missing_module`: the
    program imports a package beyond the standard library, `broken_tests`: their checker or
    reference program fails). Raises RecipeError where the sandbox is wanted and cannot run.
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
    try:
        parsed = parse_tests(tests)
    except VerifierError as error:
        finding = Finding("not_checked", "malformed_tests", str(error))
    else:
        try:
            finding = _check(program, parsed, Room(limits, sandbox_kind))
        except VerifierError as error:
            finding = Finding("not_checked", "broken_tests", str(error))
    return Judgement(
        finding.verdict,
        finding.reason,
        f"{sandbox_kind} forgeable" if finding.forgeable else sandbox_kind,
        extracted=program,
        detail=finding.detail,
        seconds=time.monotonic() - begin,
    )


def _check(program: str, tests: Tests, room: Room) -> Finding:
    if isinstance(tests, FunctionTests):
        return check_function(program, tests, room)
    if isinstance(tests, StdinTests):
        return check_stdin(program, tests, room)
    if isinstance(tests, ReferenceTests):
        return check_reference(program, tests, room)
    if tests.together:
        return check_together(program, tests, room)
    if tests.cases is not None:
        return check_assertions(program, tests.entries[0], tests.cases, room)
    return check_apart(program, tests, room)
