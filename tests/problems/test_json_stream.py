"""JSON files as streams: the same values as `json.load`, wherever the chunks end."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.errors import DataError
from cuvee.problems import json_stream
from cuvee.problems.files import read_file
from cuvee.problems.json_stream import stream

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
ROWS = st.lists(st.dictionaries(st.text(max_size=4), VALUES, max_size=3), max_size=6)


@given(rows=ROWS, chunk=st.integers(1, 40), indent=st.sampled_from([None, 1]), raw=st.booleans())
def test_the_objects_are_those_of_json_load_at_every_size_of_chunk(
    rows: list[Any], chunk: int, indent: int | None, raw: bool
) -> None:
    text = json.dumps(rows, indent=indent, ensure_ascii=not raw)
    after_another = "\n".join(json.dumps(row, indent=indent) for row in rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "CHUNK", chunk)
        data = text.encode("utf-8", "surrogatepass")
        if b"\xed" not in data:  # a lone surrogate is no UTF-8
            assert list(stream(Path("x"), io.BytesIO(data))) == rows
        if len(rows) != 1:
            assert list(stream(Path("x"), io.BytesIO(after_another.encode()))) == rows


@pytest.mark.parametrize("rows", [[], [{"a": [1]}], [{"a": 1}], [{"a": 1}, {"a": 2}]])
def test_a_list_in_an_object_is_the_rows_and_a_list_of_one_is_one_row(rows: list[Any]) -> None:
    for text in (json.dumps(rows), json.dumps({"version": 1, "data": rows})):
        assert list(stream(Path("x"), io.BytesIO(text.encode()))) == rows
    with pytest.raises(DataError, match=r"holds lists under \['a', 'b'\]"):
        list(stream(Path("x"), io.BytesIO(b'{"a": [], "b": []}')))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[\n{"a": 1}\n{"b": 2}]', "x.json, line 3: not JSON: wanted a comma or the end"),
        ('[{"a": 1},\n\n]', "line 3: not JSON: Expecting value"),
        ('[{"a": 1}', "line 1: not JSON: wanted a comma or the end of the list"),
        ('[{"a": 1}]\n[]', "line 2: not JSON: extra data after the list"),
        ('[\n{"a": "never closed]', "line 2: not JSON: Unterminated string"),
        ('[{"a": ' + "9" * 5000 + "}]", "line 1: not JSON: Exceeds the limit"),
        ("[" * 100_000, "not JSON: "),
        ("[\n1]", "row 1: a row is a JSON object, this is int"),
    ],
)
@pytest.mark.parametrize("chunk", [7, 1 << 20])
def test_what_is_no_json_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str, chunk: int
) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        list(read_file(path))


def test_a_value_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", 16)
    monkeypatch.setattr(json_stream, "LONGEST_VALUE", 1000)
    taken = io.BytesIO(b'[{"a": "' + b"x" * 100_000)
    with pytest.raises(DataError, match="Unterminated string"):
        list(stream(Path("x"), taken))
    assert taken.tell() < 5000


def test_rows_come_before_the_file_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[" + ",".join(['{"a": "%s"}' % ("x" * 1000)] * 5000) + ", broken")
    rows = read_file(path)
    assert next(rows)[0].endswith("x.json, row 1")
    with pytest.raises(DataError, match="not JSON"):
        list(rows)
