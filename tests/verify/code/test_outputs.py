"""What is the same output: hand-worked pairs."""

import math
from collections import OrderedDict, deque
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.verify.code.asserts import Assertion
from cuvee.verify.code.outputs import (
    NotPlainError,
    holds,
    rebuild,
    same_plain,
    same_text,
    same_value,
)
from cuvee.verify.code.plain import Opaque, opaque_names, pack, unpack


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
        (10**400, math.nan, False),
        (math.nan, math.nan, True),
        (math.inf, math.inf, True),
    ],
)
def test_values_are_compared_as_json_holds_them(got: Any, expected: Any, *, same: bool) -> None:
    assert same_value(got, expected) is same


@pytest.mark.parametrize(
    ("printed", "expected", "tolerance", "same"),
    [
        ("6\n", "6", None, True),
        ("1 2 \n3\n\n", "1 2\n3", None, True),
        ("1 2\r\n3\r\n", "1 2\n3\n", None, True),
        ("1  2", "1 2", None, False),
        (" 1", "1", None, False),
        ("1\n\n2", "1\n2", None, False),
        ("1\n2", "1 2", None, False),
        ("2\n1", "1\n2", None, False),
        ("0.33333333", "0.333333333333", None, False),
        ("0.33333333", "0.333333333333", 1e-6, True),
        ("0.33", "0.333333333333", 1e-6, False),
        ("6.0", "6", None, False),
        ("6.0", "6", 0, True),
        ("6", "6.0", 0, True),
        ("7", "6", 0.5, False),
        ("1000000.4", "1000000.5", 1e-6, True),
        ("nan", "1.5", 1e-6, False),
        ("inf", "1.5", 1e-6, False),
        ("1_0.0", "10.0", 1e-6, False),
        ("x 1.50", "x 1.5", 1e-6, True),
        ("y 1.50", "x 1.5", 1e-6, False),
        ("yes", "YES", None, False),
        ("", "6", None, False),
        ("", "", None, True),
        ("\n\n", "", None, True),
    ],
)
def test_printed_text_is_compared_line_by_line(
    printed: str, expected: str, tolerance: float | None, *, same: bool
) -> None:
    assert same_text(printed, expected, tolerance=tolerance) is same


@pytest.mark.parametrize(
    ("relation", "got", "expected", "so"),
    [
        ("equal", True, 1, True),  # Python's own `==`
        ("equal", (1, 2), [1, 2], False),
        ("equal", {1: 2}, {1: 2}, True),
        ("equal", 0.1 + 0.2, 0.3, False),
        ("is", True, True, True),
        ("is", 1, True, False),
        ("is", None, None, True),
        ("true", [0], None, True),
        ("true", [], None, False),
        ("false", "", None, True),
        ("true", Opaque("Match", True), None, True),
        ("equal", Opaque("Match", True), True, False),
    ],
)
def test_asserts_hold_as_in_python(relation: Any, got: Any, expected: Any, *, so: bool) -> None:
    assert holds(Assertion([], relation, expected), got) is so


@pytest.mark.parametrize(
    ("got", "expected", "as_sets", "same"),
    [
        ((1, 2), (2, 1), True, True),
        ([1, 2], (2, 1), True, True),
        ([1, 2], (2, 1), False, False),
        (5, (2, 1), True, False),
        ((0.3, [1e9]), (0.1 + 0.2, [1e9 + 1]), False, True),
        ({1: 0.3}, {1: 0.1 + 0.2}, False, True),
        (True, Opaque("Match", True), False, True),
        (None, Opaque("Match", True), False, False),
    ],
)
def test_results_are_compared_with_the_references(
    got: Any, expected: Any, *, as_sets: bool, same: bool
) -> None:
    assert same_plain(got, expected, tolerance=None, as_sets=as_sets) is same


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text()
    | st.binary()
    | st.fractions()
    | st.decimals(allow_nan=False),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.lists(inner).map(deque)
        | st.sets(st.integers() | st.text())
        | st.frozensets(st.tuples(st.integers(), st.text()))
        | st.dictionaries(st.integers() | st.text() | st.tuples(st.integers()), inner)
    ),
    max_leaves=12,
)


@given(PLAIN)
def test_plain_values_survive_packing_with_their_types(value: Any) -> None:
    import json

    back = unpack(json.loads(json.dumps(pack(value))))
    assert back == value
    assert type(back) is type(value)
    assert repr(back) == repr(value) or "{" in repr(value)  # sets and their order apart


def test_rarer_values_survive_packing_too() -> None:
    class Words(list[str]): ...

    values = [10**5000, -math.inf, range(3, 9, 2), int, bytearray(b"x"), Decimal("1.50")]
    assert [unpack(pack(value)) for value in values] == values
    assert math.isnan(unpack(pack(math.nan)))
    assert unpack(pack(Fraction(1, 3))) == Fraction(1, 3)
    assert list(unpack(pack(x for x in [1, 2]))) == [1, 2]
    assert unpack(pack({1: 2}.keys())) == {1}
    assert list(unpack(pack({1: 2}.values()))) == [2]
    assert unpack(pack({1: 2}.items())) == {(1, 2)}
    assert type(unpack(pack(Words(["a"])))) is list
    assert unpack(pack(OrderedDict(a=1))) == {"a": 1}
    assert pack(True) is True


def test_what_is_not_plain_loses_all_but_its_truth_and_is_named() -> None:
    class Liar:
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    back = unpack(pack([Liar()]))[0]
    assert back != 5
    assert bool(back) is True
    assert opaque_names(pack([1, {"a": (Liar(), len)}])) == ["Liar", "builtin_function_or_method"]
    assert opaque_names(pack([back, '["opaque", ["x"]]'])) == []


@pytest.mark.parametrize(
    "packed",
    [
        {},
        {"a": 1, "b": 2},
        {"unknown": []},
        {"set": [[]]},
        {"set": 3},
        {"dict": [1]},
        {"int": None},
        {"named": []},
        {"named": ["type", "eval"]},
        {"named": ["type", "__loader__"]},
        {"named": ["fractions.Fraction", "1e999999999"]},
        {"named": ["os.system", "true"]},
        {"named": ["complex", [1, 2, 3]]},
        {"named": ["bytes", "zz"]},
        {"set": list(range(20_000))},
        {"dict": [{"tuple": [n, 1]} for n in range(20_000)]},
    ],
)
def test_what_a_program_made_up_is_refused(packed: Any) -> None:
    with pytest.raises(NotPlainError):
        rebuild(packed)


def test_a_value_nested_without_end_is_refused() -> None:
    packed: Any = []
    for _ in range(100_000):
        packed = [packed]
    with pytest.raises(NotPlainError):
        rebuild(packed)


def test_texts_cannot_be_made_to_collide_so_any_number_is_fine() -> None:
    words = [f"w{n}" for n in range(30_000)]
    assert len(rebuild({"set": words})) == 30_000
    assert len(rebuild(pack(dict.fromkeys(words)))) == 30_000
