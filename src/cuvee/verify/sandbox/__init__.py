"""Runs one untrusted program apart from the machine, within limits of time, memory and output.

A job (JSON values) and stdin in, reports and output out. A server that is up already forks
once for each program (`cuvee.verify.sandbox.server`), in one of three kinds of sandbox:

`bubblewrap`  No network, no other processes, no files but Python's standard library (read
              only) and an empty /tmp and /dev/shm of 64 MiB each. The server lives in
              bubblewrap; each program has pid, user, mount and ipc namespaces of its own,
              made after the fork, no rights, and a system-call filter.
`landlock`    Weaker, where namespaces are refused: the same filter, files shut off by
              Landlock, one folder to write in that is measured four times a second. Other
              processes and the machine's names are seen, though not touched.
`none`        The same harness with the user's rights, only for a user who says so.

A program can still burn its time, its memory and its folders, and read the kernel's version.
It can start threads, but no processes. Not here: what a report means (`cuvee.verify.code`).
"""

import functools
import shutil
import sys
import threading
from collections.abc import Mapping
from typing import Any

from cuvee.errors import RecipeError
from cuvee.verify.sandbox import bubblewrap
from cuvee.verify.sandbox.program import run_program
from cuvee.verify.sandbox.warm import Way
from cuvee.verify.sandbox.watch import Ended, Limits, OnReport

__all__ = ["KINDS", "Ended", "Limits", "OnReport", "require", "run"]

KINDS = ("bubblewrap", "landlock", "none")
_WAYS = {
    "bubblewrap": (
        Way(bubblewrap=True, enclosure="namespaces", shared=True),
        # where namespaces within namespaces are refused: a bubblewrap for each program
        Way(bubblewrap=True, enclosure="filter", shared=False),
    ),
    "landlock": (Way(bubblewrap=False, enclosure="landlock", shared=True),),
    "none": (Way(bubblewrap=False, enclosure="none", shared=True),),
}
_trying = threading.Lock()


def require(kind: str) -> None:
    """Check that programs can be run in a sandbox of this kind.

    Raises RecipeError, with the command that helps, where one is wanted that cannot run here.
    It is tried once, for real; there is never another in its place.
    """
    _way(kind)


def run(
    job: Mapping[str, Any],
    *,
    stdin: bytes,
    kind: str,
    limits: Limits,
    on_report: OnReport,
    peer: int | None = None,
) -> Ended:
    """Run a job of `cuvee.verify.code.harness` to its end, and kill whatever is left of it.

    `kind` is one of KINDS; `peer` a connected socket that the harness gets besides its job.
    Any number of threads may call it at once. Raises RecipeError as `require`, and OSError
    where this process has no descriptors left; every fault of the program or the sandbox is
    in what is returned.
    """
    way = _way(kind)
    return run_program(way, job, stdin=stdin, limits=limits, on_report=on_report, peer=peer)


def _way(kind: str) -> Way:
    if kind not in KINDS:
        raise RecipeError(f"sandbox {kind!r}: must be {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    with _trying:  # many threads at once must not each try it
        way, problem = _tried(kind)
    if way is None:
        raise RecipeError(f"sandbox: {kind} cannot run here ({problem}); {_remedy(kind)}")
    return way


def _remedy(kind: str) -> str:
    own = "`sandbox: none` runs model-written code with your own rights"
    if sys.platform != "linux":
        return "use Linux, in a virtual machine or a container"
    if kind == "bubblewrap":
        return f"{bubblewrap.remedy()}. `sandbox: landlock` is weaker and needs neither; {own}"
    if kind == "landlock":
        return f"switch Landlock on with `lsm=landlock,...` on the kernel's command line. {own}"
    return "even a plain process of Python did not start"


@functools.cache
def _tried(kind: str) -> tuple[Way | None, str]:
    """Return the first way that runs a program of this kind here, or why none does."""
    if sys.platform != "linux":
        return None, f"programs are run on Linux only, and this is {sys.platform}"
    if kind == "bubblewrap" and shutil.which("bwrap") is None:
        return None, "no program `bwrap`"
    problem = ""
    for way in _WAYS[kind]:
        problem = _problem(way)
        if not problem:
            return way, ""
    return None, problem


def _problem(way: Way) -> str:
    """Return why this way cannot run a program here; nothing where it can."""
    limits = Limits(seconds=10, memory_mb=256)
    job = {"kind": "stdin", "program": "pass"}
    ended = run_program(way, job, stdin=b"", limits=limits, on_report=lambda _: True, peer=None)
    if (ended.how, ended.exit_code) == ("exit", 0):
        return ""
    lines = ended.stderr.strip().splitlines()
    return lines[-1] if lines else f"it ended with exit code {ended.exit_code}"
