"""Runs one job inside the sandbox and reports what came of it, one JSON line each.

The sandbox loads this file and `plain` into a bare interpreter; they import nothing else but
the standard library. In: a job (JSON) on one file descriptor. Out: reports on another, away
from the program's own stdout and stderr:

    {"event": "ready"}                      from here on the time is the program's
    {"event": "error", "phase": ..., "type": ..., "text": ..., "module": ...}
    {"event": "result", "value": ...}       one for each case, in order
    {"event": "end"}

The phases are syntax, load, missing, call, result, assert, stdin (the whole program), peer
(no answer from the other side) and unpassable (no plain value to call it with). The jobs:

    stdin      program                      run as `python main.py`, on the real stdin
    checker    program, files               the same, with files named on its command line
    function   program, fn_name, cases      call a function; expected outputs stay outside
    candidate  program, names               serve calls that come through the peer socket
    tests      code, names                  run tests whose functions are calls through it
    assert     program, code                tests beside the program, which can forge them

Limits, and how a process is ended, are the sandbox's. A `stdin` job returns or raises
SystemExit: its caller must then end the interpreter as for any program (threads, flush).
"""

from __future__ import annotations

import _sitebuiltins
import builtins
import functools
import importlib
import json
import os
import resource
import sys
import types

from cuvee.verify.code.plain import opaque_names, pack, unpack

TYPE_CHECKING = False  # as type checkers know it: `typing` itself is slow to load
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO, NoReturn

PRELUDE = (
    "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random",
    "statistics", "itertools", "functools", "operator", "json", "typing",
)  # fmt: skip
"""What LeetCode imports for a class `Solution`, as modules and all their public names."""


# --- reports ----------------------------------------------------------------------------


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

    def ready(self) -> None:
        """Report that the time is the program's; a constant, as json would copy many pages."""
        self.channel.write(b'{"event": "ready"}\n')
        self.channel.flush()

    def fail(self, phase: str, error: BaseException) -> NoReturn:
        """Report an error and end the process."""
        if isinstance(error, MemoryError):
            _, hard = resource.getrlimit(resource.RLIMIT_AS)  # a little is kept back for this
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        fields = {"phase": phase, "type": type(error).__name__, "text": last_line(error)}
        if isinstance(error, ModuleNotFoundError):
            fields["module"] = str(error.name)
        self.report("error", **fields)
        os._exit(1)

    def attempt(self, phase: str, step: Callable[[], Any]) -> Any:
        """Return the step's value; where it raises, report that and end the process."""
        try:
            return step()
        except BaseException as error:  # noqa: BLE001 - a program may raise anything
            self.fail(phase, error)

    def end(self) -> NoReturn:
        """Report that all is done, and end the process."""
        self.report("end")
        os._exit(0)


# --- jobs -------------------------------------------------------------------------------


def main(job_fd: int, report_fd: int, peer_fd: int) -> None:
    """Do the job; `peer_fd` is a connected socket for `candidate` and `tests`, else -1."""
    with os.fdopen(job_fd, "rb") as file:
        job = json.load(file)
    reporter = Reporter(report_fd)
    builtins.exit = _sitebuiltins.Quitter("exit", "Ctrl-D")  # `site` is not loaded, and
    builtins.quit = _sitebuiltins.Quitter("quit", "Ctrl-D")  # programs do use these
    sys.argv = ["main.py"]
    kind = job["kind"]
    peer = Peer(peer_fd) if peer_fd >= 0 else None
    if peer is not None and kind == "tests":
        run_tests(job, reporter, peer)
    if peer is not None:
        peer.send({"up": True})
    reporter.ready()
    program = reporter.attempt(
        "syntax", lambda: compile(job["program"], "main.py", "exec", dont_inherit=True)
    )
    if kind in ("stdin", "checker"):
        for name, content in job.get("files", {}).items():
            write_file(name, content)
            sys.argv.append(name)
        run_as_main(program, reporter)
        return
    names = new_module("solution")
    if kind == "function" and "class Solution" in job["program"]:
        names.update(prelude())
    reporter.attempt("load", lambda: exec(program, names))  # noqa: S102 - that is the purpose
    if kind == "function":
        call_cases(job, names, reporter)
    elif peer is not None:
        serve(job["names"], names, peer, reporter)
    else:
        tests = compile(job["code"], "tests.py", "exec", dont_inherit=True)
        reporter.attempt("assert", lambda: exec(tests, names))  # noqa: S102
    reporter.end()


def write_file(name: str, content: str) -> None:
    """Write a text file into the working directory."""
    with open(name, "w", encoding="utf-8", errors="surrogatepass", newline="") as file:  # noqa: PTH123 - pathlib is slow to load
        file.write(content)


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


def prelude() -> dict[str, Any]:
    """Return the names that LeetCode gives a program before its first line."""
    names: dict[str, Any] = {}
    for name in PRELUDE:
        module = importlib.import_module(name)
        public = getattr(module, "__all__", None) or [n for n in dir(module) if n[0] != "_"]
        names.update({n: getattr(module, n) for n in public if not hasattr(builtins, n)})
    names.update({name: importlib.import_module(name) for name in PRELUDE})  # over datetime
    return names


def call_cases(job: dict[str, Any], names: dict[str, Any], reporter: Reporter) -> None:
    """Call the function with the arguments of each case and report what it returns.

    `plain` cases hold packed arguments and want packed results; else both are bare JSON.
    """
    name, plain = job["fn_name"], job["plain"]
    for args in job["cases"]:
        function = find(name, names, reporter)
        value = reporter.attempt(
            "call", functools.partial(function, *(unpack(args) if plain else args))
        )
        try:
            reporter.report("result", value=pack(value) if plain else value)
        except BaseException as error:  # noqa: BLE001 - packing runs the value's own methods
            reporter.fail("result", error)


def find(name: str, names: dict[str, Any], reporter: Reporter) -> Callable[..., Any]:
    """Return a function of the program, or a method of a fresh `Solution`, as at LeetCode."""
    function = names.get(name)
    if function is None and "Solution" in names:
        function = getattr(reporter.attempt("load", names["Solution"]), name, None)
    if not callable(function):
        reporter.fail("missing", NameError(f"no function {name!r}"))
    return function  # type: ignore[no-any-return]


# --- tests and program in two processes ---------------------------------------------------


class Peer:
    """Messages between the tests and the program: JSON objects, one a line."""

    def __init__(self, peer_fd: int) -> None:
        self.incoming: BinaryIO = os.fdopen(peer_fd, "rb")
        self.outgoing: BinaryIO = os.fdopen(os.dup(peer_fd), "wb")
        self.dumps, self.loads = json.dumps, json.loads

    def send(self, message: Any) -> None:
        """Send one message. Raises OSError where the other side has ended."""
        self.outgoing.write(self.dumps(message).encode() + b"\n")
        self.outgoing.flush()

    def receive(self) -> Any:
        """Return the next message. Raises EOFError at the end, ValueError where it is no JSON."""
        line = self.incoming.readline()
        if not line.endswith(b"\n"):
            raise EOFError("the other side has ended")
        return self.loads(line)


def serve(entries: list[str], names: dict[str, Any], peer: Peer, reporter: Reporter) -> None:
    """Answer calls of the program's functions until the tests have ended."""
    for name in entries:
        find(name, names, reporter)
    while True:
        try:
            peer.send({"next": True})
            message = peer.receive()
        except (EOFError, OSError):
            return
        function = find(message["name"], names, reporter)
        peer.send(reporter.attempt("call", functools.partial(answer, function, message)))


def answer(function: Callable[..., Any], message: dict[str, Any]) -> dict[str, Any]:
    """Call a function; return its result or error, and the arguments that it changed."""
    packed = message["args"]
    args = unpack(packed)
    try:
        value = pack(function(*args, **{k: unpack(v) for k, v in message["named"].items()}))
        changed = {str(i): new for i, arg in enumerate(args) if (new := pack(arg)) != packed[i]}
    except MemoryError:
        raise
    except BaseException as error:  # noqa: BLE001 - a program may raise anything
        bases = [base.__name__ for base in type(error).__mro__]
        return {"raised": bases, "args": [pack(arg) for arg in error.args]}
    return {"value": value, "changed": changed}


def run_tests(job: dict[str, Any], reporter: Reporter, peer: Peer) -> NoReturn:
    """Run tests in which the names of the program's functions are calls of the other side."""
    code = compile(job["code"], "tests.py", "exec", dont_inherit=True)
    names = new_module("__main__")
    raised: list[BaseException] = []
    names.update({name: stub(name, peer, reporter, raised) for name in job["names"]})
    peer.receive()  # the other side is up: its start is not on the program's time
    reporter.ready()
    try:
        exec(code, names)  # noqa: S102
    except BaseException as error:  # noqa: BLE001 - tests may raise anything
        reporter.fail("call" if raised and raised[-1] is error else "assert", error)
    reporter.end()


def stub(
    name: str, peer: Peer, reporter: Reporter, raised: list[BaseException]
) -> Callable[..., Any]:
    """Return what calls a function of the program; errors that it raised go to `raised`.

    An end of the program, or an answer that is none, ends the tests: raised, it would pass
    a test that expects an error.
    """

    def call(*args: Any, **named: Any) -> Any:
        packed, packed_named = [pack(a) for a in args], {k: pack(v) for k, v in named.items()}
        if strange := opaque_names([packed, list(packed_named.values())]):
            reporter.fail("unpassable", TypeError(f"the tests pass {', '.join(strange)}"))
        try:
            peer.receive()
            peer.send({"name": name, "args": packed, "named": packed_named})
            reply = peer.receive()
            if "raised" in reply:
                error = rebuild(reply["raised"], unpack(reply["args"]))
            else:
                error, value = None, unpack(reply["value"])
                for index, new in reply["changed"].items():
                    replace(args[int(index)], unpack(new))
        except BaseException as failure:  # noqa: BLE001 - the program may send anything
            reporter.fail("peer", failure)
        if error is not None:
            raised.append(error)
            raise error
        return value

    call.__name__ = name
    return call


def rebuild(bases: Any, args: Any) -> BaseException:
    """Return an error of the nearest built-in type, with the same arguments.

    What would end an iteration of the tests' early, and so their checks, becomes another.
    """
    if not {"StopIteration", "StopAsyncIteration", "GeneratorExit"}.isdisjoint(bases):
        return RuntimeError(f"the program raised {bases[0]}")
    for name in bases:
        kind = getattr(builtins, str(name), None)
        if isinstance(kind, type) and issubclass(kind, BaseException):
            return kind(*args)
    raise TypeError("no built-in error")


def replace(argument: Any, new: Any) -> None:
    """Make an argument hold what the program left in it; what cannot change, does not."""
    if isinstance(argument, list | bytearray):
        argument[:] = new
    elif isinstance(argument, tuple):
        for inner, item in zip(argument, new, strict=True):
            replace(inner, item)
    elif hasattr(argument, "clear"):  # a dict, set or deque
        argument.clear()
        (argument.update if hasattr(argument, "update") else argument.extend)(new)
    elif hasattr(argument, "__next__"):
        list(argument)
