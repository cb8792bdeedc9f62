"""Reading by column: exactly the wanted rows, wherever row groups and batches end."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.errors import DataError
from cuvee.lineage.columns import count_rows, find, matching, rows
from cuvee.records import Dropped, Problem, schema


def write(path: Path, ids: list[str], group: int) -> None:
    made = [
        Dropped(name, "d", "trace", None, f"reason {n}", None).__dict__
        for n, name in enumerate(ids)
    ]
    pq.write_table(pa.Table.from_pylist(made, schema=schema(Dropped)), path, row_group_size=group)


@given(data=st.data(), ids=st.lists(st.sampled_from("abcdefgh"), max_size=400))
def test_rows_are_those_with_the_value_in_order(
    data: st.DataObject, ids: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    write(path, ids, data.draw(st.integers(1, 300)))
    wanted = data.draw(st.sets(st.sampled_from("abcdefghxyz")))
    expected = [n for n, name in enumerate(ids) if name in wanted]
    found = rows(path, Dropped, column="id", wanted=wanted)
    assert [row.reason for row in found] == [f"reason {n}" for n in expected]
    assert find(path, "id", wanted) == expected
    short = matching(path, ["id", "reason"], column="id", wanted=wanted)
    assert [row["reason"] for row in short] == [row.reason for row in found]
    assert count_rows(path) == len(ids)


def test_a_row_far_into_a_row_group_is_found(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write(path, [f"{n}" for n in range(3000)], 1500)
    found = rows(path, Dropped, column="id", wanted=["777", "2999"])
    assert [row.reason for row in found] == ["reason 777", "reason 2999"]


def test_a_column_that_an_older_version_did_not_write_has_its_default(tmp_path: Path) -> None:
    path = tmp_path / "old.parquet"
    row = Problem("1", "d", "s", "q", "p", "math", "2", None, "{}").__dict__
    del row["place"]
    pq.write_table(pa.Table.from_pylist([row]), path)
    assert rows(path, Problem, column="id", wanted=["1"])[0].place == ""


def test_other_missing_columns_files_and_forms_are_named(tmp_path: Path) -> None:
    path = tmp_path / "short.parquet"
    pq.write_table(pa.table({"id": ["1"]}), path)
    with pytest.raises(DataError, match=r"short\.parquet: no column \['detail', 'domain'"):
        rows(path, Dropped, column="id", wanted=["1"])
    with pytest.raises(DataError, match=r"no column \['problem_id'\]; it has \['id'\]"):
        find(path, "problem_id", ["1"])
    with pytest.raises(DataError, match="no such file"):
        count_rows(tmp_path / "none.parquet")
    path.write_bytes(b"PAR1 and nothing of it")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        count_rows(path)
