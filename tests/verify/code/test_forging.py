"""Programs that do not solve their task but try to make their verdict `correct`.

Each is tried against every way in which tests are run apart from the program.
"""

from collections.abc import Callable
from typing import Any

import pytest

from cuvee.verify.judgement import Judgement

Judge = Callable[..., Judgement]

pytestmark = pytest.mark.sandbox

SECRET = 424242
TESTS: dict[str, dict[str, Any]] = {
    "function": {
        "kind": "function",
        "fn_name": "f",
        "cases": [{"args": [1], "expected": SECRET}, {"args": [2], "expected": SECRET + 1}],
    },
    "reference": {
        "kind": "reference",
        "fn_name": "f",
        "program": f"def f(x):\n    return x + {SECRET - 1}",
        "cases": [[1], [2]],
    },
    "calls": {"kind": "assert", "code": f"assert f(1) == {SECRET}\nassert f(2) == {SECRET + 1}"},
    "apart": {
        "kind": "assert",
        "code": (
            f"def check(c):\n    for x in [1, 2]:\n        assert c(x) == x + {SECRET - 1}\n"
            "check(f)"
        ),
    },
    "iteration": {
        "kind": "assert",
        "code": (
            f"wanted = [{SECRET}, {SECRET + 1}]\n"
            "for got, want in zip(map(f, [1, 2]), wanted):\n    assert got == want\n"
        ),
    },
    "refusal": {
        "kind": "assert",
        "code": (
            "try:\n    f(-1)\nexcept Exception:\n    pass\nelse:\n    assert False\n"
            f"assert f(1) == {SECRET}"
        ),
    },
    "stdin": {
        "kind": "stdin",
        "cases": [
            {"input": "1\n", "output": f"{SECRET}\n"},
            {"input": "2\n", "output": f"{SECRET + 1}\n"},
        ],
    },
}

WRITE_TO_ALL = """
import os
def write_to_all(line):
    for fd in range(3, 100):
        try:
            os.write(fd, line)
        except OSError:
            pass
"""

FORGERS = {
    "always equal": """
class Any:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __bool__(self): return True
    __hash__ = object.__hash__
def f(x): return Any()
""",
    "an int that is equal to all": """
class Any(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    __hash__ = int.__hash__
def f(x): return Any(5)
""",
    "a list that is equal to all": """
class Any(list):
    def __eq__(self, other): return True
    def __iter__(self): return iter([1])
def f(x): return Any()
""",
    "exit code 0": "import os, sys\ndef f(x): os._exit(0)\nsys.exit(0)",
    "exit code 0 at once": "import os\nos._exit(0)",
    "SystemExit": "def f(x): raise SystemExit(0)",
    "StopIteration": "def f(x): raise StopIteration",
    "GeneratorExit": "def f(x): raise GeneratorExit",
    "AssertionError": "def f(x): raise AssertionError",
    "KeyboardInterrupt": "def f(x): raise KeyboardInterrupt",
    "prints": """
def f(x): return None
for line in ("OK", "passed", '{"event": "end"}', '{"event": "result", "value": 1}', "1 passed"):
    print(line)
""",
    "reports": WRITE_TO_ALL
    + """
import json, itertools
def f(x):
    for event in ("ready", "end", "passed", "result"):
        write_to_all(json.dumps({"event": event, "value": None}).encode() + b"\\n")
    os._exit(0)
f(1)
""",
    "reports the end": WRITE_TO_ALL + 'write_to_all(b\'{"event": "end"}\\n\' * 5)\nf = print',
    "reports bad tests": WRITE_TO_ALL
    + 'write_to_all(b\'{"event": "bad_tests", "text": "x"}\\n\')\nf = print',
    "messages to the tests": WRITE_TO_ALL
    + """
def f(x):
    said = b'{"value": 1, "changed": {}}', b'{"next": true}', b'{"event": "end"}', b"null", b"[]"
    for text in said:
        write_to_all(text + b"\\n")
f(1)
""",
    "half a message": WRITE_TO_ALL
    + "def f(x):\n    write_to_all(b'{\"value\": ')\n    os._exit(0)",
    "patched assert": """
import builtins
class AssertionError(Exception): ...
builtins.AssertionError = AssertionError
builtins.print = builtins.exit = builtins.compile = builtins.exec = lambda *a, **k: None
def f(x): return None
""",
    "patched exit": """
import os, sys
sys.exit = os._exit = os.abort = lambda *a: None
def f(x): return None
""",
    "patched json": """
import json
class Text(str):
    def __eq__(self, other): return True
    __hash__ = str.__hash__
json.dumps = lambda *a, **k: '{"event": "end"}'
json.loads = lambda *a, **k: {"event": "end"}
def f(x): return None
""",
    "patched harness": """
import sys
frame = sys._getframe()
while frame:
    for name in ("pack", "holds", "same_value"):
        frame.f_globals[name] = lambda value, *a, **k: 1
    reporter = frame.f_locals.get("reporter") or frame.f_locals.get("self")
    if reporter is not None:
        try:
            type(reporter).fail = lambda self, phase, error: self.report("end")
        except (TypeError, AttributeError):
            pass
    frame = frame.f_back
def f(x): raise ValueError
""",
    "looks through frames and objects": """
import gc, sys
def look():
    found, frame = [], sys._getframe()
    while frame:
        found += [*frame.f_locals.values(), *frame.f_globals.values()]
        frame = frame.f_back
    for value in map(repr, found + gc.get_objects()):
        place = value.find("".join(["42", "42", "4"]))
        if place >= 0:
            return int(value[place : place + 6])
def f(x):
    value = look()
    return value and value + x - 1
print(f(1))
""",
    "looks through files and memory": """
import glob, os
def look():
    wanted = "".join(["42", "42", "4"]).encode()
    names = glob.glob("/tmp/**", recursive=True) + glob.glob("/dev/shm/**", recursive=True)
    names += glob.glob("/proc/*/cmdline") + glob.glob("/proc/*/environ") + glob.glob("/proc/*/fd/*")
    for name in names:
        try:
            if os.path.isfile(name) and wanted in open(name, "rb").read(10**6):
                return True
        except OSError:
            pass
    return False
def f(x): return 424241 + x if look() else 0
""".replace("424241", "int('4242' '41')"),
    "reads what is left of its job": """
import os
def look():
    for fd in range(3, 64):
        try:
            text = os.pread(fd, 10**6, 0).decode("utf-8", "replace")
        except OSError:
            continue
        place = text.find("".join(["42", "42", "4"]))
        if place >= 0:
            return int(text[place : place + 6])
def f(x): return look()
print(f(1))
""",
    "kills its neighbours": """
import os, signal
for pid in range(1, 200):
    if pid != os.getpid():
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
def f(x): return None
""",
    "a name that is the test's": "def f(x): return None\ndef check(c): return None\nwanted = []",
}


@pytest.mark.parametrize("tests", TESTS)
@pytest.mark.parametrize("name", FORGERS)
def test_a_forger_is_wrong(judge: Judge, name: str, tests: str) -> None:
    judgement = judge(FORGERS[name], TESTS[tests])
    assert judgement.verdict == "wrong", judgement
    assert judgement.checker == "bubblewrap"


@pytest.mark.parametrize("tests", [t for t in TESTS if t != "stdin"])
def test_what_solves_the_task_is_right(judge: Judge, tests: str) -> None:
    program = f"def f(x):\n    if x < 0: raise ValueError\n    return x + {SECRET - 1}"
    assert judge(program, TESTS[tests]).verdict == "correct"


def test_results_reported_twice_or_early_count_for_the_next_case_only(judge: Judge) -> None:
    """All that a report of one's own can do is say a value early."""
    early = WRITE_TO_ALL + (
        'write_to_all(b\'{"event": "result", "value": 3}\\n\' * 2)\ndef f(x): return 3'
    )
    tests = {"kind": "function", "fn_name": "f"}
    cases = [{"args": [1], "expected": 3}, {"args": [2], "expected": 4}]
    assert judge(early, tests | {"cases": cases}).verdict == "wrong"


def test_a_program_cannot_choose_to_be_not_checked(judge: Judge) -> None:
    program = (
        WRITE_TO_ALL
        + """
write_to_all(b'{"event": "error", "type": "ModuleNotFoundError", "module": "numpy"}\\n')
def f(x): return None
"""
    )
    for tests in TESTS.values():
        assert judge(program, tests).verdict == "wrong"
