"""Runs one untrusted program apart from the machine, within limits of time, memory and output.

`bubblewrap` gives the program namespaces of its own: no network, no other processes, no
files but Python's standard library (read only) and a small private /tmp, no privileges, no
environment. `none` runs the same harness as a plain process with the user's rights and is
only for a user who says so. A job (JSON values) and stdin in, reports and output out. Not
here: what a report means (`cuvee.verify.code`).

A program in the sandbox can still burn its time, its memory and its 64 MiB of /tmp, and
read the kernel's version. It cannot start processes (`cuvee.verify.seccomp`).
"""

import fcntl
import functools
import importlib.resources
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cuvee.errors import RecipeError
from cuvee.verify.seccomp import no_processes
from cuvee.verify.watch import START_SECONDS, Ended, Limits, OnReport, watch

TMP_BYTES = 64 * 2**20
_PYTHON_FLAGS = ("-s", "-P", "-S", "-B", "-X", "utf8")
_ENVIRONMENT = {"HOME": "/tmp", "PYTHONHASHSEED": "0"}  # a fixed seed: the same verdict twice


def require(kind: str) -> None:
    """Check that programs can be run in a sandbox of this kind.

    Raises RecipeError, with the command that helps, where bubblewrap is wanted and is not
    installed or cannot run here. It is tried once, for real.
    """
    if kind not in ("bubblewrap", "none"):
        raise RecipeError(f"sandbox {kind!r}: must be bubblewrap or none")
    if kind == "bubblewrap" and (problem := _bubblewrap_problem()) is not None:
        raise RecipeError(
            f"sandbox: bubblewrap cannot run here ({problem}); install it with "
            "`apt-get install bubblewrap`, or say `sandbox: none` in the recipe to run "
            "model-written code with your own rights"
        )


@functools.cache
def _bubblewrap_problem() -> str | None:
    """Return why bubblewrap cannot run a program here, or None where it can."""
    if shutil.which("bwrap") is None:
        return "no program `bwrap`"
    job = {"kind": "stdin", "program": "pass"}
    ended = run(
        job,
        stdin=b"",
        kind="bubblewrap",
        limits=Limits(seconds=START_SECONDS, memory_mb=256),
        on_report=lambda _: True,
    )
    if ended.how == "exit" and ended.exit_code == 0:
        return None
    lines = ended.stderr.strip().splitlines()
    return lines[-1] if lines else f"it ended with exit code {ended.exit_code}"


def run(
    job: Mapping[str, Any], *, stdin: bytes, kind: str, limits: Limits, on_report: OnReport
) -> Ended:
    """Run a job of `cuvee.verify.code_harness` to its end, and kill whatever is left of it.

    `kind` is `bubblewrap` or `none`. Raises OSError only where the machine cannot start any
    process; every fault of the program or the sandbox is in what is returned.
    """
    with ExitStack() as stack:
        report_out, report_in = os.pipe()
        stack.callback(os.close, report_out)
        inner = stack.enter_context(ExitStack())  # what only the program holds once it runs
        inner.callback(os.close, report_in)
        job_fd = _sealed(json.dumps(_complete(job, kind=kind, limits=limits)).encode(), inner)
        command = _python(job_fd, report_in)
        passed = [job_fd, report_in]
        if kind == "bubblewrap":
            folder = "/"
            command = [*_bubblewrap_command(), *_filter(passed, inner), "--", *command]
        else:
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="cuvee-", ignore_cleanup_errors=True)
            )
        process = subprocess.Popen(
            command,
            stdin=_sealed(stdin, inner),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=passed,
            cwd=folder,
            env=_ENVIRONMENT,  # bubblewrap's own too: a program can read /proc/1/environ
            start_new_session=True,
        )
        inner.close()
        return watch(process, report_out, limits=limits, on_report=on_report)


def _complete(job: Mapping[str, Any], *, kind: str, limits: Limits) -> dict[str, Any]:
    seconds = limits.seconds * (limits.extensions + 1)
    rlimits = {
        "CPU": math.ceil(seconds) + 5,  # the second net: wall time is watched from outside
        "FSIZE": TMP_BYTES,
        "NOFILE": 256,
        "NPROC": 4096,  # counts all of a user's processes, on old kernels outside ones too
        "CORE": 0,
    }
    return {
        **job,
        "limits": rlimits,
        "memory_mb": limits.memory_mb,
        "die_with_parent": kind == "none",
    }


def _sealed(content: bytes, stack: ExitStack) -> int:
    """Return a descriptor of a file in memory that can only be read, at its beginning."""
    number = os.memfd_create("cuvee", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    stack.callback(os.close, number)
    with os.fdopen(number, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(number, 0, os.SEEK_SET)
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(number, fcntl.F_ADD_SEALS, seals)
    return number


def _filter(passed: list[int], stack: ExitStack) -> list[str]:
    """Return bubblewrap's option for the system-call filter; adds its descriptor to `passed`."""
    program = no_processes()
    if program is None:
        return []
    number = _sealed(program, stack)
    passed.append(number)
    return ["--seccomp", str(number)]


@functools.cache
def _harness() -> str:
    return importlib.resources.files("cuvee.verify").joinpath("code_harness.py").read_text("utf-8")


def _python(job_fd: int, report_fd: int) -> list[str]:
    interpreter = os.path.realpath(sys.executable)
    return [interpreter, *_PYTHON_FLAGS, "-c", _harness(), str(job_fd), str(report_fd)]


@functools.cache
def _bubblewrap_command() -> Sequence[str]:
    """Return bubblewrap's options: everything but the filter and the program."""
    bwrap = shutil.which("bwrap") or "bwrap"
    known = subprocess.run([bwrap, "--help"], capture_output=True, text=True, check=False)
    no_userns = ["--disable-userns"] if "--disable-userns" in known.stdout else []  # since 0.8
    tmp = ("--size", str(TMP_BYTES), "--tmpfs")
    return [
        bwrap,
        "--unshare-all", "--unshare-user", *no_userns,
        "--uid", "65534", "--gid", "65534", "--hostname", "sandbox",
        "--die-with-parent", "--new-session", "--clearenv",
        *(word for name, value in _ENVIRONMENT.items() for word in ("--setenv", name, value)),
        "--proc", "/proc",  # of its own process namespace; /dev/stdin leads there
        "--dev", "/dev", *tmp, "/dev/shm", "--remount-ro", "/dev",
        *tmp, "/tmp",
        *_read_only_files(),
        "--remount-ro", "/",  # the root is a tmpfs without a cap
        "--chdir", "/tmp",
    ]  # fmt: skip


def _read_only_files() -> list[str]:
    """Return the options that show the interpreter, its library and the C library."""
    options: list[str] = []
    for folder in ("/usr/lib", "/usr/lib64", "/usr/lib32"):
        options += ["--ro-bind-try", folder, folder]
    for name in ("/lib", "/lib64"):
        path = Path(name)
        if path.is_symlink():
            options += ["--symlink", str(path.readlink()), name]
        else:
            options += ["--ro-bind-try", name, name]
    options += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    interpreter = os.path.realpath(sys.executable)
    prefixes = {sys.base_prefix, sys.base_exec_prefix} - {"/usr"}  # /usr/lib stands already
    for shown in sorted(prefixes | {os.path.realpath(prefix) for prefix in prefixes}):
        options += ["--ro-bind", shown, shown]
    return [*options, "--ro-bind", interpreter, interpreter]
