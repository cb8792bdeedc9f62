"""A merge that is killed, interrupted or out of disk goes on; until its end there is no model."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cuvee.errors import CuveeError, MergeError
from cuvee.merge import plan, stream
from cuvee.merge.config.read import parse_config
from cuvee.merge.journal import JOURNAL, note
from cuvee.merge.shards import plan_shards
from cuvee.merge.stream import merge

MERGE = """
import json, sys
from pathlib import Path
from cuvee.merge.config.read import parse_config
from cuvee.merge.stream import merge
merge(parse_config(json.loads(sys.argv[1]), where="test"), Path(sys.argv[2]), threads=2)
"""
TENSORS = 24
Ask = dict[str, Any]


def write(folder: Path, *, seed: int, rows: int, count: int = TENSORS) -> Path:
    """Write a checkpoint of `count` float32 tensors [rows, 512]."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "a"}))
    (folder / "generation_config.json").write_text(json.dumps({"max_length": 7}))
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        f"model.layers.{n}.mlp.up_proj.weight": torch.randn((rows, 512), generator=generator)
        for n in range(count)
    }
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """A merge of models of 75 MB, which takes the better part of a second."""
    folder = tmp_path_factory.mktemp("large")
    return dares(*(write(folder / n, seed=i, rows=1536) for i, n in enumerate(("base", "a", "b"))))


@pytest.fixture
def small(tmp_path: Path) -> Ask:
    """A merge of models of 200 kB, which a test may change."""
    return dares(*(write(tmp_path / n, seed=i, rows=4) for i, n in enumerate(("base", "a", "b"))))


def dares(base: Path, *models: Path) -> Ask:
    return {
        "merge_method": "dare_ties",
        "base_model": str(base),
        "models": [str(model) for model in models],
        "parameters": {"weight": 0.5, "density": 0.5},
        "seed": 3,
    }


def run(ask: Ask, out: Path) -> None:
    merge(parse_config(ask, where="test"), out, threads=2)


def start(ask: Ask, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", MERGE, json.dumps(ask), str(out)]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def partial_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.partial")


def finished(out: Path) -> int:
    """Return how many tensors a merge has written down as finished."""
    journal = partial_of(out) / JOURNAL
    return max(0, journal.read_bytes().count(b"\n") - 1) if journal.exists() else 0


def wait_for(process: subprocess.Popen[bytes], out: Path, tensors: int) -> None:
    """Wait until a merge has finished so many tensors."""
    end = time.monotonic() + 60
    while process.poll() is None and finished(out) < tensors and time.monotonic() < end:
        time.sleep(0.001)
    assert process.poll() is None, "it ended before it could be stopped"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_no_model(out: Path) -> None:
    assert not out.exists()
    assert not (partial_of(out) / "config.json").exists()


@pytest.fixture(scope="module")
def undisturbed(large: Ask, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    run(large, out)
    return contents(out)


@pytest.mark.parametrize("moments", [(1,), (9,), (3, 8, 14)])
def test_a_killed_merge_goes_on_to_the_same_bytes(
    large: Ask,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    moments: tuple[int, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    for tensors in moments:
        process = start(large, out)
        wait_for(process, out, tensors)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert_no_model(out)
        assert tensors <= finished(out) < TENSORS
    done = finished(out)
    run(large, out)
    assert f"going on; {done} of {TENSORS} tensors are merged" in capsys.readouterr().err
    assert contents(out) == undisturbed
    assert not partial_of(out).exists()


def test_ctrl_c_ends_a_merge_soon_and_it_goes_on(
    large: Ask,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    process = start(large, out)
    wait_for(process, out, 2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert errors.rstrip().endswith(b"KeyboardInterrupt")
    assert_no_model(out)
    assert 2 <= finished(out) < TENSORS
    run(large, out)
    assert going_on(capsys)
    assert contents(out) == undisturbed


def test_a_disk_that_fails_at_the_last_sync_is_said_with_the_folder(
    small: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left.*\.out\.partial"):
            merge(parse_config(small, where="test"), out, threads=1, sync=True)
    assert not out.exists()
    run(small, out)
    assert contents(out) == fresh(small, tmp_path)


def test_a_second_merge_into_the_folder_is_refused_and_the_first_goes_on(
    large: Ask, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start(large, out)
    wait_for(process, out, 1)
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(CuveeError, match=f"another process holds this folder .*{process.pid}"):
        run(large, out)
    process.send_signal(signal.SIGCONT)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert contents(out) == undisturbed


@pytest.fixture
def interrupted(small: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """A merge that was interrupted (Ctrl-C) after 5 tensors."""
    with monkeypatch.context() as patched:
        interrupt_after(5, patched)
        with pytest.raises(KeyboardInterrupt) as raised:
            run(small, tmp_path / "out")
        assert raised.traceback  # which keeps alive what was not closed
        at_work = [thread.name for thread in threading.enumerate()]
        assert not [name for name in at_work if name.startswith(("merge", "tensor", "sync"))]
    assert finished(tmp_path / "out") == 5
    assert_no_model(tmp_path / "out")
    return small


def interrupt_after(tensors: int, patched: pytest.MonkeyPatch) -> None:
    noted = []

    def noting(*arguments: Any) -> None:
        note(*arguments)
        noted.append(1)
        if len(noted) == tensors:
            raise KeyboardInterrupt

    patched.setattr(stream, "note", noting)


def going_on(capsys: pytest.CaptureFixture[str]) -> bool:
    return "going on" in capsys.readouterr().err


def fresh(ask: Ask, tmp_path: Path) -> dict[str, bytes]:
    """Merge in another place; return the result."""
    run(ask, tmp_path / "fresh")
    return contents(tmp_path / "fresh")


def test_finished_tensors_are_not_merged_again(interrupted: Ask, tmp_path: Path) -> None:
    file = partial_of(tmp_path / "out") / "model.safetensors"
    data = bytearray(file.read_bytes())
    (length,) = (int.from_bytes(data[:8], "little"),)
    header = json.loads(data[8 : 8 + length])
    for name in header.keys() - {"__metadata__"}:  # overwrite them all
        begin, end = (8 + length + offset for offset in header[name]["data_offsets"])
        data[begin:end] = bytes(end - begin)
    file.write_bytes(data)
    run(interrupted, tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    again = [name for name, tensor in found.items() if tensor.any()]
    assert len(found) - len(again) == 5


def test_a_journal_with_a_cut_last_line_loses_that_tensor_alone(
    interrupted: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = partial_of(tmp_path / "out") / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-20])
    run(interrupted, tmp_path / "out")
    assert f"going on; 4 of {TENSORS}" in capsys.readouterr().err
    assert contents(tmp_path / "out") == fresh(interrupted, tmp_path)


def change_seed(ask: Ask) -> None:
    ask["seed"] = 4


def change_weight(ask: Ask) -> None:
    ask["parameters"]["weight"] = 0.25


def change_dtype(ask: Ask) -> None:
    ask["out_dtype"] = "bfloat16"


def touch_model(ask: Ask) -> None:
    os.utime(Path(ask["models"][1], "model.safetensors"), ns=(1, 1))


def change_base(ask: Ask) -> None:
    file = Path(ask["base_model"], "model.safetensors")
    tensors = {name: tensor + 1 for name, tensor in load_file(file).items()}
    save_file(tensors, file, {"format": "pt"})


def restart_machine(ask: Ask) -> None:
    [journal] = Path(ask["base_model"]).parent.glob(f".*.partial/{JOURNAL}")
    key, rest = journal.read_text().split("\n", 1)
    journal.write_text(json.dumps(json.loads(key) | {"boot": "another"}) + "\n" + rest)


def remove_weights(ask: Ask) -> None:
    [file] = Path(ask["base_model"]).parent.glob(".*.partial/model.safetensors")
    file.unlink()


def damage_journal(ask: Ask) -> None:
    [journal] = Path(ask["base_model"]).parent.glob(f".*.partial/{JOURNAL}")
    journal.write_bytes(b"\x00" * 100 + b"\n" + journal.read_bytes())


@pytest.mark.parametrize(
    "change",
    [
        change_seed, change_weight, change_dtype, touch_model, change_base, restart_machine,
        remove_weights, damage_journal,
    ],
)  # fmt: skip
def test_another_merge_starts_over(
    interrupted: Ask,
    tmp_path: Path,
    change: Callable[[Ask], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(interrupted)
    run(interrupted, tmp_path / "out")
    assert not going_on(capsys)
    assert contents(tmp_path / "out") == fresh(interrupted, tmp_path)


def test_nothing_of_another_merge_stays_in_the_folder(
    interrupted: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `model.safetensors` of the first would be read in place of the second's shards.
    partial = partial_of(tmp_path / "out")
    (partial / "tokenizer.json").write_text("{}")
    (partial / "config.json").write_text("{}")

    def small_shards(*arguments: Any, **options: Any) -> Any:
        return plan_shards(*arguments, **options, shard_bytes=50_000)

    monkeypatch.setattr(plan, "plan_shards", small_shards)
    run(interrupted | {"seed": 4}, tmp_path / "out")
    assert contents(tmp_path / "out") == fresh(interrupted | {"seed": 4}, tmp_path)


def test_what_a_killed_merge_wrote_already_needs_no_space_again(
    interrupted: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 23 of 24 tensors of 8 kB are on the disk, and there is room for two more.
    with monkeypatch.context() as patched:
        interrupt_after(TENSORS - 6, patched)
        with pytest.raises(KeyboardInterrupt):
            run(interrupted, tmp_path / "out")
    usage = shutil.disk_usage(tmp_path)
    room = 2 * 4 * 512 * 4
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: usage._replace(free=room))
        with pytest.raises(MergeError, match="GB needed"):
            run(interrupted, tmp_path / "another")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=room))
    run(interrupted, tmp_path / "out")
    assert (tmp_path / "out" / "config.json").exists()


def test_mode_mergekit_starts_over_for_its_random_numbers(
    interrupted: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = {"merge_method": "arcee_fusion", "mode": "mergekit", "models": interrupted["models"]}
    with pytest.MonkeyPatch.context() as patched:
        interrupt_after(5, patched)
        with pytest.raises(KeyboardInterrupt):
            run(ask, tmp_path / "out")
    assert_no_model(tmp_path / "out")
    run(ask, tmp_path / "out")
    assert not going_on(capsys)
    assert contents(tmp_path / "out") == fresh(ask, tmp_path)


def test_a_file_that_may_not_grow_is_an_os_error_with_its_path(small: Ask, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match=r"\.out\.partial") as caught:
            run(small, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno in (errno.EFBIG, errno.ENOSPC)
    assert_no_model(tmp_path / "out")
    run(small, tmp_path / "out")
    assert contents(tmp_path / "out") == fresh(small, tmp_path)


FULL_DISK = """
import errno, json, shutil, sys
from pathlib import Path
from cuvee.merge.config.read import parse_config
from cuvee.merge.stream import merge
ask, folder, result = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
filler = folder / "filler"
with filler.open("wb") as file:
    file.truncate(0)
    file.write(bytes(60_000_000))
usage = shutil.disk_usage(folder)
shutil.disk_usage = lambda _: usage._replace(free=10**12)  # as if it had filled up since
try:
    merge(parse_config(ask, where="test"), folder / "out", threads=2)
except OSError as error:
    assert error.errno == errno.ENOSPC, error
    assert ".out.partial" in error.filename, error
else:
    raise SystemExit("the disk was not full")
assert not (folder / "out").exists()
assert not (folder / ".out.partial" / "config.json").exists()
filler.unlink()
merge(parse_config(ask, where="test"), folder / "out", threads=2)
shutil.copytree(folder / "out", result)
"""


@pytest.mark.sandbox
def test_a_merge_goes_on_after_the_disk_was_full(
    large: Ask, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    small_disk = ["bwrap", "--dev-bind", "/", "/", "--size", "100000000", "--tmpfs", str(disk)]
    arguments = [json.dumps(large), str(disk), str(tmp_path / "result")]
    command = [*small_disk, sys.executable, "-c", FULL_DISK, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "going on" in done.stderr
    assert contents(tmp_path / "result") == undisturbed
