r"""The forms of tests that a code problem's `tests` column may hold, read and checked.

JSON text in, a frozen dataclass out:

    {"kind": "function", "fn_name": "f", "cases": [{"args": [1, 2], "expected": 3}, ...]}
    {"kind": "stdin", "cases": [{"input": "1 2\n", "output": "3\n"}, ...]}
    {"kind": "assert", "code": "assert f(1, 2) == 3\n..."}

Not here: running them (`cuvee.verify.code`).
"""

import dataclasses
import json
from typing import Any

from cuvee.errors import VerifierError


@dataclasses.dataclass(frozen=True)
class FunctionTests:
    """Call a function with each list of arguments; compare what it returns."""

    fn_name: str
    arguments: tuple[list[Any], ...]
    expected: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class StdinTests:
    """Run the program with each input; compare what it prints."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class AssertTests:
    """Run code beside the program that raises where it is wrong."""

    code: str


Tests = FunctionTests | StdinTests | AssertTests


def parse_tests(text: str) -> Tests:
    """Read the JSON tests of a problem. Raises VerifierError where they have none of the forms."""
    try:
        tests = json.loads(text)
        kind = tests["kind"]
        if kind == "assert":
            return AssertTests(_typed(tests["code"], str))
        cases = _typed(tests["cases"], list)
        if not cases:
            raise VerifierError("malformed tests: no cases")
        if kind == "function":
            return FunctionTests(
                _typed(tests["fn_name"], str),
                tuple(_typed(case["args"], list) for case in cases),
                tuple(case["expected"] for case in cases),
            )
        if kind == "stdin":
            return StdinTests(
                tuple(_typed(case["input"], str) for case in cases),
                tuple(_typed(case["output"], str) for case in cases),
            )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise VerifierError(f"malformed tests: {type(error).__name__}: {error}") from error
    raise VerifierError(f"malformed tests: kind {kind!r} is none of function, stdin, assert")


def _typed(value: Any, wanted: type) -> Any:
    if not isinstance(value, wanted):
        raise TypeError(f"{str(value)[:50]!r} is no {wanted.__name__}")
    return value
