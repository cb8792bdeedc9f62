"""What a hostile program can and cannot do, in the real sandboxes."""

import ast
import os
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cuvee.verify.sandbox import Limits, seccomp

# mypy: disable-error-code="no-any-return"
Run = Callable[..., Any]
Prints = Callable[..., str]


def test_a_program_that_stops_itself_is_ended_or_goes_on(kind: str, run: Run) -> None:
    program = "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)"
    ended, _ = run(program, kind, limits=Limits(1, 256))
    # As process 1 of its namespace it is not stopped by its own signals.
    assert ended.how == ("exit" if kind == "bubblewrap" else "time_limit")


def test_a_program_hears_the_signals_that_it_handles(kind: str, run: Run) -> None:
    program = """
import os, signal
for number in (signal.SIGTERM, signal.SIGALRM):
    signal.signal(number, lambda number, _: print(number))
os.kill(os.getpid(), signal.SIGTERM)
signal.setitimer(signal.ITIMER_REAL, 0.05)
signal.pause()
"""
    ended, _ = run(program, kind, limits=Limits(5, 256))
    assert (ended.how, ended.exit_code, ended.stdout) == ("exit", 0, b"15\n14\n")


@pytest.mark.parametrize(
    ("program", "how"),
    [
        ("while True: pass", "time_limit"),
        ("import time\ntime.sleep(60)", "time_limit"),
        ("import signal\nsignal.pause()", "time_limit"),
        ("import signal\nsignal.pthread_sigmask(0, range(1, 65))\nwhile True: pass", "time_limit"),
        ("import os\nwhile True: os.write(1, b'x' * 65536)", "output_limit"),
        ("import os\nwhile True: os.write(2, b'x' * 65536)", "output_limit"),
        ("import os\nwhile True: os.write(4, (b' ' * 9999 + b'1\\n') * 9)", "output_limit"),
        ("import os\nwhile True: os.write(4, b'x' * 65536)", "output_limit"),
    ],
)
def test_what_never_ends_is_ended(program: str, how: str, kind: str, run: Run) -> None:
    ended, _ = run(program, kind, limits=Limits(1, 256))
    assert ended.how == how
    assert ended.exit_code == 128 + 9
    assert len(ended.stdout) <= 2**23 + 2**16


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("x = [0] * (6 * 2**27)", "MemoryError"),
        ("x = []\nwhile True: x.append('x' * 10**6)", "MemoryError"),
        ("import mmap\nx = []\nwhile True: x.append(mmap.mmap(-1, 2**24))", "OSError"),
        ("import os\nos.memfd_create('x')", "PermissionError"),
        ("import os\nwhile True: os.fork()", "PermissionError"),
        ("import os, sys\nos.posix_spawn(sys.executable, ['x'], {})", "PermissionError"),
        ("import subprocess, sys\nsubprocess.run([sys.executable])", "PermissionError"),
        ("import multiprocessing as m\nm.get_context('fork').Pool(1)", None),
        ("import socket\nsocket.socket()", "PermissionError"),
        ("import socket\nsocket.socket(socket.AF_UNIX)", "PermissionError"),
        ("import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM)", "PermissionError"),
        ("import socket\nsocket.create_connection(('192.0.2.1', 80))", "PermissionError"),
        ("import socket\nsocket.socketpair()[0].bind('\\0name')", "PermissionError"),
        ("import socket\nsocket.socketpair(type=2)[0].sendto(b'', '\\0n')", "PermissionError"),
        ("import socket\nsocket.socketpair()[0].sendmsg([b''])", "PermissionError"),
        ("import os\nos.kill(-1, 9)", "PermissionError"),
        ("import os\nos.kill(2, 9)", "PermissionError"),
        ("import os\nos.killpg(2, 9)", "PermissionError"),
        ("import os\nos.sched_setaffinity(2, [0])", "PermissionError"),
        ("import os\nos.setpriority(os.PRIO_USER, os.getuid(), 19)", None),
        ("import resource as r\nr.prlimit(2, r.RLIMIT_CPU, (0, 0))", "PermissionError"),
        ("import resource as r\nr.setrlimit(r.RLIMIT_AS, (-1, -1))", "ValueError"),
        ("import fcntl\nfcntl.fcntl(1, 8, 1)", "PermissionError"),
        ("import fcntl\nfcntl.fcntl(1, fcntl.F_SETSIG, 9)", "PermissionError"),
        ("open('/etc/passwd')", None),
        ("open('/etc/hostname')", None),
        ("open('/sys/kernel/uevent_seqnum')", None),
        ("open('/proc/2/environ')", None),
        ("open('/proc/self/oom_score_adj', 'w').write('-1000')", None),
        ("open('/proc/sys/kernel/core_pattern', 'w')", None),
        ("import os\nos.chroot('/tmp')", "PermissionError"),
        ("import os\nos.setuid(1)", None),
        ("import os\nos.mknod('x', 0o60600, 0)", "PermissionError"),
        ("import os\nos.unlink(os.__file__)", None),
        ("import os\nopen(os.__file__, 'a')", None),
        ("import os\nos.chmod(os.__file__, 0o777)", None),
    ],
)
def test_what_is_not_a_programs_own_is_refused(
    program: str, error: str | None, kind: str, run: Run
) -> None:
    before = Path(os.__file__).stat()
    ended, reports = run(program, kind, limits=Limits(10, 256))
    assert (ended.how, ended.exit_code) == ("exit", 1), (ended, reports)
    allowed = {error} if error else {"PermissionError", "FileNotFoundError", "OSError"}
    assert reports[0]["type"] in allowed, reports
    assert Path(os.__file__).stat().st_mode == before.st_mode


@pytest.mark.parametrize(
    "program",
    [
        "import os\nos.kill(os.getppid(), 15)",
        "import os\nos.kill(1, 9)",
        "import os\nos.killpg(1, 9)",
        "import os\nos.sched_setaffinity(os.getppid(), [0])",
        "import resource as r\nr.prlimit(1, r.RLIMIT_CPU, (0, 0))",
        "open('/proc/1/environ')",
        "open('/proc/1/mem', 'rb')",
        "open('/proc/1/maps').read()",
        "import os\nos.listdir('/proc/1/fd')",
        "import os\nos.readlink('/proc/1/root')",
        "import os\nos.listdir('/proc/1/cwd/')",
        "import os\nopen(f'/proc/{os.getppid()}/mem', 'rb')",
        "import os\nopen(f'/proc/{os.getppid()}/fd/3', 'wb')",
    ],
)
def test_processes_that_are_seen_are_out_of_reach(
    program: str, landlock: str, run: Run
) -> None:  # in namespaces there are no others to see
    ended, reports = run(program, landlock, limits=Limits(10, 256))
    assert (ended.how, ended.exit_code) == ("exit", 1), (ended, reports)
    assert reports[0]["type"] in {"PermissionError", "FileNotFoundError"}, reports


def test_refused_system_calls_are_refused(kind: str, prints: Prints) -> None:
    machine = list(seccomp.ARCHITECTURES).index(os.uname().machine)
    tables = {**seccomp._REFUSED, **(seccomp._REFUSED_METADATA if kind == "landlock" else {})}
    numbers = {name: row[machine] for name, row in tables.items() if row[machine] is not None}
    program = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for name, number in {numbers!r}.items():
    ctypes.set_errno(0)
    if libc.syscall(number, 0, 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != 1:
        print(name, ctypes.get_errno())
for number in (435, 453, 470, 511):  # clone3, and what is newer than the filter
    libc.syscall(number, 0, 0, 0, 0, 0, 0)
    print(ctypes.get_errno())
"""
    assert prints(program, kind) == "38\n38\n38\n38\n"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="x86_64's second numbering")
def test_calls_in_another_numbering_are_refused(kind: str, prints: Prints) -> None:
    program = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
print(libc.syscall(0x40000000 + 57), ctypes.get_errno())
"""
    assert prints(program, kind) == "-1 1\n"


def test_a_program_has_no_rights_and_keeps_none(kind: str, prints: Prints) -> None:
    program = """
for line in open("/proc/self/status"):
    name, _, value = line.partition(":")
    if name in ("CapPrm", "CapEff", "CapInh", "CapAmb", "NoNewPrivs", "Seccomp"):
        print(name, int(value, 16))
"""
    words = ["CapInh 0", "CapPrm 0", "CapEff 0", "CapAmb 0", "NoNewPrivs 1", "Seccomp 2"]
    assert prints(program, kind).splitlines() == words


def test_a_program_sees_itself_alone_and_no_user_of_the_machine(
    bubblewrap: str, prints: Prints
) -> None:
    program = """
import os
print(sorted(name for name in os.listdir("/proc")))
print(os.getpid(), os.getppid(), os.getuid(), os.getgid(), os.uname().nodename)
print(open("/proc/self/uid_map").read().split())
"""
    seen = prints(program, bubblewrap).splitlines()
    assert seen[0] == "['1', 'self', 'thread-self']"
    assert seen[1] == "1 0 65534 65534 sandbox"
    assert seen[2].endswith("'1']")


def test_environment_and_descriptors_tell_nothing(
    kind: str, prints: Prints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY", "do-not-tell")
    program = """
import os
print(sorted(os.environ), b"do-not-tell" in open("/proc/self/environ", "rb").read())
print([n for n in range(1024) if os.path.exists(f"/proc/self/fd/{n}")])
"""
    seen = prints(program, kind).splitlines()
    names = set(ast.literal_eval(seen[0].rsplit(" ", 1)[0]))
    assert names <= {"HOME", "PYTHONHASHSEED", "PWD", "LC_CTYPE"}
    assert seen[0].endswith("False")
    assert seen[1] == "[0, 1, 2, 4]"  # and the report, which is about itself alone


def test_stdin_cannot_be_changed_nor_reach_another_program(kind: str, prints: Prints) -> None:
    program = """
import fcntl, mmap, os
tries = [lambda: os.write(0, b"x"), lambda: os.ftruncate(0, 0), lambda: os.ftruncate(0, 9),
         lambda: mmap.mmap(0, 3), lambda: fcntl.fcntl(0, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)]
for path in ("/proc/self/fd/0", "/dev/stdin"):
    tries += [lambda p=path: open(p, "r+b", buffering=0).write(b"x"), lambda p=path: open(p, "wb"),
              lambda p=path: os.truncate(p, 0)]
for n, attempt in enumerate(tries):
    try:
        attempt()
        print("it did", n)
    except OSError:
        pass
os.lseek(0, 2, 0)
fcntl.fcntl(0, fcntl.F_SETFL, os.O_APPEND)
appending = fcntl.fcntl(0, fcntl.F_GETFL) & os.O_APPEND > 0
print(appending, open("/proc/self/fd/0").read(), os.read(0, 9))
"""
    given = b"abc"
    assert prints(program, kind, stdin=given) == "True abc b'c'\n"
    look = "import fcntl, os\nprint(fcntl.fcntl(0, fcntl.F_GETFL) & os.O_APPEND, os.read(0, 9))"
    assert prints(look, kind, stdin=given) == "0 b'abc'\n"


def test_only_tmp_can_be_written_and_it_is_capped(bubblewrap: str, prints: Prints) -> None:
    program = """
import os
for path in ("/x", "/dev/x", "/usr/lib/x", "/proc/x", os.path.dirname(os.__file__) + "/x"):
    try:
        open(path, "w")
        print("wrote", path)
    except OSError:
        pass
for folder in ("/tmp", "/dev/shm"):
    written = files = 0
    try:
        for name in range(100):
            with open(f"{folder}/{name}", "wb", buffering=0) as file:
                written += file.write(bytes(2**21))
    except OSError:
        pass
    print(2**25 < written <= 2**26)
    for name in os.listdir(folder):
        os.remove(f"{folder}/{name}")
    try:
        for name in range(10**5):
            os.mkdir(f"{folder}/{name}")
            files += 1
    except OSError:
        print(files < 2**14)
"""
    assert prints(program, bubblewrap) == "True\nTrue\n" * 2


def test_under_landlock_a_program_writes_in_its_own_folder_alone(
    landlock: str, prints: Prints
) -> None:
    program = """
import os
for folder in ("/tmp", "/dev/shm", "/var/tmp", "/run", "/", os.path.dirname(os.__file__), ".."):
    try:
        open(f"{folder}/cuvee-test", "w")
        print("wrote", folder)
    except OSError:
        pass
with open("own", "w") as file:
    file.write("own")
print(open("own").read(), os.listdir("."))
os.remove("own")
"""
    assert prints(program, landlock) == "own ['own']\n"
    assert not Path("/tmp/cuvee-test").exists()


@pytest.mark.parametrize(
    "fill",
    [
        "open(str(n), 'wb').write(bytes(2**23))",
        "os.mkdir(str(n))",
        "os.close(os.open(str(n), os.O_CREAT | os.O_WRONLY))",
    ],
)
def test_under_landlock_a_full_folder_ends_the_program(fill: str, landlock: str, run: Run) -> None:
    program = f"import os, time\nfor n in range(6000):\n    {fill}\ntime.sleep(60)"
    ended, _ = run(program, landlock, limits=Limits(15, 256))
    assert ended.how == "output_limit", ended


def test_many_threads_are_stopped_by_a_limit(kind: str, run: Run) -> None:
    program = """
import _thread, threading, time
threading.stack_size(2**15)
for n in range(20_000):
    _thread.start_new_thread(time.sleep, (60,))
"""
    ended, reports = run(program, kind, limits=Limits(15, 256))
    assert ended.how == "exit", ended
    assert reports[0]["type"] in ("RuntimeError", "MemoryError"), reports


def test_two_programs_at_once_neither_see_nor_reach_each_other(kind: str, prints: Prints) -> None:
    program = """
import os, time
me = f"{os.getpid()} {time.monotonic_ns()}"
for folder in (".", "/dev/shm"):
    try:
        open(f"{folder}/name", "x").write(me)
    except PermissionError:
        pass
time.sleep(0.5)
print(sorted(os.listdir(".")), open("name").read() == me)
"""
    with ThreadPoolExecutor(4) as threads:
        seen = list(threads.map(lambda _: prints(program, kind), range(4)))
    assert seen == ["['name'] True\n"] * 4


def test_a_socket_of_the_machine_is_not_reached(kind: str, run: Run, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0cuvee-test-{os.getpid()}")
        server.listen()
        program = f"import socket\nsocket.socket(1).connect('\\0cuvee-test-{os.getpid()}')"
        _, reports = run(program, kind)
    assert reports[0]["type"] == "PermissionError"


def test_the_folder_of_this_user_is_hidden(bubblewrap: str, prints: Prints) -> None:
    home = Path.home()
    shown = Path(sys.base_prefix)  # the interpreter may stand in it; its other files are hidden
    allowed = [shown.relative_to(home).parts[0]] if shown.is_relative_to(home) else []
    program = f"import os\np = {str(home)!r}\nprint(os.listdir(p) if os.path.exists(p) else [])"
    assert prints(program, bubblewrap) == f"{allowed}\n"
    program = f"import os\nprint(os.path.exists({__file__!r}))"
    assert prints(program, bubblewrap) == "False\n"
