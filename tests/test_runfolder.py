"""Tasks are done once, redone when what they depend on changes, and never half."""

import errno
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cuvee.atomic import hold
from cuvee.errors import CuveeError, DataError
from cuvee.recipe import parse_recipe
from cuvee.records import Dropped, iter_rows, read_rows, write_rows
from cuvee.runfolder import Run, Task, execute, hash_path, is_done, read_manifest

RECIPE = {
    "name": "small",
    "base": "random:two-layer",
    "domains": {"math": {"verifier": "math", "problems": [{"source": "generator:arithmetic"}]}},
    "teachers": [{"name": "ann", "scripted": {}}],
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run", parse_recipe(RECIPE, where="test"))


def copy_task(run: Run, settings: Mapping[str, Any] | None = None) -> Task:
    """A task that copies one file into the run folder, upper case."""
    source, target = run.path.parent / "in.txt", run.path / "01_problems" / "out.txt"

    def work() -> Mapping[str, Any]:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text().upper())
        return {"rows": 1}

    return Task("problems", "math", (source,), (target,), settings or {}, work)


@pytest.fixture
def task(run: Run) -> Task:
    (run.path.parent / "in.txt").write_text("hello")
    run.path.mkdir()
    return copy_task(run)


def done(run: Run, task: Task) -> bool:
    return is_done(run, task, read_manifest(run.path))


def test_task_is_done_after_it_ran_and_not_before(run: Run, task: Task) -> None:
    assert not done(run, task)
    assert execute(run, task) == {"rows": 1}
    assert done(run, task)


def test_changed_input_output_or_setting_reopens_a_task(run: Run, task: Task) -> None:
    execute(run, task)
    assert not done(run, copy_task(run, {"seed": 2}))
    task.outputs[0].write_text("HELLo")
    assert not done(run, task)
    execute(run, task)
    task.inputs[0].write_text("world")
    assert not done(run, task)


def test_touched_but_equal_input_does_not_reopen(run: Run, task: Task) -> None:
    execute(run, task)
    os.utime(task.inputs[0], ns=(1, 1))
    assert done(run, task)


def test_missing_output_reopens(run: Run, task: Task) -> None:
    execute(run, task)
    task.outputs[0].unlink()
    assert not done(run, task)


def test_missing_input_names_the_stage_that_writes_it(run: Run) -> None:
    missing = run.traces("math", "ann")
    task = Task("verify", "math", (missing,), (), {}, dict)
    run.path.mkdir()
    with pytest.raises(DataError, match="cuvee teach"):
        execute(run, task)


def test_failed_task_leaves_no_entry_and_no_old_output(run: Run, task: Task) -> None:
    execute(run, task)

    def fail() -> Mapping[str, Any]:
        raise DataError("broken")

    broken = Task("problems", "math", task.inputs, task.outputs, {"seed": 2}, fail)
    with pytest.raises(DataError):
        execute(run, broken)
    assert read_manifest(run.path) == {}
    assert not task.outputs[0].exists()


def test_unchanged_files_are_not_read_again(run: Run, task: Task) -> None:
    execute(run, task)
    target = task.outputs[0]
    stat = target.stat()
    target.write_text("WORLD")  # same size, and the same time is put back
    os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert done(run, task)  # trusted by size and mtime: the price of not reading 60 GB twice


def test_second_run_is_refused_with_the_holder(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom cuvee.atomic import hold\n"
        "with hold(Path(sys.argv[1])):\n print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(CuveeError, match=str(holder.pid)), hold(tmp_path):
            pass
        holder.kill()
        holder.communicate()
    with hold(tmp_path):  # the lock died with its process
        pass


def test_foreign_manifest_is_refused(run: Run) -> None:
    run.path.mkdir()
    (run.path / "MANIFEST.json").write_text("[]")
    with pytest.raises(DataError, match="move it away"):
        read_manifest(run.path)


def test_hash_of_a_folder_sees_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = hash_path(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert hash_path(tmp_path) != first


ROW = Dropped("1", "math", "trace", None, "too_long", "text \ud800 with a lone surrogate")


def test_rows_survive_a_file_and_lone_surrogates_do_not_break_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    assert write_rows(path, [ROW, ROW], Dropped) == 2
    first = read_rows(path, Dropped)[0]
    assert (first.id, first.model, first.detail) == (
        "1",
        None,
        "text ? with a lone surrogate",
    )


def test_empty_file_of_rows_keeps_its_columns(tmp_path: Path) -> None:
    write_rows(tmp_path / "none.parquet", [], Dropped)
    assert list(iter_rows(tmp_path / "none.parquet", Dropped)) == []


@pytest.mark.parametrize("content", [b"", b"PAR1 not really PAR1"])
def test_unreadable_parquet_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.parquet"):
        read_rows(path, Dropped)


def test_disk_full_names_the_file_and_leaves_no_half_file(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    target = tmp_path / "rows.parquet"
    # The temporary name points at a device that is always full.
    (tmp_path / f".rows.parquet.{os.getpid()}.tmp").symlink_to(full)
    with pytest.raises(OSError, match=r"rows\.parquet") as caught:
        write_rows(target, [ROW], Dropped)
    assert caught.value.errno == errno.ENOSPC
    assert not target.exists()


def test_tasks_of_several_threads_all_stand_in_the_manifest(run: Run) -> None:
    run.path.mkdir()

    def task(number: int) -> Task:
        out = run.path / f"{number}.txt"
        return Task("teach", str(number), (), (out,), {}, lambda: {"n": out.write_text("x")})

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: execute(run, task(number)), range(60)))
    assert len(read_manifest(run.path)) == 60
    assert all(done(run, task(number)) for number in range(60))


@pytest.mark.parametrize(
    ("counts", "is_it"),
    [
        ({}, True),
        ({"failed": 0, "refused": 0}, True),
        ({"failed": 2, "refused": 2}, True),
        ({"failed": 2, "refused": 1}, False),
        ({"failed": 1}, False),
    ],
)
def test_a_task_with_requests_to_ask_again_is_not_done(
    run: Run, counts: dict[str, int], is_it: bool
) -> None:
    run.path.mkdir()
    task = Task("teach", "math/ann", (), (), {}, lambda: counts)
    execute(run, task)
    assert done(run, task) == is_it


def test_the_account_is_drawn_once_and_goes_with_the_folder(run: Run) -> None:
    first = run.account()
    assert first == run.account() == Run(run.path, run.recipe).account()
    assert re.fullmatch("[0-9a-f]{16}", first)
    moved = run.path.rename(run.path.with_name("moved"))
    assert Run(moved, run.recipe).account() == first
    assert Run(run.path, run.recipe).account() != first
    (moved / "account.txt").write_text("mine")
    with pytest.raises(DataError, match=r"account\.txt: 'mine' is no account"):
        Run(moved, run.recipe).account()
