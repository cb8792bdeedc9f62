"""Rows are written as they come, whole or not at all."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cuvee import records
from cuvee.records import Dropped, read_rows, write_rows


def rows(count: int) -> Iterator[Dropped]:
    return (Dropped(str(n), "d", "trace", None, "reason", None) for n in range(count))


@pytest.mark.parametrize("count", [0, 1, 4, 5, 9])
def test_what_is_written_is_read_whatever_the_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(records, "GROUP_ROWS", 4)
    file = tmp_path / "rows.parquet"
    assert write_rows(file, rows(count), Dropped) == count
    assert read_rows(file, Dropped) == list(rows(count))
    assert pq.read_metadata(file).num_row_groups == -(-count // 4)


def test_rows_that_fail_to_come_leave_no_file(tmp_path: Path) -> None:
    def failing() -> Iterator[Dropped]:
        yield from rows(3)
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        write_rows(tmp_path / "rows.parquet", failing(), Dropped)
    assert list(tmp_path.iterdir()) == []


def test_long_rows_are_written_and_read_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "GROUP_CHARACTERS", 10_000)
    monkeypatch.setattr(records, "BATCH_BYTES", 10_000)
    long = [Dropped(str(n), "d", "trace", None, "reason", "x" * 3_000) for n in range(50)]
    file = tmp_path / "rows.parquet"
    assert write_rows(file, iter(long), Dropped) == 50
    assert pq.read_metadata(file).num_row_groups == 13  # of four each: over 10,000 characters
    assert read_rows(file, Dropped) == long
