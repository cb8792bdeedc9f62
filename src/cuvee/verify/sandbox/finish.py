"""Ends a program as the interpreter would, without taking the interpreter apart.

Taking apart what a fork shares with its server costs more than a short program. What a
program can see of its end stays: threads are waited for, exit functions run, its objects
are finalised, its output is flushed, its exit code is the same. It runs inside the sandbox
and imports the standard library only. Not here: errors that are not SystemExit, which the
harness reports.
"""

import atexit
import gc
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

_FLUSH_FAILED = 120  # as CPython's own exit code for it


def finish(main: Callable[[], None]) -> NoReturn:
    """Call `main`, end what it started, and exit with the code that it asks for by SystemExit."""
    code = 0
    try:
        main()
    except SystemExit as error:
        code = _exit_code(error.code)
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as at any end
    atexit._run_exitfuncs()
    failed = not _flush(sys.stdout)
    _flush(sys.stderr)
    program = sys.modules.pop("__main__", None)
    if program is not None:
        vars(program).clear()
    gc.collect()  # the server's own objects are frozen: only the program's are looked at
    for stream in (sys.stdout, sys.__stdout__):
        failed |= not _flush(stream)
    os._exit(code if code or not failed else _FLUSH_FAILED)


def _exit_code(wanted: Any) -> int:
    if wanted is None:
        return 0
    if isinstance(wanted, int):
        return wanted & 0xFF if -(2**63) <= wanted < 2**63 else 0xFF
    _flush(sys.stdout)
    try:
        print(wanted, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - its __str__ is the program's own
        return 1
    return 1


def _flush(stream: Any) -> bool:
    """Flush a stream; return whether that worked. It may be anything the program made it."""
    try:
        if stream is not None and not getattr(stream, "closed", False):
            stream.flush()
    except BaseException:  # noqa: BLE001 - its methods are the program's own
        return False
    return True
