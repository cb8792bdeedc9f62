"""Programs whose function is called with lists of arguments."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from cuvee.verify.judgement import Judgement

Judge = Callable[..., Judgement]


def function(*cases: tuple[list[Any], Any], name: str = "f", **more: Any) -> dict[str, Any]:
    listed = [{"args": args, "expected": expected} for args, expected in cases]
    return {"kind": "function", "fn_name": name, "cases": listed, **more}


ADD = function(([1, 2], 3), ([-1, 1], 0))


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
def test_a_function_is_judged_by_what_it_returns(
    judge: Judge, program: str, verdict: str, reason: str
) -> None:
    judgement = judge(program, ADD)
    assert (judgement.verdict, judgement.reason) == (verdict, reason), judgement
    assert judgement.extracted == program
    assert judgement.checker == "bubblewrap"


@pytest.mark.sandbox
def test_the_failing_case_is_named(judge: Judge) -> None:
    judgement = judge("def f(a, b):\n    return abs(a) + abs(b)", ADD)
    assert judgement.detail == "case 2 of 2, input '[-1, 1]': got '2'"


@pytest.mark.sandbox
def test_the_time_is_counted_for_each_case(judge: Judge) -> None:
    program = "import time\ndef f(a):\n    time.sleep(0.8)\n    return a"
    tests = function(*(([i], i) for i in range(3)))
    assert judge(program, tests).reason == "passed"  # 2.4 s in all, 2 s allowed for each


@pytest.mark.sandbox
def test_a_solution_is_made_afresh_for_each_case_and_finds_the_usual_names(judge: Judge) -> None:
    program = """
class Solution:
    def __init__(self):
        self.seen = defaultdict(int)
    def f(self, items: List[int], head: Optional[int] = None) -> int:
        for item in items:
            self.seen[item] += 1
        return max(self.seen.values()) + int(math.inf == inf) + len(Counter(items)) - 1
"""
    tests = function(([[1, 1, 2]], 4), ([[1, 1, 2]], 4))
    assert judge(program, tests).reason == "passed"
    assert judge("def f(a, b):\n    return math.floor(a + b)", ADD).reason == "runtime_error"


@pytest.mark.sandbox
def test_tolerance_is_that_of_the_tests(judge: Judge) -> None:
    program = "def f(a):\n    return a + 0.001"
    assert judge(program, function(([1.0], 1.0))).reason == "wrong_output"
    assert judge(program, function(([1.0], 1.0), tolerance=0.01)).reason == "passed"
    assert judge(program, function(([1.0], 1.001), tolerance=0)).reason == "passed"
    assert judge("def f(a):\n    return 3.0001", function(([1.0], 3), tolerance=0.01)).verdict == (
        "wrong"
    )  # an integer is expected


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("program", "verdict", "reason"),
    [
        ("import numpy as np\ndef f(a, b):\n    return a + b", "not_checked", "missing_module"),
        ("def f(a, b):\n    import scipy.stats\n    return a", "not_checked", "missing_module"),
        ("try: import numpy\nexcept ImportError: f = lambda a, b: a + b", "correct", "passed"),
        ("raise ModuleNotFoundError(name='numpy')", "wrong", "runtime_error"),
        ("import helpers_of_mine", "wrong", "runtime_error"),
        ("import collections.nothing", "wrong", "runtime_error"),
    ],
)  # fmt: skip
def test_a_program_that_needs_a_known_package_is_not_checked(
    judge: Judge, program: str, verdict: str, reason: str
) -> None:
    judgement = judge(program, ADD)
    assert (judgement.verdict, judgement.reason) == (verdict, reason), judgement


@pytest.mark.sandbox
def test_the_reference_program_says_what_is_expected(judge: Judge) -> None:
    tests = {
        "kind": "reference",
        "fn_name": "f",
        "program": "def f(x):\n    return {k: tuple(v) for k, v in x}, 0.1 + 0.2",
        "cases": [[[[1, [2]]]], [[[{"tuple": [1, 2]}, []]]]],
    }
    assert judge(tests["program"], tests).reason == "passed"
    close = "def f(x):\n    return {k: tuple(v) for k, v in x}, 0.3"
    assert judge(close, tests).reason == "passed"
    listed = "def f(x):\n    return {k: list(v) for k, v in x}, 0.3"
    assert judge(listed, tests).reason == "wrong_output"
    as_list = "def f(x):\n    return [{k: tuple(v) for k, v in x}, 0.3]"
    assert judge(as_list, tests).reason == "wrong_output"


@pytest.mark.sandbox
def test_a_reference_program_that_fails_is_our_fault_and_one_too_large_case_is_left_out(
    judge: Judge,
) -> None:
    tests = {"kind": "reference", "fn_name": "f", "program": "def f(x):\n    return 1 // x"}
    judgement = judge("def f(x):\n    return 1", tests | {"cases": [[1], [0]]})
    assert (judgement.verdict, judgement.reason) == ("not_checked", "broken_tests")
    tests["program"] = "def f(x):\n    return [0] * 10**x"
    judgement = judge(tests["program"], tests | {"cases": [[1], [10], [2]]})
    assert judgement.reason == "passed"
    assert judgement.detail == "case 2 of 3 left out: too much for the reference"


def test_without_a_sandbox_the_same_verdicts_say_so(judge: Judge) -> None:
    good, endless = "def f(a, b):\n    return a + b", "def f(a, b):\n    while True: pass"
    large = "def f(a, b):\n    return [0] * 10**10"
    judged = [judge(program, ADD, kind="none", seconds=1) for program in (good, endless, large)]
    assert [j.reason for j in judged] == ["passed", "time_limit", "memory_limit"]
    assert {j.checker for j in judged} == {"none"}


@pytest.mark.sandbox
def test_numbers_chosen_to_collide_cost_their_own_row_only(judge: Judge) -> None:
    program = "def f():\n    return {i * (2**61 - 1) for i in range(1, 20_000)}"
    begin = time.monotonic()
    judgement = judge(program, {"kind": "assert", "code": "assert f() == {1}"})
    assert judgement.verdict == "wrong"
    assert time.monotonic() - begin < 10
