"""Whole programs over stdin and stdout, and checkers of their output."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from cuvee.verify.judgement import Judgement

Judge = Callable[..., Judgement]

pytestmark = pytest.mark.sandbox


def stdin(*cases: tuple[str, str], **more: Any) -> dict[str, Any]:
    listed = [{"input": given, "output": wanted} for given, wanted in cases]
    return {"kind": "stdin", "cases": listed, **more}


SUM = stdin(("3\n1 2 3\n", "6\n"), ("1\n5\n", "5"))

RIGHT = {
    "input": "input()\nprint(sum(map(int, input().split())))",
    "input until its end": (
        "lines = []\ntry:\n    while True: lines.append(input())\nexcept EOFError: pass\n"
        "print(sum(map(int, lines[1].split())))"
    ),
    "stdin.read": "import sys\nd = sys.stdin.read().split()\nprint(sum(map(int, d[1:])))",
    "stdin.readline": (
        "import sys\nsys.stdin.readline()\nprint(sum(map(int, sys.stdin.readline().split())))"
    ),
    "buffer.readline": (
        "import sys\nr = sys.stdin.buffer.readline\nr()\nprint(sum(map(int, r().split())))"
    ),
    "buffer.readlines": (
        "import sys\nx = sys.stdin.buffer.readlines()\nprint(sum(map(int, x[1].split())))"
    ),
    "for line": (
        "import sys\nt = 0\nfor i, line in enumerate(sys.stdin):\n"
        "    t += sum(map(int, line.split())) if i else 0\nprint(t)"
    ),
    "readline then read": (
        "import sys\nsys.stdin.readline()\nprint(sum(map(int, sys.stdin.read().split())))"
    ),
    "open(0)": "x = open(0).read().split()\nprint(sum(map(int, x[1:])))",
    "/dev/stdin": "x = open('/dev/stdin').read().split()\nprint(sum(map(int, x[1:])))",
    "os.read": "import os\nx = os.read(0, 10**6).split()\nprint(sum(map(int, x[1:])))",
    "stdout.buffer": (
        "import sys\nx = sys.stdin.read().split()\n"
        "sys.stdout.buffer.write(str(sum(map(int, x[1:]))).encode())"
    ),
    "os.write": (
        "import os, sys\nx = sys.stdin.read().split()\n"
        "os.write(1, str(sum(map(int, x[1:]))).encode())"
    ),
    "os._exit after a flush": (
        "import os, sys\nx = sys.stdin.read().split()\nprint(sum(map(int, x[1:])))\n"
        "sys.stdout.flush()\nos._exit(0)"
    ),
    "sys.exit(0)": (
        "import sys\nx = sys.stdin.read().split()\nprint(sum(map(int, x[1:])))\nsys.exit(0)"
    ),
    "main guard and exit()": (
        "def main():\n    input()\n    print(sum(map(int, input().split())))\n"
        "if __name__ == '__main__':\n    main()\n    exit()"
    ),
    "fileinput": (
        "import fileinput\nx = [l for l in fileinput.input()]\nprint(sum(map(int, x[1].split())))"
    ),
    "thread with a large stack": (
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(2**26)\n"
        "def deep(n):\n    return 0 if n == 0 else deep(n - 1)\n"
        "def main():\n    deep(20_000)\n    input()\n    print(sum(map(int, input().split())))\n"
        "t = threading.Thread(target=main)\nt.start()\nt.join()"
    ),
    "a thread that outlives the main one": (
        "import threading, time\n"
        "def main():\n    time.sleep(0.2)\n    input()\n    print(sum(map(int, input().split())))\n"
        "threading.Thread(target=main).start()"
    ),
    "atexit": (
        "import atexit\nn = input()\nx = input()\n"
        "atexit.register(lambda: print(sum(map(int, x.split()))))"
    ),
    "a class that is pickled by name": (
        "import pickle\nclass A: ...\npickle.loads(pickle.dumps(A()))\n"
        "input()\nprint(sum(map(int, input().split())))"
    ),
    "dataclass with annotations": (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass A:\n    x: int\n"
        "input()\nprint(A(sum(map(int, input().split()))).x)"
    ),
    "trailing blanks": "input()\nprint(sum(map(int, input().split())), ' ')\nprint()",
}


@pytest.mark.parametrize("name", RIGHT)
def test_every_way_to_read_and_write_is_right(judge: Judge, name: str) -> None:
    judgement = judge(RIGHT[name], SUM)
    assert (judgement.verdict, judgement.reason) == ("correct", "passed"), judgement


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("print(6)", "wrong_output"),
        ("input()\nprint(*input().split(), sep='\\n')", "wrong_output"),
        ("import sys\nprint(6)\nsys.exit(1)", "runtime_error"),
        ("import sys\nprint(6)\nsys.exit('failed')", "runtime_error"),
        ("import os\nprint(6)\nos._exit(0)", "wrong_output"),  # never flushed
        ("print(6)\n1 / 0", "runtime_error"),
        ("while True: input()", "runtime_error"),
        ("def f(:", "syntax_error"),
        ("import time\ntime.sleep(60)", "time_limit"),
        ("while True: print('x' * 1000)", "output_limit"),
        ("x = 'x' * 10**10", "memory_limit"),
    ],
)
def test_what_a_judge_refuses_is_wrong(judge: Judge, program: str, reason: str) -> None:
    judgement = judge(program, SUM)
    assert (judgement.verdict, judgement.reason) == ("wrong", reason), judgement


def test_long_inputs_and_outputs_pass_whole(judge: Judge) -> None:
    numbers = "\n".join(map(str, range(300_000)))
    program = "import sys\nfor line in sys.stdin: print(line, end='')"
    assert judge(program, stdin((numbers, numbers)), seconds=10).reason == "passed"


def test_lines_in_another_order_are_wrong(judge: Judge) -> None:
    tests = stdin(("", "1\n2\n3\n"))
    assert judge("print(1, 2, 3, sep='\\n')", tests).reason == "passed"
    assert judge("print(3, 2, 1, sep='\\n')", tests).reason == "wrong_output"


def test_each_input_has_a_process_of_its_own(judge: Judge) -> None:
    program = """
import builtins, os
count = getattr(builtins, "count", 0) + len(os.listdir("/tmp"))
builtins.count = count + 1
open("/tmp/left", "w").write("here")
print(count)
"""
    assert judge(program, stdin(("", "0"), ("", "0"), ("", "0"))).reason == "passed"


CHECKER = """
import sys
given, expected, output = (open(name).read() for name in sys.argv[1:])
a, b = map(int, output.split())
print("1" if a + b == int(given) and a >= 0 <= b else "0")
"""


@pytest.mark.parametrize(
    ("program", "verdict", "reason"),
    [
        ("n = int(input())\nprint(n, 0)", "correct", "passed"),
        ("n = int(input())\nprint(1, n - 1)", "correct", "passed"),
        ("n = int(input())\nprint(n + 1, -1)", "wrong", "wrong_output"),
        ("print('no numbers')", "wrong", "wrong_output"),
        ("print()", "wrong", "wrong_output"),
        ("import sys\nsys.exit(3)", "wrong", "runtime_error"),
    ],
)
def test_a_checker_judges_where_several_outputs_are_right(
    judge: Judge, program: str, verdict: str, reason: str
) -> None:
    judgement = judge(program, stdin(("7", "3 4"), ("2", "1 1"), checker=CHECKER))
    assert (judgement.verdict, judgement.reason) == (verdict, reason), judgement


@pytest.mark.parametrize(
    ("checker", "verdict"),
    [
        ("", "correct"),  # ends with exit code 0 and says nothing
        ("print('ok')", "correct"),
        ("print('wrong answer')", "wrong"),
        ("import sys\nsys.exit(1)", "wrong"),
        ("1 / 0", "not_checked"),
        ("while True: pass", "not_checked"),
        ("def (", "not_checked"),
    ],
)
def test_a_checker_speaks_by_exit_code_and_first_word(
    judge: Judge, checker: str, verdict: str
) -> None:
    assert judge("print(1)", stdin(("", "1"), checker=checker), seconds=1).verdict == verdict


def test_a_background_process_does_not_hold_up_its_program(judge: Judge) -> None:
    program = "import subprocess\nsubprocess.Popen(['sleep', '30'])\n" + RIGHT["input"]
    begin = time.monotonic()
    assert judge(program, SUM, kind="none").reason == "passed"
    assert time.monotonic() - begin < 10


def test_an_imported_third_party_package_is_not_checked(judge: Judge) -> None:
    judgement = judge("import numpy as np\nprint(np.sum([6]))", SUM)
    assert (judgement.verdict, judgement.reason) == ("not_checked", "missing_module")
