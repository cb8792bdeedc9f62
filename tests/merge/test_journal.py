"""What a killed merge leaves written down, and when it counts."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cuvee.merge.journal import JOURNAL, merge_key, note, open_journal, read_journal

KEY = {"config": {"models": ["a", "b"]}, "files": [["a", 1, 2]], "version": "1"}
ROWS = [{"name": "x", "sums": [0.1, 1e300]}, {"name": "y", "sums": [2.0]}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with open_journal(tmp_path, KEY, ROWS[:1]) as journal:
        note(journal, ROWS[1])
    return tmp_path


def test_rows_come_back_for_the_same_merge_alone(folder: Path) -> None:
    assert read_journal(folder, KEY) == ROWS
    assert read_journal(folder, KEY | {"version": "2"}) == []
    assert [path.name for path in folder.iterdir()] == [JOURNAL]


def test_a_row_counts_before_the_journal_is_closed(tmp_path: Path) -> None:
    with open_journal(tmp_path, KEY, []) as journal:
        note(journal, ROWS[0])
        assert read_journal(tmp_path, KEY) == ROWS[:1]


def test_there_is_nothing_where_no_merge_was(tmp_path: Path) -> None:
    assert read_journal(tmp_path, KEY) == []


def test_a_line_cut_anywhere_does_not_count(folder: Path) -> None:
    whole = (folder / JOURNAL).read_bytes()
    ends = [place for place, byte in enumerate(whole, 1) if byte == ord("\n")]
    for size in range(len(whole) + 1):
        (folder / JOURNAL).write_bytes(whole[:size])
        finished = sum(end <= size for end in ends[1:])
        assert read_journal(folder, KEY) == ROWS[:finished]


def test_a_cut_line_is_gone_when_the_merge_goes_on(folder: Path) -> None:
    whole = (folder / JOURNAL).read_bytes()
    (folder / JOURNAL).write_bytes(whole[:-5])
    with open_journal(folder, KEY, read_journal(folder, KEY)) as journal:
        note(journal, ROWS[1])
    assert (folder / JOURNAL).read_bytes() == whole


@pytest.mark.parametrize("content", [b"\n", b"\x00\x00\n", b"no json\n", b"[]\n", b"{}\nno json\n"])
def test_what_is_no_journal_is_no_merge(tmp_path: Path, content: bytes) -> None:
    (tmp_path / JOURNAL).write_bytes(content)
    assert read_journal(tmp_path, KEY) == []


def grow(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"x")


def touch(file: Path) -> None:
    os.utime(file, ns=(1, 1))


@pytest.mark.parametrize("change", [grow, touch])
def test_another_state_of_a_file_is_another_merge(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights")

    def key(**changes: Any) -> dict[str, Any]:
        values = {"config": {"seed": 0}, "out_dtype": "float32", "version": "1"} | changes
        return merge_key(files=[file, file], **values)

    before = key()
    assert key() == before
    assert len(before["files"]) == 1
    assert key(config={"seed": 1}) != before
    assert key(out_dtype="bfloat16") != before
    assert key(version="2") != before
    change(file)
    assert key() != before
