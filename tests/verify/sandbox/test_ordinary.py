"""Honest programs behave in a sandbox as at a judge: real pipes, a real process, a real end."""

import socket
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from cuvee.verify import sandbox
from cuvee.verify.sandbox import Limits

Run = Callable[..., Any]
Prints = Callable[..., str]

READERS = [
    "import sys\nprint(sum(map(int, sys.stdin.read().split())))",
    "import sys\nprint(sum(int(line) for line in sys.stdin))",
    "import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))",
    "print(sum(map(int, open(0).read().split())))",
    "print(sum(map(int, open(0, 'rb').read().split())))",
    "print(sum(map(int, open('/dev/stdin').read().split())))",
    "print(sum(map(int, open('/proc/self/fd/0').read().split())))",
    "import os\nprint(sum(map(int, os.read(0, 999).split())))",
    "import os\nprint(sum(map(int, os.read(0, os.fstat(0).st_size).split())))",
    "import os, sys\nprint(sum(map(int, os.read(sys.stdin.fileno(), 999).split())))",
    "import os\nprint(sum(int(os.read(0, 1) + os.read(0, 1)) for _ in range(3)))",
    "import mmap\nprint(sum(map(int, mmap.mmap(0, 0, prot=mmap.PROT_READ)[:].split())))",
    "import select\nprint(6 * len(select.select([0], [], [], 9)[0]))",
    "import sys\nsys.stdin.read()\nsys.stdin.seek(0)\nprint(sum(map(int, sys.stdin)))",
    "input()\nimport sys\nprint(1 + sum(map(int, sys.stdin)))",
    "n = 0\ntry:\n    while 1: n += int(input())\nexcept EOFError: print(n)",
    "import os\nprint(sum(map(int, os.fdopen(0).read().split())))",
    "import fileinput\nprint(sum(int(line) for line in fileinput.input()))",
    "print(sum(int(input()) for _ in range(3)))",
    "import io, os, sys\nsys.stdin = io.StringIO(os.read(0, 99).decode())\nprint(6 * len(input()))",
]


@pytest.mark.parametrize("program", READERS)
def test_every_way_to_read_stdin(program: str, kind: str, prints: Prints) -> None:
    assert prints(program, kind, stdin=b"1\n2\n3\n") == "6\n"


ENDS = [
    ("pass", 0, b""),
    ("import sys\nsys.exit()", 0, b""),
    ("import sys\nsys.exit(3)", 3, b""),
    ("import sys\nsys.exit(-1)", 255, b""),
    ("import sys\nsys.exit(256)", 0, b""),
    ("import sys\nsys.exit(2**70)", 255, b""),
    ("import sys\nsys.exit('said')", 1, b""),
    ("raise SystemExit([1])", 1, b""),
    ("exit()", 0, b""),
    ("quit(4)", 4, b""),
    ("import os\nprint('lost')\nos._exit(7)", 7, b""),
    ("import os\nprint('kept', flush=True)\nos._exit(0)", 0, b"kept\n"),
    ("import ctypes\nctypes.string_at(0)", 139, b""),
    ("import atexit\natexit.register(print, 'bye')\nprint('hi')", 0, b"hi\nbye\n"),
    ("import threading as t\nt.Timer(0.1, print, ['late']).start()\nprint('on')", 0, b"on\nlate\n"),
    ("import threading as t\nt.Thread(target=print, args=['in']).start()", 0, b"in\n"),
    ("import _thread, time\n_thread.start_new_thread(time.sleep, (60,))\nprint(1)", 0, b"1\n"),
    ("class A:\n    def __del__(self): print('del')\na = A()\nprint('end')", 0, b"end\ndel\n"),
    ("class A:\n    def __del__(self): print('del')\na = A()\na.a = a", 0, b"del\n"),
    ("out = open(1, 'w', closefd=False)\nout.write('x')", 0, b"x"),
    ("import sys\nsys.stdout.buffer.write(b'\\xff')", 0, b"\xff"),
    ("import os, sys\nsys.stdout.write('b')\nos.write(1, b'a')", 0, b"ab"),
    ("import sys, io\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer)\nprint(1)", 0, b"1\n"),
    ("import sys, os\nprint(1)\nos.close(1)", 120, b""),
    ("import sys\nsys.stdout.close()", 0, b""),
    ("import sys\nsys.stdout = None\nprint(1)", 0, b""),
    ("try:\n    print(1)\nfinally:\n    import sys\n    sys.exit(5)", 5, b"1\n"),
    ("import gc\ngc.disable()\nprint('\\u00e9\\u4e2d')", 0, "\u00e9\u4e2d\n".encode()),
]


@pytest.mark.parametrize(("program", "code", "printed"), ENDS)
def test_a_program_ends_as_under_python(
    program: str, code: int, printed: bytes, bubblewrap: str, run: Run
) -> None:
    ended, _ = run(program, bubblewrap)
    assert (ended.how, ended.exit_code, ended.stdout) == ("exit", code, printed)
    command = [sys.executable, "-X", "utf8", "-c", program]
    real = subprocess.run(
        command, capture_output=True, check=False, stdin=subprocess.DEVNULL, env={}, cwd="/tmp"
    )
    real_code = real.returncode if real.returncode >= 0 else 128 - real.returncode
    assert (real_code, real.stdout) == (code, printed), "and so does the interpreter alone"


@pytest.mark.parametrize(
    ("program", "code", "alone"),
    [
        ("import os\nos.kill(os.getpid(), 9)", 137, 0),
        ("import os\nos.abort()", 134, 139),
        ("import signal\nsignal.raise_signal(15)", 143, 0),
    ],
)
def test_a_signal_to_itself_ends_a_program_unless_it_is_process_1(
    program: str, code: int, alone: int, kind: str, run: Run
) -> None:
    ended, _ = run(program, kind)
    assert (ended.how, ended.exit_code) == ("exit", alone if kind == "bubblewrap" else code)


def test_messages_of_an_end_reach_stderr(kind: str, run: Run) -> None:
    ended, _ = run("import sys\nsys.exit('said so')", kind)
    assert (ended.exit_code, ended.stderr) == (1, "said so\n")


def test_stdin_is_a_file_and_the_outputs_are_pipes(kind: str, prints: Prints) -> None:
    program = """
import os, stat, sys
modes = [os.fstat(n).st_mode for n in range(3)]
print(stat.S_ISREG(modes[0]), stat.S_ISFIFO(modes[1]), stat.S_ISFIFO(modes[2]))
print(sys.stdin.isatty(), sys.stdin.seekable(), sys.stdin.encoding, sys.stdout.line_buffering)
print(sys.stdin.tell(), os.lseek(0, 0, os.SEEK_CUR), os.fstat(0).st_size)
print(repr(input()))
try:
    input()
except EOFError:
    print("EOFError")
"""
    assert prints(program, kind, stdin=b"abc") == (
        "True True True\nFalse True utf-8 False\n0 0 3\n'abc'\nEOFError\n"
    )


def test_an_empty_stdin_is_at_its_end(kind: str, prints: Prints) -> None:
    program = "import os, sys\nprint(sys.stdin.read() == '', os.read(0, 9), os.fstat(0).st_size)"
    assert prints(program, kind) == "True b'' 0\n"


def test_large_stdin_and_stdout_pass_without_deadlock(kind: str, prints: Prints) -> None:
    given = b"0123456789abcde\n" * (5 * 2**16)  # 5 MiB, more than any pipe holds
    assert prints("import sys\nfor x in sys.stdin: print(x, end='')", kind, stdin=given) == (
        given.decode()
    )
    assert prints("print('x' * 5_000_000)", kind, stdin=given) == "x" * 5_000_000 + "\n"
    assert prints("import os\nos.close(0)\nprint(1)", kind, stdin=given) == "1\n"


def test_stdin_may_be_larger_than_any_file_of_the_program(kind: str, prints: Prints) -> None:
    given = bytes(80 * 2**20)
    program = "import os\nprint(len(os.read(0, os.fstat(0).st_size)))"
    tracemalloc.start()
    try:
        assert prints(program, kind, stdin=given) == f"{len(given)}\n"
        assert tracemalloc.get_traced_memory()[1] < 2**20  # the kernel's is the only copy
    finally:
        tracemalloc.stop()


def test_the_limit_of_output_is_the_callers(kind: str, run: Run) -> None:
    program = "print('x' * 10_000_000)"
    assert run(program, kind)[0].how == "output_limit"
    ended, _ = run(program, kind, limits=Limits(10, 256, output_bytes=2**24))
    assert (ended.how, len(ended.stdout)) == ("exit", 10_000_001)


def test_what_judges_allow(kind: str, prints: Prints) -> None:
    program = """
import asyncio, sys, tempfile, threading, time
sys.setrecursionlimit(10**6)
threading.stack_size(2**26)
def depth(n): return 0 if n == 0 else 1 + depth(n - 1)
thread = threading.Thread(target=lambda: print(depth(50_000)))
thread.start()
thread.join()
print(asyncio.run(asyncio.sleep(0, "slept")))
with tempfile.NamedTemporaryFile("w+") as file:
    file.write("file")
    file.seek(0)
    print(file.read())
print(sys.argv, __name__, time.time() > 10**9)
"""
    assert prints(program, kind) == "50000\nslept\nfile\n['main.py'] __main__ True\n"


def test_nothing_of_ours_can_be_imported(kind: str, run: Run) -> None:
    _, reports = run("import cuvee", kind)
    assert reports[0]["type"] == "ModuleNotFoundError"


def test_a_peer_is_passed_beside_the_job(kind: str) -> None:
    ours, theirs = socket.socketpair()
    job = {"kind": "candidate", "program": "def double(x): return 2 * x", "names": ["double"]}
    limits = Limits(10, 256)

    def serve() -> None:
        sandbox.run(
            job, stdin=b"", kind=kind, limits=limits, on_report=lambda _: True, peer=theirs.fileno()
        )
        theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    with ours, ours.makefile("rb") as file:
        assert file.readline().startswith(b"{")
        ours.shutdown(socket.SHUT_RDWR)
    thread.join(20)
    assert not thread.is_alive()
