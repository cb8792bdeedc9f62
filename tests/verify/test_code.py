import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest

from cuvee.recipe import Verify
from cuvee.verify.code import check_code, check_program
from cuvee.verify.judgement import Judgement
from cuvee.verify.outputs import same_text, same_value

LIMITS = Verify(code_seconds=2, memory_mb=256, processes=2)


def judge(program: str, tests: dict[str, Any] | str, *, kind: str = "bubblewrap") -> Judgement:
    text = tests if isinstance(tests, str) else json.dumps(tests)
    return check_program(program, text, limits=LIMITS, sandbox_kind=kind)


def function(*cases: tuple[list[Any], Any], name: str = "f") -> dict[str, Any]:
    listed = [{"args": args, "expected": expected} for args, expected in cases]
    return {"kind": "function", "fn_name": name, "cases": listed}


ADD = function(([1, 2], 3), ([-1, 1], 0))
SUM_OF_INPUT = {
    "kind": "stdin",
    "cases": [{"input": "3\n1 2 3\n", "output": "6\n"}, {"input": "1\n5\n", "output": "5"}],
}

READERS = {
    "input": "input()\nprint(sum(map(int, input().split())))",
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
    "main guard and exit()": (
        "def main():\n    input()\n    print(sum(map(int, input().split())))\n"
        "if __name__ == '__main__':\n    main()\n    exit()"
    ),
    "fileinput": (
        "import fileinput\nx = [l for l in fileinput.input()]\nprint(sum(map(int, x[1].split())))"
    ),
    "thread with a large stack": (
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(2**26)\n"
        "def main():\n    input()\n    print(sum(map(int, input().split())))\n"
        "t = threading.Thread(target=main)\nt.start()\nt.join()"
    ),
}


@pytest.mark.sandbox
@pytest.mark.parametrize("name", READERS)
def test_every_way_to_read_input_is_right(name: str) -> None:
    judgement = judge(READERS[name], SUM_OF_INPUT)
    assert (judgement.verdict, judgement.reason) == ("correct", "passed"), judgement


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("program", "verdict", "reason"),
    [
        ("def f(a, b):\n    return a + b", "correct", "passed"),
        ("class Solution:\n    def f(self, a, b):\n        return a + b", "correct", "passed"),
        ('def f(a, b):\n    print(\'{"event": "result"}\')\n    return a + b', "correct", "passed"),
        ("f = lambda a, b: a + b\nif __name__ == '__main__':\n    input()", "correct", "passed"),
        ("def f(a, b):\n    return abs(a) + abs(b)", "wrong", "wrong_output"),
        ("def f(a, b):\n    return str(a + b)", "wrong", "wrong_output"),
        ("def f(a, b):\n    return {a + b}", "wrong", "wrong_output"),
        ("def f(a, b):\n    return f", "wrong", "wrong_output"),
        ("def g(a, b):\n    return a + b", "wrong", "missing_function"),
        ("f = 3", "wrong", "missing_function"),
        ("def f(a, b):\n    return a / 0", "wrong", "runtime_error"),
        ("def f(a):\n    return a", "wrong", "runtime_error"),
        ("def f(a, b):\n    raise SystemExit(0)", "wrong", "runtime_error"),
        ("import os\ndef f(a, b):\n    os._exit(0)", "wrong", "runtime_error"),
        ("import numpy_that_is_not_there\ndef f(a, b): ...", "wrong", "runtime_error"),
        ("def f(a, b):\n    while True: pass", "wrong", "time_limit"),
        ("while True: pass", "wrong", "time_limit"),
        ("def f(a, b):\n    while True: print('x' * 1000)", "wrong", "output_limit"),
        ("def f(a, b):\n    return 'x' * 10**7", "wrong", "output_limit"),
        ("x = []\ndef f(a, b):\n    while True: x.append('x' * 10**6)", "wrong", "memory_limit"),
        ("def f(a, b:", "wrong", "syntax_error"),
        ("def f(a, b):\n    x = []\n    x.append(x)\n    return x", "wrong", "wrong_output"),
    ],
)
def test_a_function_is_judged_by_what_it_returns(program: str, verdict: str, reason: str) -> None:
    judgement = judge(program, ADD)
    assert (judgement.verdict, judgement.reason) == (verdict, reason), judgement
    assert judgement.extracted == program
    assert judgement.checker == "bubblewrap"


@pytest.mark.sandbox
def test_the_failing_case_is_named() -> None:
    judgement = judge("def f(a, b):\n    return abs(a) + abs(b)", ADD)
    assert judgement.detail == "case 2 of 2, input '[-1, 1]': got '2'"


@pytest.mark.sandbox
def test_the_time_is_counted_for_each_case() -> None:
    program = "import time\ndef f(a):\n    time.sleep(0.8)\n    return a"
    tests = function(*(([i], i) for i in range(3)))
    assert judge(program, tests).reason == "passed"  # 2.4 s in all, 2 s allowed for each


FRAMES = """
import gc, sys
def f(a, b):
    found = []
    frame = sys._getframe()
    while frame:
        found += [*frame.f_locals.values(), *frame.f_globals.values()]
        frame = frame.f_back
    found += gc.get_objects()
    return next((v for v in map(repr, found) if "".join(["424", "242"]) in v), "not found")
"""


@pytest.mark.sandbox
def test_expected_outputs_cannot_be_found_inside() -> None:
    judgement = judge(FRAMES, function(([1, 2], 424242)))
    assert judgement.detail == "case 1 of 1, input '[1, 2]': got 'not found'"


FORGER = """
import json, os, sys
def f(a, b):
    for fd in range(3, 20):
        for event in ({"event": "end"}, {"event": "passed"}, {"event": "result", "value": None}):
            try:
                os.write(fd, json.dumps(event).encode() + b"\\n")
            except OSError:
                pass
    os._exit(0)
"""


@pytest.mark.sandbox
def test_forged_reports_do_not_pass() -> None:
    assert judge(FORGER, ADD).verdict == "wrong"
    assert judge(FORGER + "\nf(1, 2)", SUM_OF_INPUT).verdict == "wrong"


@pytest.mark.sandbox
def test_reports_without_end_do_not_buy_time() -> None:
    program = """
import os
while True:
    for fd in range(3, 20):
        try:
            os.write(fd, b'{"event": "ready"}\\n')
        except OSError:
            pass
"""
    begin = time.monotonic()
    judgement = judge(program, ADD)
    assert judgement.reason in ("time_limit", "output_limit")
    assert time.monotonic() - begin < 4 * LIMITS.code_seconds


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("asserts", "verdict", "reason"),
    [
        ("assert f(1) == 2\nassert f(2) == 3", "correct", "passed"),
        ("def check(candidate):\n    assert candidate(1) == 2\ncheck(f)", "correct", "passed"),
        ("assert f(1) == 1, 'one'", "wrong", "wrong_output"),
        ("assert g(1) == 1", "wrong", "runtime_error"),
        ("assert (", "not_checked", "malformed_tests"),
    ],
)
def test_asserts_run_beside_the_program_and_say_so(asserts: str, verdict: str, reason: str) -> None:
    judgement = judge("def f(a):\n    return a + 1", {"kind": "assert", "code": asserts})
    assert (judgement.verdict, judgement.reason) == (verdict, reason), judgement
    assert judgement.checker == "bubblewrap forgeable"


@pytest.mark.sandbox
def test_leaving_before_the_asserts_is_not_passing() -> None:
    judgement = judge("import os\nos._exit(0)", {"kind": "assert", "code": "assert False"})
    assert judgement.reason == "runtime_error"


@pytest.mark.parametrize(
    "tests",
    [
        "not json",
        "[]",
        "{}",
        '{"kind": "other", "cases": [1]}',
        '{"kind": "function", "fn_name": "f", "cases": []}',
        '{"kind": "function", "fn_name": "f", "cases": [{"args": 1, "expected": 2}]}',
        '{"kind": "stdin", "cases": [{"input": 3, "output": "3"}]}',
        '{"kind": "assert"}',
        "[" * 100_000,
    ],
)
def test_malformed_tests_are_no_fault_of_the_program(tests: str) -> None:
    judgement = judge("pass", tests, kind="none")
    assert (judgement.verdict, judgement.reason) == ("not_checked", "malformed_tests")


def test_without_a_sandbox_the_same_verdicts_say_so() -> None:
    good, endless = "def f(a, b):\n    return a + b", "def f(a, b):\n    while True: pass"
    large = "def f(a, b):\n    return [0] * 10**10"
    judged = [judge(program, ADD, kind="none") for program in (good, endless, large)]
    assert [j.reason for j in judged] == ["passed", "time_limit", "memory_limit"]
    assert {j.checker for j in judged} == {"none"}
    assert judge(READERS["open(0)"], SUM_OF_INPUT, kind="none").reason == "passed"


def test_a_background_process_does_not_hold_up_its_program() -> None:
    program = "import subprocess\nsubprocess.Popen(['sleep', '30'])\n" + READERS["input"]
    begin = time.monotonic()
    assert judge(program, SUM_OF_INPUT, kind="none").reason == "passed"
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize(
    ("got", "expected", "same"),
    [
        (1, 1, True),
        (1, 1.0, True),
        (1.0, 1, True),
        (True, 1, False),
        (1, True, False),
        (True, True, True),
        (0.1 + 0.2, 0.3, True),
        (0.3001, 0.3, False),
        (3.0000001, 3, False),
        ("1", 1, False),
        ([1, [2]], [1, [2]], True),
        ([1], [1, 2], False),
        ({"a": 1.0}, {"a": 1}, True),
        ({"a": 1}, {"b": 1}, False),
        (None, None, True),
        (None, 0, False),
        (10**400, 1.5, False),
        (float("nan"), float("nan"), True),
        (float("inf"), float("inf"), True),
    ],
)
def test_values_are_compared_as_json_holds_them(got: Any, expected: Any, *, same: bool) -> None:
    assert same_value(got, expected) is same


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        ("6\n", "6", True),
        ("1 2 \n3\n\n", "1 2\n3", True),
        ("1  2", "1 2", True),
        ("1\n2", "1 2", False),
        ("0.33333333", "0.333333333333", True),
        ("0.33", "0.333333333333", False),
        ("6.0", "6", False),
        ("yes", "YES", False),
        ("", "6", False),
        ("hello", "hexlo", False),
    ],
)
def test_printed_text_is_compared_word_by_word(printed: str, expected: str, *, same: bool) -> None:
    assert same_text(printed, expected) is same


@pytest.mark.sandbox
def test_published_reference_programs_pass_and_mutants_do_not(data: Path) -> None:
    with gzip.open(data / "humaneval" / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for _, line in zip(range(20), file, strict=False)]
    right, wrong = [], []
    for row in rows:
        asserts = f"{row['test']}\ncheck({row['entry_point']})"
        tests = json.dumps({"kind": "assert", "code": asserts})
        right.append((row["prompt"] + row["canonical_solution"], tests))
        wrong.append((row["prompt"] + "    return 'no'\n", tests))
    judged = check_code(
        right + wrong, limits=LIMITS, sandbox_kind="bubblewrap", tick=lambda _: None
    )
    assert {j.reason for j in judged[: len(right)]} == {"passed"}
    assert {j.verdict for j in judged[len(right) :]} == {"wrong"}
