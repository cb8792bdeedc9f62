"""Assertion tests: how they are planned from their source, and run apart from the program."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cuvee.errors import VerifierError
from cuvee.verify.code import published
from cuvee.verify.code.asserts import Assertion, plan_asserts
from cuvee.verify.code.forms import parse_tests
from cuvee.verify.judgement import Judgement

Judge = Callable[..., Judgement]


def asserts(code: str) -> dict[str, Any]:
    return {"kind": "assert", "code": code}


APART = "xs = [1, 2]\n"
"""Makes tests more than literal calls, so that they run in a process of their own."""


@pytest.mark.parametrize(
    ("code", "cases"),
    [
        ("assert f(1, [2]) == (3,)", [Assertion([1, [2]], "equal", (3,))]),
        ("assert f(-1) == 2j, 'why'", [Assertion([-1], "equal", 2j)]),
        ("assert f(1)\nassert not f(2)", [Assertion([1], "true"), Assertion([2], "false")]),
        ("assert f() is None", [Assertion([], "is", None)]),
        ("assert sum([1]) == 1", [Assertion([[1]], "equal", 1)]),  # a sum of the program's own
        (
            "METADATA = {}\ndef check(candidate):\n    'says'\n    assert True, 'ok'\n"
            "    assert candidate(1) == 2\ncheck(f)",
            [Assertion([1], "equal", 2)],
        ),
    ],
)
def test_literal_calls_are_read_from_the_source(code: str, cases: list[Assertion]) -> None:
    plan = plan_asserts(code)
    assert plan.cases == tuple(cases)
    assert not plan.together


@pytest.mark.parametrize(
    "code",
    [
        "assert f(1 + 1) == 2",
        "assert f(x=1) == 2",
        "assert f(1) == len([1])",
        "assert f(1) in (1, 2)",
        "assert abs(f(1) - 2) < 1e-6",
        "assert f(1) == f(1)",
        "assert f(1) is 2 or f(1)",
        "for x in [1, 2]:\n    assert f(x) == x",
        "def check(candidate):\n    assert candidate(1) == 2\n    return 3\ncheck(f)",
        "def check(candidate):\n    assert candidate(1) == 2\ncheck(f)\ncheck(f)",
        "import math\nassert f(1) == 1",
        "assert math.isclose(f(1), 1)",
        "try:\n    f(1)\nexcept ValueError:\n    pass",
    ],
)
def test_more_than_literal_calls_runs_apart(code: str) -> None:
    plan = plan_asserts(code)
    assert (plan.entries, plan.together, plan.cases) == (("f",), False, None)


@pytest.mark.parametrize(
    "code",
    [
        "assert f(g(1)) == 1",
        "assert f(Node(1)) == 1",
        "root = Node(1)\nroot.left = Node(2)\nassert f(root)",
        "assert f(2)(3) == 5",
        "assert Solution().f(3) == 5",
        "assert isinstance(Point(1, 2), Point)",
        "f.calls = 0\nassert f(1) == 1",
    ],
)
def test_what_needs_objects_of_the_program_runs_together(code: str) -> None:
    assert plan_asserts(code).together


@pytest.mark.parametrize(
    "code", ["assert (", "", "x = 1", "assert True", "\0", "(" * 10_000, "assert f(1) == 2\n\tx"]
)
def test_tests_that_test_nothing_are_malformed(code: str) -> None:
    with pytest.raises(VerifierError):
        plan_asserts(code)


def rows(path: Path) -> list[dict[str, Any]]:
    content = path.read_bytes()
    text = gzip.decompress(content) if path.suffix == ".gz" else content
    return [json.loads(line) for line in text.splitlines()]


def together(path: Path) -> set[Any]:
    plans = {r["task_id"]: parse_tests(published.from_row(r) or "") for r in rows(path)}
    return {task for task, plan in plans.items() if getattr(plan, "together", True)}


def test_of_the_published_tests_exactly_six_need_the_program_beside_them(data: Path) -> None:
    assert together(data / "humaneval" / "HumanEval.jsonl.gz") == {
        "HumanEval/32",
        "HumanEval/38",
        "HumanEval/50",
    }
    assert together(data / "mbpp" / "mbpp.jsonl") == {367, 601, 927}


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("code", "verdict", "reason"),
    [
        ("assert f(1) == 2\nassert f(2) == 3", "correct", "passed"),
        ("def check(candidate):\n    assert candidate(1) == 2\ncheck(f)", "correct", "passed"),
        ("assert f(1) == 1, 'one'", "wrong", "wrong_output"),
        ("assert g(1) == 1", "wrong", "missing_function"),
        ("assert f(None) == 1", "wrong", "runtime_error"),
        ("assert (", "not_checked", "malformed_tests"),
    ],
)
@pytest.mark.parametrize("before", ["", APART], ids=["calls", "apart"])
def test_asserts_say_what_is_right(
    judge: Judge, before: str, code: str, verdict: str, reason: str
) -> None:
    judgement = judge("def f(a):\n    return a + 1", asserts(before + code))
    assert (judgement.verdict, judgement.reason) == (verdict, reason), judgement
    assert judgement.checker == "bubblewrap"


PROGRAM = """
class Box(dict): ...
def f(x, *more, key=None):
    if x == "error":
        raise KeyError("k", 1)
    if x == "own error":
        class Bad(ValueError): ...
        raise Bad("bad")
    if x == "stop":
        raise StopIteration
    if isinstance(x, list):
        x.sort()
    if isinstance(x, dict):
        x["new"] = (1,)
    if isinstance(x, tuple):
        x[0].append(0)
    return (x, more, key)
"""


@pytest.mark.sandbox
@pytest.mark.parametrize(
    "code",
    [
        "assert f(1, 2, key=3) == (1, (2,), 3)",
        "assert f({1, 2}, b'x', 1j)[1] == (b'x', 1j)",
        "a = [3, 1]\nassert f(a)[0] == [1, 3] and a == [1, 3]",
        "a = {'b': 1}\nf(a)\nassert a == {'b': 1, 'new': (1,)}",
        "a = ([1],)\nf(a)\nassert a == ([1, 0],)",
        "a = iter([1, 2])\nassert list(f(a)[0]) == [1, 2] and list(a) == []",
        "try: f('error')\nexcept KeyError as e: assert e.args == ('k', 1)\nelse: assert False",
        "try: f('own error')\nexcept ValueError as e: assert str(e) == 'bad'\nelse: assert False",
        "assert f(10**5000)[0] == 10**5000",
        "assert f(float('nan'))[0] != 0 and f(float('-inf'))[0] == -float('inf')",
        "assert type(f(True)[0]) is bool and type(f({}, ())[1]) is tuple",
        "assert [f(x)[0] for x in range(200)] == list(range(200))",
    ],
)  # fmt: skip
def test_calls_through_the_stub_are_as_calls(judge: Judge, code: str) -> None:
    judgement = judge(PROGRAM, asserts(APART + code))
    assert (judgement.verdict, judgement.checker) == ("correct", "bubblewrap"), judgement


@pytest.mark.sandbox
def test_a_regular_expressions_match_is_true_and_equal_to_nothing(judge: Judge) -> None:
    program = "import re\ndef f(a):\n    return re.match('b', a)"
    for before in ("", APART):
        assert judge(program, asserts(before + "assert f('b')\nassert not f('a')")).verdict == (
            "correct"
        )
        assert judge(program, asserts(before + "assert f('b') == True")).verdict == "wrong"


@pytest.mark.sandbox
def test_tests_that_pass_a_function_run_together_after_all_and_say_so(judge: Judge) -> None:
    tests = asserts("assert f(lambda x: x + 1, 2) == 3")
    judgement = judge("def f(g, x):\n    return g(x)", tests)
    assert (judgement.verdict, judgement.checker) == ("correct", "bubblewrap forgeable")
    judgement = judge("def f(g, x):\n    return x", tests)
    assert (judgement.verdict, judgement.checker) == ("wrong", "bubblewrap forgeable")


@pytest.mark.sandbox
def test_a_program_cannot_have_its_tests_run_together(judge: Judge) -> None:
    """It returns what is not plain, and the tests pass that on."""
    program = "import os\ndef f(x):\n    return f if x == 1 else os._exit(0)"
    judgement = judge(program, asserts("assert f(f(1)) == 3"))
    assert (judgement.verdict, judgement.checker) == ("wrong", "bubblewrap")


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("def f(a:", "syntax_error"),
        ("f = 3", "missing_function"),
        ("1 / 0", "runtime_error"),
        ("import numpy\ndef f(a): ...", "missing_module"),
        ("def f(a):\n    return 1 / 0", "runtime_error"),
        ("def f(a):\n    while True: pass", "time_limit"),
        ("while True: pass", "time_limit"),
        ("def f(a):\n    return 'x' * 10**10", "memory_limit"),
        ("def f(a):\n    while True: print('x' * 1000)", "output_limit"),
        ("import os\ndef f(a):\n    os._exit(0)", "runtime_error"),
        ("def f(a):\n    x = []\n    x.append(x)\n    return x", "runtime_error"),
    ],
)
def test_a_program_that_fails_apart_from_its_tests_has_its_own_reason(
    judge: Judge, program: str, reason: str
) -> None:
    judgement = judge(program, asserts(APART + "assert f(1) == 2"))
    assert judgement.reason == reason, judgement
    assert judgement.checker == "bubblewrap"


@pytest.mark.sandbox
def test_what_needs_the_program_beside_it_says_that_it_is_forgeable(judge: Judge) -> None:
    tests = asserts("assert f(Node(1)) == 1")
    program = "class Node:\n    def __init__(self, x): self.x = x\ndef f(node):\n    return node.x"
    judgement = judge(program, tests)
    assert (judgement.verdict, judgement.checker) == ("correct", "bubblewrap forgeable")
    assert judge(program + " + 1", tests).reason == "wrong_output"
    assert judge("import os\nos._exit(0)", tests).reason == "runtime_error"
