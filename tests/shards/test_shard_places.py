"""Which files are shards (links, hidden names, folders like patterns), and what failing leaves."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from cuvee.cli.verify import is_shards
from cuvee.errors import DataError
from cuvee.recipe import Verify
from cuvee.shards import pieces, store
from cuvee.shards.pieces import Found, cut, find_shards
from cuvee.shards.record import How
from cuvee.shards.verify import Verified, verify_shards
from cuvee.shards.workers import on_this_machine
from cuvee.verify.rows import Reading

from .conftest import answers, names, put, shard

HOW = How(Reading(), Verify(processes=1), "none")


def run(source: str, out: str) -> Verified:
    return verify_shards(source, out, HOW, open_workers=on_this_machine)


def found_names(found: Found) -> list[str]:
    return [each.name for each in found.shards]


def test_a_linked_shard_is_read_and_its_mark_is_that_of_what_it_leads_to(tmp_path: Path) -> None:
    put(f"{tmp_path}/blobs/1f", shard(answers("a", 6)))
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "a.parquet").symlink_to(tmp_path / "blobs" / "1f")
    assert run(f"{tmp_path}/t", f"{tmp_path}/v").summary.reasons.total() == 6
    (linked,) = find_shards(f"{tmp_path}/t", f"{tmp_path}/v").shards
    assert linked.size == (tmp_path / "blobs" / "1f").stat().st_size
    put(f"{tmp_path}/blobs/1f", shard(answers("b", 9)))
    assert run(f"{tmp_path}/t", f"{tmp_path}/v").summary.reasons.total() == 9


def test_linked_folders_are_gone_through(tmp_path: Path) -> None:
    put(f"{tmp_path}/else/x/a.parquet", shard([]))
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "deep").symlink_to(tmp_path / "else")
    found = find_shards(f"{tmp_path}/t/**/*.parquet", f"{tmp_path}/v")
    assert found_names(found) == ["deep/x/a.parquet"]
    (tmp_path / "top").symlink_to(tmp_path / "else" / "x")
    assert found_names(find_shards(f"{tmp_path}/top", f"{tmp_path}/v")) == ["a.parquet"]


def test_a_link_to_nothing_is_a_shard_that_failed(tmp_path: Path) -> None:
    put(f"{tmp_path}/t/a.parquet", shard(answers("a", 3)))
    (tmp_path / "t" / "b.parquet").symlink_to(tmp_path / "gone")
    verified = run(f"{tmp_path}/t", f"{tmp_path}/v")
    assert verified.shards == 1
    (why,) = verified.failed
    assert why.startswith("b.parquet: ")
    assert "No such file" in why


def test_links_in_a_circle_are_not_gone_round(tmp_path: Path) -> None:
    put(f"{tmp_path}/t/x/a.parquet", shard([]))
    (tmp_path / "t" / "x" / "up").symlink_to(tmp_path / "t")
    (tmp_path / "t" / "self").symlink_to(tmp_path / "t" / "self")
    found = find_shards(f"{tmp_path}/t/**", f"{tmp_path}/v")
    assert found_names(found) == ["x/a.parquet"]
    assert found.others == 2


def test_folders_that_are_linked_into_one_another_are_each_gone_through(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        put(f"{tmp_path}/t/{name}/{name}.parquet", shard([]))
        (tmp_path / "t" / name / "other").symlink_to(tmp_path / "t" / other)
    found = find_shards(f"{tmp_path}/t/**", f"{tmp_path}/v")
    shards = ["a/a.parquet", "a/other/b.parquet", "b/b.parquet", "b/other/a.parquet"]
    assert found_names(found) == shards
    assert found.others == 2


def test_names_that_lead_out_of_the_folder_or_are_hidden_are_no_shards(shelf: Any) -> None:
    content = shard(answers("a", 3))
    for name in ("../../x", "a//b", "_temporary/0/c", ".hidden/d", "./e", "_f", "in/good"):
        shelf.held[f"b/t/{name}.parquet"] = content
    found = find_shards("shelf://b/t/**/*.parquet", "shelf://b/v")
    assert found_names(found) == ["in/good.parquet"]
    assert found.others == 6
    run("shelf://b/t/**/*.parquet", "shelf://b/v")
    assert names("shelf://b/v") == ["in/good.parquet"]
    assert "b/x.parquet" not in shelf.held


def test_a_rename_whose_reply_was_lost_is_done(
    shelf: Any, installed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def renames(_: Any, old: str, new: str) -> None:
        shelf.held[new] = shelf.held.pop(old)
        tries.append(new)
        raise TimeoutError("no reply")

    monkeypatch.setattr(installed.ShelfFileSystem, "mv", renames)
    put("shelf://b/t/a.parquet", shard(answers("a", 3)))
    verified = run("shelf://b/t", "shelf://b/v")
    assert (verified.shards, verified.failed) == (1, ())
    assert tries == ["b/v/a.parquet"]
    assert names("shelf://b/v") == ["a.parquet"]


@pytest.mark.parametrize("name", ["run[1]", "all*", "why?"])
def test_a_folder_that_is_there_is_no_pattern(tmp_path: Path, name: str) -> None:
    put(f"{tmp_path}/{name}/a.parquet", shard(answers("a", 3)))
    put(f"{tmp_path}/run1/b.parquet", shard(answers("b", 3)))
    assert is_shards(f"{tmp_path}/{name}")
    run(f"{tmp_path}/{name}", f"{tmp_path}/{name}/v")
    assert names(f"{tmp_path}/{name}/v") == ["a.parquet"]
    assert found_names(find_shards(f"{tmp_path}/run[1]*/*", f"{tmp_path}/v"))[-1] == (
        "run1/b.parquet"
    )


def test_pieces_left_of_shards_that_are_done_are_removed_and_no_others(
    base: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 600)
    put(f"{base}/t/a.parquet", shard(answers("a", 60), groups_of=10))
    put(f"{base}/t/sub.parquet/a.parquet", shard(answers("b", 6)))
    source, out = f"{base}/t/**/*.parquet", f"{base}/v"
    with monkeypatch.context() as patch:  # ended between writing the shard and removing
        patch.setattr(store, "remove", lambda _: None)
        run(source, out)
    assert len([name for name in names(out) if name.startswith("_parts/")]) > 2
    left = ["_parts/a.parquet/deeper/000000-000001.parquet", "_parts/other.parquet/1.parquet"]
    for name in left:
        put(f"{out}/{name}", b"")
    capsys.readouterr()
    assert run(source, out).shards == 2
    assert "pieces in --out are of shards that are done: removed" in capsys.readouterr().err
    assert names(out) == [*left, "a.parquet", "sub.parquet/a.parquet"]


def test_pieces_that_may_not_be_removed_do_not_end_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(f"{tmp_path}/t/a.parquet", shard(answers("a", 3)))
    run(f"{tmp_path}/t", f"{tmp_path}/v")
    folder = tmp_path / "v" / "_parts" / "a.parquet"
    folder.mkdir(parents=True)
    shutil.copy(tmp_path / "v" / "a.parquet", folder / "000000-000001.parquet")

    def refuses(_: Path) -> None:
        raise PermissionError("not\x1b allowed")

    monkeypatch.setattr("os.remove", refuses)
    assert run(f"{tmp_path}/t", f"{tmp_path}/v").shards == 1
    shown = capsys.readouterr().err
    assert "could not all be removed: not? allowed" in " ".join(shown.split())


def test_a_big_shard_is_no_one_piece_because_its_store_does_not_answer(
    shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 600)
    put("shelf://b/t/a.parquet", shard(answers("a", 60), groups_of=10))
    (found,) = find_shards("shelf://b/t", "shelf://b/v").shards
    monkeypatch.setattr(shelf, "fails_first", 2)
    assert len(cut(found)) > 2  # asked again
    with monkeypatch.context() as patch:
        patch.setattr(shelf, "down", True)
        with pytest.raises(ConnectionError, match="the shelf said 503"):
            cut(found)
    whole = shelf.answer

    def answer(method: str, key: str, body: bytes, span: str) -> Any:
        return (503, b"", False) if span else whole(method, key, body, span)

    monkeypatch.setattr(shelf, "fails_first", 0)
    monkeypatch.setattr(shelf, "answer", answer)
    with pytest.raises(DataError, match=r"a\.parquet: cannot be read: .*the shelf said 503"):
        run("shelf://b/t", "shelf://b/v")
    assert names("shelf://b/v") == []


def test_a_big_file_that_is_no_parquet_is_one_piece_that_says_why(
    base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 600)
    put(f"{base}/t/a.parquet", bytes(5000))
    put(f"{base}/t/b.parquet", shard(answers("b", 60), groups_of=10)[:-12] + b"\0" * 8 + b"PAR1")
    found = find_shards(f"{base}/t", f"{base}/v").shards
    assert [len(cut(each)) for each in found] == [1, 1]
    verified = run(f"{base}/t", f"{base}/v")
    assert [why.partition(":")[0] for why in verified.failed] == ["a.parquet", "b.parquet"]
