r"""The forms of tests that a code problem's `tests` column may hold, read and checked.

JSON text in, a frozen dataclass out:

    {"kind": "function", "fn_name": "f", "cases": [{"args": [1, 2], "expected": 3}, ...]}
    {"kind": "stdin", "cases": [{"input": "1 2\n", "output": "3\n"}, ...]}
    {"kind": "assert", "code": "assert f(1, 2) == 3\n..."}
    {"kind": "reference", "fn_name": "f", "program": "def f...", "cases": [[packed arguments]]}

`function`, `stdin` and `reference` may say `"tolerance": 1e-6` (`cuvee.verify.code.outputs`);
`stdin` may name a `"checker"`, a program that judges outputs where several are right
(`cuvee.verify.code.programs`); `reference` may say `"as_sets": true`. Arguments of
`reference` are packed (`cuvee.verify.code.plain`), since JSON knows no tuples; what it
expects is what its program returns. Not here: running any of them (`cuvee.verify.code.check`).
"""

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any

from cuvee.errors import VerifierError
from cuvee.verify.code.asserts import Plan, plan_asserts

KINDS = ("function", "stdin", "assert", "reference")


@dataclasses.dataclass(frozen=True)
class FunctionTests:
    """Call a function with each list of arguments; compare what it returns."""

    fn_name: str
    arguments: tuple[list[Any], ...]
    expected: tuple[Any, ...]
    tolerance: float | None


@dataclasses.dataclass(frozen=True)
class StdinTests:
    """Run the program with each input; compare what it prints."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tolerance: float | None
    checker: str | None


@dataclasses.dataclass(frozen=True, eq=False)
class ReferenceTests:
    """Call a function and that of the reference program; compare what they return."""

    fn_name: str
    program: str
    arguments: tuple[list[Any], ...]
    tolerance: float | None
    as_sets: bool


Tests = FunctionTests | StdinTests | Plan | ReferenceTests


_LONG = 2**20
"""Characters of tests of which only the last two are kept: they may hold 100 MB each."""


def parse_tests(text: str) -> Tests:
    """Read the JSON tests of a problem. Raises VerifierError where they have none of the forms.

    The last ones are kept, since programs come problem by problem.
    """
    return _parse_long(text) if len(text) > _LONG else _parse_short(text)


def _parse(text: str) -> Tests:
    try:
        tests = json.loads(text)
        kind = tests["kind"]
        if kind not in KINDS:
            raise VerifierError(f"malformed tests: kind {kind!r:.50} is none of {', '.join(KINDS)}")
        if kind == "assert":
            return plan_asserts(_typed(tests["code"], str))
        if not _typed(tests["cases"], list):
            raise VerifierError("malformed tests: no cases")
        return _with_cases(kind, tests)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise VerifierError(f"malformed tests: {type(error).__name__}: {error}") from error


_parse_short = functools.lru_cache(maxsize=64)(_parse)
_parse_long = functools.lru_cache(maxsize=2)(_parse)


def _with_cases(kind: str, tests: Mapping[str, Any]) -> Tests:
    cases, tolerance = tests["cases"], _tolerance(tests.get("tolerance"))
    if kind == "stdin":
        return StdinTests(
            tuple(_typed(case["input"], str) for case in cases),
            tuple(_typed(case["output"], str) for case in cases),
            tolerance,
            None if tests.get("checker") is None else _typed(tests["checker"], str),
        )
    fn_name = _typed(tests["fn_name"], str)
    if kind == "reference":
        return ReferenceTests(
            fn_name,
            _typed(tests["program"], str),
            tuple(_typed(args, list) for args in cases),
            tolerance,
            _typed(tests.get("as_sets", False), bool),
        )
    return FunctionTests(
        fn_name,
        tuple(_typed(case["args"], list) for case in cases),
        tuple(case["expected"] for case in cases),
        tolerance,
    )


def _tolerance(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"tolerance {value!r:.50} is not from 0 to under 1")
    return float(value)


def _typed(value: Any, wanted: type) -> Any:
    if not isinstance(value, wanted):
        raise TypeError(f"{str(value)[:50]!r} is no {wanted.__name__}")
    return value
