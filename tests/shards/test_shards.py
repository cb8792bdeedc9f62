"""Shards verified on this machine: as one file, resumed, refused, in pieces, on three stores."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from cuvee.cli import app
from cuvee.errors import DataError, RecipeError
from cuvee.recipe import Verify
from cuvee.records import Verdict
from cuvee.shards import pieces, store
from cuvee.shards.check import find_record
from cuvee.shards.pieces import Shard, cut, find_shards
from cuvee.shards.record import How, Record, add, joined, read_record
from cuvee.shards.verify import Verified, verify_shards
from cuvee.shards.workers import on_this_machine
from cuvee.verify.rows import Reading, check_rows
from cuvee.verify.summary import Summary

from .conftest import answers, names, put, shard, table

HOW = How(Reading(), Verify(processes=1), "none")


def run(source: str, out: str, how: How = HOW) -> Verified:
    return verify_shards(source, out, how, open_workers=on_this_machine)


def cuvee(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["verify", *arguments])


def said(result: Result) -> str:
    return " ".join(result.output.split())


def without_seconds(verdicts: list[Verdict]) -> list[Verdict]:
    return [dataclasses.replace(verdict, seconds=0.0) for verdict in verdicts]


def verdicts_at(url: str) -> list[Verdict]:
    return without_seconds([Verdict(**row) for row in table(url).to_pylist()])


def test_a_shard_of_verdicts_for_a_shard_the_same_as_of_its_rows(base: str) -> None:
    rows = {"one": answers("one", 40), "two": answers("two", 7), "none": []}
    for name, held in rows.items():
        put(f"{base}/traces/{name}.parquet", shard(held, groups_of=16))
    put(f"{base}/traces/_SUCCESS", b"")
    put(f"{base}/traces/readme.txt", b"text")
    verified = run(f"{base}/traces/*.parquet", f"{base}/verdicts/")
    assert names(f"{base}/verdicts") == ["none.parquet", "one.parquet", "two.parquet"]
    for name, held in rows.items():
        expected = without_seconds(list(check_rows(held, sandbox="none")))
        assert verdicts_at(f"{base}/verdicts/{name}.parquet") == expected
    assert verified.shards == 3
    assert verified.failed == ()
    assert verified.summary.reasons == {("correct", "equal"): 30, ("wrong", "different"): 17}
    assert verified.summary.first["wrong", "different"].trace_id == "one.parquet: one-0"


def test_what_is_done_is_left_and_counted(base: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        put(f"{base}/traces/{name}.parquet", shard(answers(name, 9)))
    first = run(f"{base}/traces", f"{base}/verdicts")
    made = table(f"{base}/verdicts/a.parquet")
    put(f"{base}/traces/c.parquet", shard(answers("c", 9)))
    second = run(f"{base}/traces", f"{base}/verdicts")
    assert "3 shards: 2 done already, 1 to do" in capsys.readouterr().err
    assert table(f"{base}/verdicts/a.parquet") == made  # its seconds too: not made again
    assert first.summary.reasons.total() == 18
    assert second.summary.reasons.total() == 27


def test_another_input_and_a_cut_output_are_checked_again(
    base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        put(f"{base}/traces/{name}.parquet", shard(answers(name, 9)))
    run(f"{base}/traces", f"{base}/verdicts")
    whole = table(f"{base}/verdicts/b.parquet").drop_columns(["seconds"])
    put(f"{base}/traces/a.parquet", shard(answers("other", 12)))
    put(f"{base}/verdicts/b.parquet", b"PAR1 and no end")
    capsys.readouterr()
    run(f"{base}/traces", f"{base}/verdicts")
    shown = capsys.readouterr().err
    assert "0 done already, 2 to do" in shown
    assert "1 outputs are of another input" in shown
    assert "1 outputs are not whole" in shown
    assert verdicts_at(f"{base}/verdicts/a.parquet")[0].trace_id == "other-0"
    assert table(f"{base}/verdicts/b.parquet").drop_columns(["seconds"]) == whole


def test_a_changed_mark_alone_is_another_input(tmp_path: Path) -> None:
    put(f"{tmp_path}/t/a.parquet", shard(answers("a", 3)))
    run(f"{tmp_path}/t", f"{tmp_path}/v")
    os.utime(tmp_path / "t" / "a.parquet", (1, 1))
    made = (tmp_path / "v" / "a.parquet").stat().st_mtime_ns
    run(f"{tmp_path}/t", f"{tmp_path}/v")
    assert (tmp_path / "v" / "a.parquet").stat().st_mtime_ns > made


def test_outputs_of_other_settings_are_refused_by_name(base: str) -> None:
    put(f"{base}/traces/a.parquet", shard(answers("a", 9)))
    run(f"{base}/traces", f"{base}/verdicts")
    other = How(Reading(columns={"reply": "gold"}), Verify(math_seconds=9), "none")
    with pytest.raises(RecipeError, match=r"columns \{\} there.*now; math_seconds 5.* 9\.0 now"):
        run(f"{base}/traces", f"{base}/verdicts", other)
    more = How(Reading(), Verify(processes=2), "none")  # changes no verdict
    assert run(f"{base}/traces", f"{base}/verdicts", more).shards == 1


def test_a_file_that_is_not_ours_is_never_written_over(base: str) -> None:
    put(f"{base}/traces/a.parquet", shard(answers("a", 9)))
    put(f"{base}/verdicts/a.parquet", shard(answers("mine", 1)))
    with pytest.raises(RecipeError, match=r"a\.parquet was not written by cuvee verify"):
        run(f"{base}/traces", f"{base}/verdicts")
    assert table(f"{base}/verdicts/a.parquet")["id"].to_pylist() == ["mine-0"]


def test_a_broken_shard_is_named_and_the_others_are_done(base: str) -> None:
    good = shard(answers("a", 60))
    put(f"{base}/traces/a.parquet", good)
    put(f"{base}/traces/b.parquet", b"not Parquet")
    put(f"{base}/traces/c.parquet", good[:-20])
    put(f"{base}/traces/d.parquet", good[:40] + bytes(200) + good[240:])
    put(f"{base}/traces/e.parquet", b"")
    result = cuvee(f"{base}/traces", "-o", f"{base}/verdicts", "--sandbox", "none")
    assert result.exit_code == 1
    assert "4 shards or pieces of shards could not be done" in said(result)
    assert all(f"{name}.parquet: " in said(result) for name in "bcde")
    assert "60 verdicts: 1 shards in" in said(result)
    assert names(f"{base}/verdicts") == ["a.parquet"]
    for name in "bcde":
        put(f"{base}/traces/{name}.parquet", good)
    mended = cuvee(f"{base}/traces", "-o", f"{base}/verdicts", "--sandbox", "none")
    assert mended.exit_code == 0
    assert "5 shards: 1 done already, 4 to do" in said(mended)
    assert "300 verdicts" in said(mended)


def test_a_wrong_flag_ends_the_work_before_all_shards_are_read(tmp_path: Path) -> None:
    for number in range(30):
        put(f"{tmp_path}/t/{number:02d}.parquet", shard(answers("a", 1)))
    how = dataclasses.replace(HOW, reading=Reading(columns={"reply": "said"}))
    with pytest.raises(DataError, match=r"the first 5 pieces .* no column for the reply") as error:
        run(f"{tmp_path}/t", f"{tmp_path}/v", how)
    assert "05.parquet" not in str(error.value)


def test_ids_that_look_like_markup_or_control_a_terminal_are_shown_as_text(
    tmp_path: Path,
) -> None:
    put(f"{tmp_path}/t/a.parquet", shard([{"id": "[/b]\x1b[2J", "gold": "1", "reply": "1"}]))
    result = cuvee(f"{tmp_path}/t", "-o", f"{tmp_path}/v")
    assert result.exit_code == 0
    assert "a.parquet: [/b]?[2J" in result.output
    assert "\x1b" not in result.output


def test_rows_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    rows = [{"id": "a", "gold": "1", "reply": ["no text"]}, {"id": "b", "gold": "1", "reply": None}]
    (tmp_path / "t").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t" / "a.parquet")
    verified = run(f"{tmp_path}/t", f"{tmp_path}/v")
    assert verified.summary.reasons["not_checked", "bad_row"] == 1


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 600)


@pytest.mark.usefixtures("small_pieces")
def test_a_big_shard_in_pieces_is_as_in_one(base: str) -> None:
    rows = [{k: v for k, v in row.items() if k != "id"} for row in answers("a", 100)]
    put(f"{base}/traces/a.parquet", shard(rows, groups_of=10))
    (found,) = find_shards(f"{base}/traces", f"{base}/verdicts").shards
    assert len(cut(found)) > 2
    verified = run(f"{base}/traces", f"{base}/verdicts")
    expected = without_seconds(list(check_rows(rows, sandbox="none")))  # numbered 1 to 100
    assert verdicts_at(f"{base}/verdicts/a.parquet") == expected
    assert names(f"{base}/verdicts") == ["a.parquet"]  # nothing is left of the pieces
    assert verified.summary.reasons.total() == 100
    assert run(f"{base}/traces", f"{base}/verdicts").shards == 1


@pytest.mark.usefixtures("small_pieces")
def test_pieces_of_a_shard_that_are_done_are_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = shard(answers("a", 100), groups_of=10)
    put(f"{tmp_path}/t/a.parquet", content)
    out = tmp_path / "v"

    def breaks(_: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cuvee.shards.workers.join_shards", breaks)
        with pytest.raises(KeyboardInterrupt):
            run(f"{tmp_path}/t", str(out))
    parts = sorted((out / "_parts" / "a.parquet").iterdir())
    assert len(parts) > 2
    parts[1].unlink()
    capsys.readouterr()
    run(f"{tmp_path}/t", str(out))
    assert "1 to do, in 1 pieces" in capsys.readouterr().err
    assert [v.trace_id for v in verdicts_at(f"{out}/a.parquet")] == [f"a-{i}" for i in range(100)]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.integers(1, 120))
def test_cuts_hold_every_row_group_once_in_order(sizes: list[int], most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE_BYTES", most)
        patch.setattr(pieces, "_group_sizes", lambda _: sizes)
        found = cut(Shard("a.parquet", "/t/a.parquet", "/v/a.parquet", 10**9, ""))
    if len(found) == 1:
        assert found[0].groups is None
        return
    spans = [range(*piece.groups) for piece in found if piece.groups is not None]
    assert [number for span in spans for number in span] == list(range(len(sizes)))
    assert all(len(span) == 1 or sum(sizes[n] for n in span) <= most for span in spans)


def test_names_keep_the_folders_below_the_pattern(base: str) -> None:
    for name in ("x/part.parquet", "y/z/part.parquet"):
        put(f"{base}/traces/{name}", shard(answers(name, 2)))
    run(f"{base}/traces/**/*.parquet", f"{base}/verdicts")
    assert names(f"{base}/verdicts") == ["x/part.parquet", "y/z/part.parquet"]


def test_what_is_written_is_no_input_of_the_next_time(base: str) -> None:
    put(f"{base}/traces/a.parquet", shard(answers("a", 2)))
    for _ in range(2):
        assert run(f"{base}/traces/**/*.parquet", f"{base}/traces/verdicts").shards == 1
    with pytest.raises(DataError, match=r"no shard: 0 files that do not.*files in --out itself"):
        run(f"{base}/traces/*.parquet", f"{base}/traces")


def test_a_place_without_shards_is_said(base: str) -> None:
    with pytest.raises(DataError, match=r"no such file or folder|no shard"):
        run(f"{base}/nothing", f"{base}/verdicts")
    put(f"{base}/traces/a.jsonl", b"{}")
    with pytest.raises(DataError, match=r"no shard: 1 files that do not end in \.parquet"):
        run(f"{base}/traces/*", f"{base}/verdicts")


def test_a_store_that_fails_now_and_then_is_asked_again(shelf: Any) -> None:
    for number in range(6):
        put(f"shelf://b/t/{number}.parquet", shard(answers(str(number), 20), groups_of=5))
    shelf.fails_first = 2
    assert run("shelf://b/t", "shelf://b/v").summary.reasons.total() == 120
    assert run("shelf://b/t", "shelf://b/v").shards == 6
    assert min(shelf.failed.values()) == 2
    shelf.down = True
    with pytest.raises(DataError, match=r"shelf://b/t: cannot be listed: .*the shelf said 503"):
        run("shelf://b/t", "shelf://b/v")


def test_a_shard_is_seen_whole_or_not_at_all(shelf: Any, tmp_path: Path) -> None:
    put("shelf://b/t/a.parquet", shard(answers("a", 2)))
    run("shelf://b/t", "shelf://b/v")
    assert [key for method, key, _ in shelf.asked if method == "PUT"][1:] == ["b/v/a.parquet"]
    put(f"{tmp_path}/t/a.parquet", shard(answers("a", 2)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            run(f"{tmp_path}/t", f"{tmp_path}/v")
    assert names(f"{tmp_path}/v") == []


def test_the_record_says_how_and_from_what_a_shard_was_made(shelf: Any) -> None:
    put("shelf://b/t/a.parquet", shard(answers("a", 3)))
    run("shelf://b/t", "shelf://b/v")
    record = find_record("shelf://b/v/a.parquet")
    assert record is not None
    assert record.size == len(shelf.held["b/t/a.parquet"])
    assert record.mark.startswith("ETag ")
    assert record.settings == HOW.settings()
    assert (record.rows, record.groups) == (3, None)
    assert record.reasons == (
        ("wrong", "different", 1, "a-0", ""),
        ("correct", "equal", 2, "a-1", ""),
    )


@given(
    st.lists(
        st.dictionaries(
            st.tuples(st.sampled_from(["correct", "wrong"]), st.text(max_size=3)),
            st.integers(1, 9),
            max_size=3,
        ),
        min_size=1,
        max_size=4,
    )
)
def test_records_come_back_from_text_and_counts_add_up(
    counts: list[dict[tuple[str, str], int]],
) -> None:
    records = [
        Record(
            {"a": 1},
            size=1,
            mark="m",
            groups=(0, 1),
            versions={},
            rows=sum(count.values()),
            reasons=tuple((v, r, n, "i", "\udc80") for (v, r), n in count.items()),
            checkers={"c": 1},
        )
        for count in counts
    ]
    assert [read_record(record.to_json().encode()) for record in records] == records
    summary = Summary()
    add(summary, joined(records))
    assert summary.reasons.total() == sum(sum(count.values()) for count in counts)
    assert summary.checkers["c"] == len(counts)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"reasons": 1}', b"\xff"])
def test_what_is_no_record_is_said(text: bytes) -> None:
    with pytest.raises(ValueError):
        read_record(text)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://key:secret@bucket/t", "a s3:// URL with a password in it"),
        ("s3://bucket/t", "s3:// needs a package that is not installed: Install s3fs"),
        ("nowhere://t", "nowhere://: Protocol not known: nowhere"),
        ("https://host/t.parquet", "https:// cannot be listed or written to"),
        ("simplecache::s3://bucket/t", "a chained URL"),
    ],
)
def test_places_that_cannot_be_used_are_refused_by_name(
    tmp_path: Path, url: str, message: str
) -> None:
    put(f"{tmp_path}/t/a.parquet", shard([]))
    for place, out in ((url, str(tmp_path)), (f"{tmp_path}/t", url)):
        result = cuvee(place, "-o", out)
        assert result.exit_code == 2
        assert message in said(result)
        assert "secret" not in said(result)


def test_flags_that_shards_cannot_honour_are_refused(tmp_path: Path) -> None:
    put(f"{tmp_path}/t/a.parquet", shard([]))
    place = f"{tmp_path}/t/*.parquet"
    for flags, message in (
        (("--limit", "3", "-o", "v"), "--limit: only with a FILE or a RECIPE; here name fewer"),
        (("--set", "seed=1", "-o", "v"), "--set: only with a RECIPE"),
        ((), "shards: --out FOLDER is needed"),
        (("--address", "auto", "-o", "v"), "--address 'auto': only with workers: ray"),
    ):
        result = cuvee(place, *flags)
        assert result.exit_code == 2
        assert message in said(result)


def test_marks_are_of_the_content_before_the_time() -> None:
    assert store.mark_of({"mtime": 1, "ETag": '"x"'}) == 'ETag "x"'
    assert store.mark_of({"mtime": 1.5, "name": "n"}) == "mtime 1.5"
    assert store.mark_of({"size": 1}) == ""


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.005)


def test_killed_in_the_middle_it_goes_on_with_the_shards_that_are_not_done(
    tmp_path: Path,
) -> None:
    rows = [answers(str(number), 10) for number in range(60)]
    for number, held in enumerate(rows):
        put(f"{tmp_path}/t/{number:03d}.parquet", shard(held))
    out = tmp_path / "v"
    arguments = [sys.executable, "-m", "cuvee.cli", "verify", f"{tmp_path}/t", "-o", str(out)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    until(lambda: len(list(out.glob("*.parquet"))) >= 3)
    process.kill()
    process.communicate()
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    assert 3 <= len(before) < 60
    result = cuvee(f"{tmp_path}/t", "-o", str(out))
    assert result.exit_code == 0
    assert f"60 shards: {len(before)} done already" in said(result)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    for number, held in enumerate(rows):
        expected = without_seconds(list(check_rows(held)))
        assert verdicts_at(f"{out}/{number:03d}.parquet") == expected
