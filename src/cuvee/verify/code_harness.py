"""Runs one program inside the sandbox and reports what it did, one JSON line each.

`cuvee.verify.sandbox` reads this file as text and passes it to a bare interpreter, so it
imports nothing but the standard library. It knows inputs and never expected outputs: what
a program returned is compared outside. In: a job (JSON) on one file descriptor. Out: reports
on another, away from the program's own stdout and stderr:

    {"event": "bad_tests", "text": ...}     the asserts are no Python
    {"event": "ready"}                      from here on the time is the program's
    {"event": "error", "phase": ..., "type": ..., "text": ...}
    {"event": "result", "value": ...}       one for each case, in order
    {"event": "end"}

The phases are syntax, load, missing, call, result, assert, and stdin (the whole program).
"""

from __future__ import annotations

import _sitebuiltins
import builtins
import functools
import json
import os
import resource
import signal
import sys
import types

TYPE_CHECKING = False  # as type checkers know it: `typing` itself is slow to load
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

MEMORY_RESERVE = 32 * 2**20
"""Bytes of address space kept back to report a MemoryError with."""


def limit(job: dict[str, Any]) -> None:
    """Set the limits of this process for good."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - pathlib is slow to load
        used = int(file.read().split()[0]) * resource.getpagesize()
    memory = used + job["memory_mb"] * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory + MEMORY_RESERVE))
    for name in ("CPU", "FSIZE", "NOFILE", "NPROC", "CORE"):
        number = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(number)
        wanted = job["limits"][name]
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(number, (value, value))


def last_line(error: BaseException) -> str:
    """Return type and message of an error, shortened."""
    try:
        return f"{type(error).__name__}: {error}"[:500]
    except BaseException:  # noqa: BLE001 - its __str__ is the program's own
        return type(error).__name__


class Reporter:
    """The channel to the outside; the program's own output never touches it."""

    def __init__(self, report_fd: int) -> None:
        self.channel = os.fdopen(report_fd, "wb")
        self.dumps = json.dumps  # the program may change the module

    def report(self, event: str, **fields: Any) -> None:
        """Send one report. Raises what json.dumps does, and then sends nothing."""
        self.channel.write(self.dumps({"event": event, **fields}).encode() + b"\n")
        self.channel.flush()

    def fail(self, phase: str, error: BaseException) -> NoReturn:
        """Report an error and end the process."""
        if isinstance(error, MemoryError):
            _, hard = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        self.report("error", phase=phase, type=type(error).__name__, text=last_line(error))
        os._exit(1)

    def attempt(self, phase: str, step: Callable[[], Any]) -> Any:
        """Return the step's value; where it raises, report that and end the process."""
        try:
            return step()
        except BaseException as error:  # noqa: BLE001 - a program may raise anything
            self.fail(phase, error)


def main(job_fd: int, report_fd: int) -> None:
    """Do the job."""
    with os.fdopen(job_fd, "rb") as file:
        job = json.load(file)
    reporter = Reporter(report_fd)
    if job["die_with_parent"]:
        import ctypes  # only without bubblewrap, which sees to it itself

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    builtins.exit = _sitebuiltins.Quitter("exit", "Ctrl-D")  # `site` is not loaded, and
    builtins.quit = _sitebuiltins.Quitter("quit", "Ctrl-D")  # programs do use these
    sys.argv = ["main.py"]
    limit(job)
    kind, asserts = job["kind"], None
    if kind == "assert":
        try:
            asserts = compile(job["asserts"], "tests.py", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reporter.report("bad_tests", text=last_line(error))
            return
    reporter.report("ready")
    program = reporter.attempt(
        "syntax", lambda: compile(job["program"], "main.py", "exec", dont_inherit=True)
    )
    if kind == "stdin":
        run_as_main(program, reporter)
        return
    names = new_module("solution")
    reporter.attempt("load", lambda: exec(program, names))  # noqa: S102 - that is the purpose
    if asserts is not None:
        reporter.attempt("assert", lambda: exec(asserts, names))  # noqa: S102
    else:
        call_cases(job, names, reporter)
    reporter.report("end")
    os._exit(0)


def new_module(name: str) -> dict[str, Any]:
    """Return the namespace of a fresh module of that name."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    return module.__dict__


def run_as_main(program: types.CodeType, reporter: Reporter) -> None:
    """Run the program as `python main.py` does, its exit code and its last flush included."""
    names = new_module("__main__")
    try:
        exec(program, names)  # noqa: S102
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 - a program may raise anything
        reporter.fail("stdin", error)
    # Returning ends the interpreter as for any program: threads, atexit, flush.


def call_cases(job: dict[str, Any], names: dict[str, Any], reporter: Reporter) -> None:
    """Call the function with the arguments of each case and report what it returns."""
    name = job["fn_name"]
    function = names.get(name)
    if function is None and "Solution" in names:
        function = getattr(reporter.attempt("load", names["Solution"]), name, None)
    if not callable(function):
        reporter.report("error", phase="missing", type="NameError", text=f"no function {name!r}")
        os._exit(1)
    for args in job["cases"]:
        value = reporter.attempt("call", functools.partial(function, *args))
        try:
            reporter.report("result", value=value)
        except (TypeError, ValueError, RecursionError, MemoryError) as error:
            reporter.fail("result", error)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
