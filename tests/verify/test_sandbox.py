"""What a hostile program can and cannot do, in the real sandbox."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from cuvee.errors import RecipeError
from cuvee.recipe import Verify
from cuvee.verify import sandbox
from cuvee.verify.code import check_program
from cuvee.verify.judgement import Judgement
from cuvee.verify.watch import Ended, Limits

T = TypeVar("T")
LIMITS = Verify(code_seconds=2, memory_mb=256)


def run(program: str, *, stdin: bytes = b"", seconds: float = 5) -> Ended:
    return sandbox.run(
        {"kind": "stdin", "program": program},
        stdin=stdin,
        kind="bubblewrap",
        limits=Limits(seconds, 256),
        on_report=lambda _: True,
    )


def prints(program: str) -> str:
    ended = run(program)
    assert (ended.how, ended.exit_code) == ("exit", 0), ended
    return ended.stdout.decode()


def judge(program: str) -> Judgement:
    tests = '{"kind": "stdin", "cases": [{"input": "", "output": "right"}]}'
    return check_program(program, tests, limits=LIMITS, sandbox_kind="bubblewrap")


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("while True: pass", "time_limit"),
        ("import time\ntime.sleep(60)", "time_limit"),
        ("while True: print('x' * 1000)", "output_limit"),
        ("import sys\nwhile True: sys.stderr.write('x' * 1000)", "output_limit"),
        ("x = [0] * (6 * 2**27)", "memory_limit"),
        ("x = []\nwhile True: x.append('x' * 10**6)", "memory_limit"),
        ("import os\nwhile True: os.fork()", "runtime_error"),
        ("import os\nos._exit(0)", "wrong_output"),
        ("import os\nos._exit(7)", "runtime_error"),
        ("import sys\nsys.exit('bad')", "runtime_error"),
        ("import os\nos.kill(os.getpid(), 9)", "runtime_error"),
        ("import ctypes\nctypes.string_at(0)", "runtime_error"),
        ("import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()", None),
        ("1 / 0", "runtime_error"),
        ("def f(:", "syntax_error"),
        ("x = '\0'", "syntax_error"),
        ("(" * 10_000, "syntax_error"),
    ],
)
def test_programs_own_faults_are_wrong_with_their_reason(program: str, reason: str | None) -> None:
    judgement = judge(program)
    assert judgement.verdict == "wrong", judgement
    assert reason is None or judgement.reason == reason, judgement


@pytest.mark.sandbox
@pytest.mark.parametrize("path", ["/etc/passwd", "/etc/hostname", str(Path.home()), __file__])
def test_files_of_the_machine_are_not_there(path: str) -> None:
    program = f"import os\nprint([p for p in (os.path.exists({path!r}), ) if p])"
    if path == str(Path.home()):  # the interpreter may stand in it; its other files are hidden
        program = f"import os\np = {path!r}\nprint(os.listdir(p) if os.path.exists(p) else [])"
        shown = Path(sys.base_prefix)
        allowed = [shown.relative_to(path).parts[0]] if shown.is_relative_to(path) else []
        assert prints(program) == f"{allowed}\n"
    else:
        assert prints(program) == "[]\n"


@pytest.mark.sandbox
def test_only_tmp_can_be_written_and_it_is_capped() -> None:
    program = """
import os
for path in ("/x", "/dev/x", "/usr/lib/x", "/proc/x", os.path.dirname(os.__file__) + "/x"):
    try:
        open(path, "w")
        print("wrote", path)
    except OSError:
        pass
for folder in ("/tmp", "/dev/shm"):
    written = 0
    try:
        for name in range(100):
            with open(f"{folder}/{name}", "wb") as file:
                written += file.write(bytes(2**21))
    except OSError:
        pass
    print(written <= 2**26)
"""
    assert prints(program) == "True\nTrue\n"


@pytest.mark.sandbox
def test_there_is_no_network() -> None:
    program = """
import socket
print([name for _, name in socket.if_nameindex()])
for address in (("127.0.0.1", 22), ("192.0.2.1", 80)):
    try:
        socket.create_connection(address, timeout=1)
        print("connected", address)
    except OSError:
        pass
"""
    assert prints(program) == "['lo']\n"


@pytest.mark.sandbox
def test_environment_and_other_processes_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "do-not-tell")
    program = """
import glob, os
print([p for p in os.listdir("/proc") if p.isdigit()])
for path in ("/proc/1/environ", "/proc/self/environ"):
    print("do-not-tell" in open(path).read())
print(os.getuid())
"""
    assert prints(program) == "['1', '2']\nFalse\nFalse\n65534\n"


@pytest.mark.sandbox
def test_no_new_privileges_or_namespaces() -> None:
    program = """
import ctypes
libc = ctypes.CDLL(None)
print(libc.unshare(0x10000000), libc.setuid(0), libc.mount(b"a", b"/tmp", b"tmpfs", 0, None))
import subprocess
try:
    subprocess.run(["/bin/sh"])
except OSError as error:
    print(type(error).__name__)
"""
    assert prints(program) == "-1 -1 -1\nPermissionError\n"


@pytest.mark.sandbox
def test_threads_are_allowed() -> None:
    program = """
import threading
thread = threading.Thread(target=lambda: print("thread"))
thread.start()
thread.join()
"""
    assert prints(program) == "thread\n"


@pytest.mark.sandbox
def test_nothing_is_left_of_a_program() -> None:
    seen: list[set[int]] = []
    others = descendants(os.getpid())  # what other tests' libraries keep running

    def look(_: bytes) -> bool:
        seen.append(descendants(os.getpid()) - others)
        return True

    ended = sandbox.run(
        {"kind": "stdin", "program": "import time\ntime.sleep(60)"},
        stdin=b"",
        kind="bubblewrap",
        limits=Limits(0.5, 256),
        on_report=look,
    )
    assert ended.how == "time_limit"
    assert len(seen[0]) >= 3  # bubblewrap outside, bubblewrap inside, the program
    assert wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in seen[0]))


def descendants(pid: int) -> set[int]:
    children = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        children |= {int(child) for child in path.read_text().split()}
    return children.union(*(descendants(child) for child in children))


@pytest.mark.sandbox
def test_a_program_dies_with_the_process_that_started_it() -> None:
    script = """
from cuvee.verify import sandbox
from cuvee.verify.watch import Limits
job = {"kind": "stdin", "program": "import time; time.sleep(77.25)"}
sandbox.run(job, stdin=b"", kind="bubblewrap", limits=Limits(60, 256), on_report=lambda _: True)
"""
    parent = subprocess.Popen([sys.executable, "-c", script])
    inside = wait_for(lambda: found if len(found := descendants(parent.pid)) >= 3 else None)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in inside))


def wait_for(condition: Callable[[], T | None]) -> T:
    """Return the condition's first true value. Fails after 10 seconds without one."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError("it did not happen within 10 s")


def test_without_bubblewrap_the_error_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    sandbox._bubblewrap_problem.cache_clear()
    try:
        with pytest.raises(RecipeError, match=r"apt-get install bubblewrap.*sandbox: none"):
            sandbox.require("bubblewrap")
        sandbox.require("none")
    finally:
        sandbox._bubblewrap_problem.cache_clear()


def test_an_unknown_sandbox_is_refused() -> None:
    with pytest.raises(RecipeError, match="must be bubblewrap or none"):
        sandbox.require("docker")
