"""The forms of published data sets, made by hand as their cards describe them."""

import base64
import collections
import json
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cuvee.errors import DataError, VerifierError
from cuvee.verify.code import published
from cuvee.verify.code.forms import parse_tests
from cuvee.verify.judgement import Judgement

Judge = Callable[..., Judgement]


def of_value(value: Any) -> Any:
    text = published.from_value(value)
    if text is not None:
        parse_tests(text)
    return None if text is None else json.loads(text)


def of_row(row: dict[str, Any]) -> Any:
    text = published.from_row(row)
    if text is not None:
        parse_tests(text)
    return None if text is None else json.loads(text)


@pytest.mark.parametrize(
    ("value", "tests"),
    [
        (
            {"inputs": ["1\n", ["2", "3"]], "outputs": ["1", ["2", "3"]]},
            {
                "kind": "stdin",
                "cases": [{"input": "1\n", "output": "1"}, {"input": "2\n3", "output": "2\n3"}],
            },
        ),
        (
            {"inputs": [""], "outputs": ["0.5\n"]},
            {"kind": "stdin", "cases": [{"input": "", "output": "0.5\n"}], "tolerance": 1e-6},
        ),
        (
            {"inputs": [[1, 2]], "outputs": [[3]], "fn_name": "plus"},
            {"kind": "function", "fn_name": "plus", "cases": [{"args": [1, 2], "expected": 3}]},
        ),
        (["assert f(1)"], {"kind": "assert", "code": "assert f(1)"}),
        (
            [{"input": "1", "output": "2", "testtype": "stdin"}],
            {"kind": "stdin", "cases": [{"input": "1", "output": "2"}], "tolerance": 0},
        ),
        ({"kind": "assert", "code": "assert f(1)"}, {"kind": "assert", "code": "assert f(1)"}),
    ],
)
def test_values_are_brought_into_our_forms(value: Any, tests: Any) -> None:
    assert of_value(value) == tests
    assert of_value(json.dumps(value)) == tests


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "{",
        "[" * 100_000,
        [],
        {},
        3,
        {"inputs": [1], "outputs": []},
        {"inputs": "1", "outputs": "2"},
        {"inputs": ["1"], "outputs": ["2"], "fn_name": "f"},
        [{"input": "1", "output": "2", "testtype": "functional"}],
        [{"input": "1"}],
        {"kind": "other"},
    ],
)
def test_unknown_values_have_no_tests(value: Any) -> None:
    assert published.from_value(value) is None


def test_mbpp_and_humaneval_rows_become_asserts() -> None:
    mbpp = {"test_setup_code": "x = 1", "test_imports": ["import re"], "test_list": ["assert f(x)"]}
    assert of_row(mbpp)["code"] == "x = 1\nimport re\nassert f(x)"
    human = {"test": "def check(c):\n    assert c(1)\n", "entry_point": "f"}
    assert of_row(human)["code"] == "def check(c):\n    assert c(1)\n\n\ncheck(f)\n"
    assert of_row({"question": "?"}) is None


def private(tests: Any) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


def livecodebench(public: Any, hidden: str, metadata: str = "{}") -> dict[str, str]:
    return {
        "public_test_cases": json.dumps(public),
        "private_test_cases": hidden,
        "metadata": metadata,
    }


STDIN = {"input": "1\n", "output": "2", "testtype": "stdin"}
CALL = {"input": '[1, 2]\n"x"', "output": "[true]", "testtype": "functional"}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_livecodebench_s_private_tests_are_read_in_every_pickle_protocol(protocol: int) -> None:
    text = json.dumps([STDIN | {"input": "é" * 100}])
    hidden = base64.b64encode(zlib.compress(pickle.dumps(text, protocol=protocol))).decode()
    if protocol == 0:  # a text pickle, which nobody publishes
        with pytest.raises(DataError):
            of_row(livecodebench([STDIN], hidden))
        return
    tests = of_row(livecodebench([STDIN], hidden))
    assert [case["input"] for case in tests["cases"]] == ["1\n", "é" * 100]


def test_livecodebench_s_calls_name_their_function() -> None:
    row = livecodebench([CALL], private([CALL]), '{"func_name": "f"}')
    case = {"args": [[1, 2], "x"], "expected": [True]}
    assert of_row(row) == {"kind": "function", "fn_name": "f", "cases": [case, case]}
    assert of_row(livecodebench([CALL], "[]")) is None  # no name: no tests
    assert of_row(livecodebench([STDIN], json.dumps([STDIN])))["kind"] == "stdin"


class Evil:
    def __reduce__(self) -> Any:
        return (Path("/tmp/cuvee-unpickled").write_text, ("run",))


DAMAGED = {
    "no base64": "!!",
    "no zlib": base64.b64encode(b"nothing").decode(),
    "cut": base64.b64encode(zlib.compress(pickle.dumps("[]" * 1000))[:-5]).decode(),
    "a call": base64.b64encode(zlib.compress(pickle.dumps(Evil()))).decode(),
    "a global": base64.b64encode(zlib.compress(pickle.dumps(collections.Counter("ab")))).decode(),
    "two texts": base64.b64encode(zlib.compress(pickle.dumps(["[]", "[]"]))).decode(),
    "a huge memo": base64.b64encode(
        zlib.compress(b"\x80\x04X\x02\x00\x00\x00[]r\xff\xff\xff\x7f0.")
    ).decode(),
    "no end": base64.b64encode(zlib.compress(b"\x80\x04X\xff\xff\xff\x7fab")).decode(),
    "no JSON": base64.b64encode(zlib.compress(pickle.dumps("[{"))).decode(),
    "no list": base64.b64encode(zlib.compress(pickle.dumps("{}"))).decode(),
    "no tests": private([{"input": 3}]),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_private_tests_are_an_error_that_names_the_column(name: str) -> None:
    with pytest.raises(DataError, match="private_test_cases"):
        published.from_row(livecodebench([STDIN], DAMAGED[name]))
    assert not Path("/tmp/cuvee-unpickled").exists()


def test_private_tests_that_unpack_to_too_much_are_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = livecodebench([STDIN], private([STDIN] * 1000))
    assert published.from_row(row)
    monkeypatch.setattr(published, "_PRIVATE_BYTES", 10_000)
    with pytest.raises(DataError, match="more than 10000 bytes"):
        published.from_row(row)


PLUS = {
    "entry_point": "f",
    "prompt": '"""\nassert set(f((1, 2), 0j)) == set((1, 2))\n"""',
    "canonical_solution": "def f(a, b):\n    return list(a)",
    "assertion": "assert f((1, 2), 0j) == [1, 2]\nassert f((3, (4,)), 1) == [3]",
    "base_input": [[[1, 2], "0j"], [[3, [4]], 1]],
    "plus_input": [[[5, [6, [7]]], "(1+2j)"]],
    "atol": 0.001,
}


def test_mbpp_plus_inputs_take_their_types_from_the_assertion() -> None:
    tests = parse_tests(published.from_row(PLUS) or "")
    from cuvee.verify.code.forms import ReferenceTests
    from cuvee.verify.code.plain import unpack

    assert isinstance(tests, ReferenceTests)
    assert [unpack(args) for args in tests.arguments] == [
        [(1, 2), 0j],
        [(3, (4,)), 1],
        [(5, (6, (7,))), 1 + 2j],
    ]
    assert (tests.tolerance, tests.as_sets) == (0.001, True)


@pytest.mark.sandbox
def test_mbpp_plus_compares_with_its_reference_program(judge: Judge) -> None:
    tests = published.from_row(PLUS)
    assert judge("def f(a, b):\n    return a[::-1]", tests).reason == "passed"
    assert judge("def f(a, b):\n    return a[:1]", tests).reason == "wrong_output"


@pytest.mark.parametrize("column", ["base_input", "assertion", "canonical_solution"])
def test_a_damaged_mbpp_plus_row_names_its_column(column: str) -> None:
    with pytest.raises(DataError, match=column):
        published.from_row(PLUS | {column: 3})


@pytest.mark.parametrize(
    "tests",
    [
        "not json",
        "[]",
        "{}",
        "3",
        '{"kind": "other", "cases": [1]}',
        '{"kind": ["stdin"], "cases": [1]}',
        '{"kind": "function", "fn_name": "f", "cases": []}',
        '{"kind": "function", "fn_name": "f", "cases": [{"args": 1, "expected": 2}]}',
        '{"kind": "function", "fn_name": 3, "cases": [{"args": [1], "expected": 2}]}',
        '{"kind": "stdin", "cases": [{"input": 3, "output": "3"}]}',
        '{"kind": "stdin", "cases": [{"input": "", "output": ""}], "tolerance": -1}',
        '{"kind": "stdin", "cases": [{"input": "", "output": ""}], "tolerance": true}',
        '{"kind": "stdin", "cases": [{"input": "", "output": ""}], "checker": 3}',
        '{"kind": "reference", "fn_name": "f", "cases": [[1]]}',
        '{"kind": "assert"}',
        '{"kind": "assert", "code": "assert True"}',
        "[" * 100_000,
    ],
)
def test_malformed_tests_are_no_fault_of_the_program(judge: Judge, tests: str) -> None:
    with pytest.raises(VerifierError):
        parse_tests(tests)
    judgement = judge("pass", tests, kind="none")
    assert (judgement.verdict, judgement.reason) == ("not_checked", "malformed_tests")
