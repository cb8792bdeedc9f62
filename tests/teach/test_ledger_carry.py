"""Export and import: answers go from ledger to ledger whole, and nothing else gets in."""

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.errors import DataError
from cuvee.progress import Tick
from cuvee.records import content_hash, dumps
from cuvee.teach.ledger import Answer, Cost, Ledger, Payer
from cuvee.teach.ledger.carry import COLUMNS, Imported, export, import_answers
from cuvee.teach.ledger.check import verify
from cuvee.teach.ledger.survey import Chosen

SILENT: Tick = lambda n: None  # noqa: E731
ALL = Chosen()


def completion(text: str) -> str:
    return dumps({"choices": [{"message": {"content": text}}]})


def row(number: int = 0, **changes: Any) -> dict[str, Any]:
    """Return a sound row of an export."""
    request = {"identity": "m", "number": number}
    return {
        "key": content_hash(request),
        "request": dumps(request),
        "response": completion("hello"),
        "status": 200,
        "seconds": 1.5,
        "created": "2026-01-31T12:00:00Z",
        "account": "run",
        "teacher": "alice",
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "usd": 0.25,
        **changes,
    }


def ledger_with(path: Path, rows: list[dict[str, Any]]) -> Path:
    with Ledger.open(path) as ledger:
        for values in rows:
            cost = None
            if values["usd"] is not None:
                cost = Cost(values["prompt_tokens"], values["completion_tokens"], values["usd"])
            ledger.put(
                values["key"],
                request=values["request"],
                response=values["response"],
                status=values["status"],
                seconds=values["seconds"],
                payer=Payer(values["account"], values["teacher"]),
                cost=cost,
            )
    return path


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def take(path: Path, file: Path) -> Imported:
    return import_answers(path, file, tick=SILENT)


def everything(path: Path, keys: list[str]) -> list[Answer | None]:
    with Ledger.open(path) as ledger:
        return [ledger.get(key) for key in keys]


def test_an_empty_ledger_that_imports_an_export_finds_everything(tmp_path: Path) -> None:
    rows = [row(n, teacher=f"t{n % 3}") for n in range(2500)]
    rows.append(row(9999, prompt_tokens=None, completion_tokens=None, usd=None))
    old = ledger_with(tmp_path / "old.sqlite", rows)
    file, new = tmp_path / "out.parquet", tmp_path / "new" / "new.sqlite"
    ticks: list[int] = []
    assert export(old, file, chosen=ALL, note="MIT", tick=ticks.append) == 2501
    assert sum(ticks) == 2501
    done = take(new, file)
    assert (done.added, done.held, done.refused.total(), done.note) == (2501, 0, 0, "MIT")
    keys = [values["key"] for values in rows]
    assert everything(new, keys) == everything(old, keys)
    assert None not in everything(new, keys)
    with Ledger.open(old) as before, Ledger.open(new) as after:
        assert after.spent("run") == before.spent("run")
    assert verify(new, tick=SILENT).details == []


def test_an_export_is_opened_by_anyone_and_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    path = ledger_with(tmp_path / "l.sqlite", [row(n) for n in range(50)])
    for name in ("a.parquet", "b.parquet"):
        export(path, tmp_path / name, chosen=ALL, note="", tick=SILENT)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    table = pq.read_table(tmp_path / "a.parquet")
    assert {field.name: str(field.type) for field in table.schema} == {
        name: {"float64": "double"}.get(kind, kind) for name, kind in COLUMNS.items()
    }
    assert table.schema.metadata[b"cuvee.ledger"] == b"2"
    assert table["key"].to_pylist() == sorted(row(n)["key"] for n in range(50))
    assert pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0).column(0).compression == (
        "ZSTD"
    )


@pytest.mark.parametrize(
    ("chosen", "numbers"),
    [
        (Chosen(), {0, 1, 2, 3}),
        (Chosen(teacher="alice"), {0, 1}),
        (Chosen(account="run-2"), {1, 3}),
        (Chosen(teacher="bob", account="run-2"), {3}),
        (Chosen(identity="m2"), {2}),
        (Chosen(teacher="nobody"), set()),
        (Chosen(before="2000-01-01T00:00:00Z"), set()),
    ],
)
def test_an_export_holds_what_was_chosen(tmp_path: Path, chosen: Chosen, numbers: set[int]) -> None:
    payers = [("alice", "run"), ("alice", "run-2"), ("bob", "run"), ("bob", "run-2")]
    rows = []
    for number, (teacher, account) in enumerate(payers):
        request = {"identity": "m2" if number == 2 else "m", "number": number}
        key, text = content_hash(request), dumps(request)
        rows.append(row(key=key, request=text, teacher=teacher, account=account))
    path, file = ledger_with(tmp_path / "l.sqlite", rows), tmp_path / "out.parquet"
    assert export(path, file, chosen=chosen, note="", tick=SILENT) == len(numbers)
    found = {json.loads(text)["number"] for text in pq.read_table(file)["request"].to_pylist()}
    assert found == numbers


def test_an_answer_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    path = ledger_with(tmp_path / "l.sqlite", [row(1, response=completion("mine"))])
    before = everything(path, [row(1)["key"]])
    done = take(path, write(tmp_path / "f.parquet", [row(1), row(2), row(2)]))
    assert (done.added, done.held) == (1, 2)
    assert everything(path, [row(1)["key"]]) == before
    with Ledger.open(path) as ledger:
        assert ledger.spent("run").total.answers == 2, "what was not added costs nothing"
    again = take(path, tmp_path / "f.parquet")
    assert (again.added, again.held) == (0, 3)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"key": "0123456789abcdef"}, "key"),
        ({"request": "no JSON"}, "key"),
        ({"request": "[" * 100_000}, "key"),
        ({"key": content_hash({"a": 1}), "request": '{"a":1}'}, "identity"),
        ({"key": content_hash([1]), "request": "[1]"}, "identity"),
        ({"response": "half a bo"}, "response"),
        ({"response": '{"error": {"message": "no"}}'}, "response"),
        ({"response": None}, "value"),
        ({"created": "yesterday"}, "value"),
        ({"seconds": math.nan}, "value"),
        ({"seconds": -1.0}, "value"),
        ({"prompt_tokens": -5}, "value"),
        ({"completion_tokens": 2**40}, "value"),
        ({"usd": math.inf}, "value"),
        ({"usd": None}, "value"),
    ],
    ids=str,
)
def test_a_row_that_is_no_sound_answer_is_refused_and_the_others_get_in(
    tmp_path: Path, changes: dict[str, Any], kind: str
) -> None:
    file = write(tmp_path / "f.parquet", [row(1), row(2, **changes), row(3)])
    done = take(tmp_path / "l.sqlite", file)
    assert (done.added, dict(done.refused)) == (2, {kind: 1})
    assert done.details[0].startswith("row 1: ")
    assert verify(tmp_path / "l.sqlite", tick=SILENT).details == []


def test_a_file_that_is_no_export_is_named_and_makes_no_ledger(tmp_path: Path) -> None:
    new = tmp_path / "l.sqlite"
    (tmp_path / "text.parquet").write_text("no Parquet at all" * 100)
    write(tmp_path / "other.parquet", [{"a": 1}])
    cases = {
        "missing.parquet": "no such file",
        "text.parquet": "not a readable export",
        "other.parquet": "no column.*key.*request",
    }
    for name, message in cases.items():
        with pytest.raises(DataError, match=rf"{name}.*{message}"):
            take(new, tmp_path / name)
    assert not new.exists()


def test_columns_of_another_type_are_refused_by_name_of_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "f.parquet", [row(1, status="fine")])
    with pytest.raises(DataError, match=r"f\.parquet"):
        take(tmp_path / "l.sqlite", file)


def test_a_file_rewritten_by_another_program_is_read(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([row(1), row(2)])
    kinds = {"string": pa.large_string(), "int64": pa.int32()}
    columns = [pa.field(f.name, kinds.get(str(f.type), f.type)) for f in table.schema]
    mixed = table.cast(pa.schema(columns)).append_column("more", pa.array([1, 2]))
    pq.write_table(mixed.select(mixed.column_names[::-1]), tmp_path / "f.parquet")
    assert take(tmp_path / "l.sqlite", tmp_path / "f.parquet").added == 2


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    path = ledger_with(tmp_path / "l.sqlite", [row(n) for n in range(100)])
    file = tmp_path / "out.parquet"
    export(path, file, chosen=ALL, note="", tick=SILENT)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"out\.parquet.*not a readable export"):
        take(tmp_path / "new.sqlite", file)


@settings(max_examples=15, deadline=None)
@given(
    texts=st.lists(st.text(), max_size=5, unique=True),
    cost=st.none() | st.tuples(st.integers(0, 9), st.integers(0, 9), st.floats(0, 10)),
)
def test_any_answer_survives_the_way(
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[str],
    cost: tuple[int, int, float] | None,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    values: tuple[Any, ...] = cost or (None,) * 3
    tokens = dict(zip(("prompt_tokens", "completion_tokens", "usd"), values, strict=True))
    rows = []
    for text in texts:
        request = {"identity": "m", "messages": [{"role": "user", "content": text}]}
        key, response = content_hash(request), completion(text)
        rows.append(row(key=key, request=dumps(request), response=response, **tokens))
    old, new = ledger_with(folder / "old.sqlite", rows), folder / "new.sqlite"
    export(old, folder / "f.parquet", chosen=ALL, note="", tick=SILENT)
    assert take(new, folder / "f.parquet").added == len(texts)
    keys = [values["key"] for values in rows]
    assert everything(new, keys) == everything(old, keys)
