"""Killed with signal 9 anywhere, and begun again: the same weights, logs and best checkpoint.

Each training runs in a forked child, which kills itself at the place under test: that is a
real death, without any clean-up, and costs no import.
"""

import dataclasses
import io
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cuvee.train import watch
from cuvee.train.job import Job, prepare, read_job
from cuvee.train.sft import run
from cuvee.train.watch import complete_checkpoints, read_log

pytestmark = [
    pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.usefixtures("one_thread"),
]
Kill = Callable[[], None]
MakeJob = Callable[..., Job]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def during_the_write_of_a_checkpoint() -> None:
    """Die with half of the second checkpoint's optimizer on the disk."""
    written, save = [], torch.save

    def half(value: Any, file: Any, *more: Any, **given: Any) -> None:
        save(value, file, *more, **given)
        if Path(file).name == "optimizer.pt":
            written.append(file)
            if len(written) == 2:
                os.truncate(file, Path(file).stat().st_size // 2)
                die()

    setattr(torch, "save", half)  # noqa: B010  # mypy knows its type


def before_its_mark() -> None:
    setattr(watch, "mark_complete", lambda _: die())  # noqa: B010


def while_an_old_checkpoint_is_removed() -> None:
    def some(path: Path) -> None:
        next(path.glob("*.safetensors")).unlink()
        die()

    setattr(watch, "remove", some)  # noqa: B010


def with_half_a_line_of_the_log() -> None:
    append = watch._append

    def half(file: Path, line: Any) -> None:
        append(file, line)
        if line["step"] == 5:
            os.truncate(file, file.stat().st_size - 7)
            die()

    setattr(watch, "_append", half)  # noqa: B010


def at_step(step: int) -> Kill:
    def patch() -> None:
        on_step_begin = watch.Watch.on_step_begin

        def kill(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
            on_step_begin(self, args, state, control, **more)
            if state.global_step == step:
                die()

        setattr(watch.Watch, "on_step_begin", kill)  # noqa: B010

    return patch


def in_a_child(job: Job, kill: Kill | None) -> int:
    """Train in a forked child, which `kill` prepares to die; return its exit code."""

    def child() -> None:
        torch.set_num_threads(1)  # OpenMP's threads do not outlive a fork; it would wait for them
        if kill is not None:
            kill()
        run(read_job(prepare(job)), io.StringIO())

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode


def said(job: Job) -> list[Any]:
    """Return what must not differ: the logs but for the seconds."""
    steps = [(x["step"], x["loss"], x["grad_norm"], x["tokens"]) for x in read_log(job.log)]
    return [steps, read_log(job.held_out_log)]


KILLS = (
    at_step(1),
    with_half_a_line_of_the_log,
    during_the_write_of_a_checkpoint,
    while_an_old_checkpoint_is_removed,
    before_its_mark,
    at_step(8),
)
LORA = {"rank": 4, "alpha": 8, "dropout": 0.2}


@pytest.mark.parametrize(
    ("lora", "kills"),
    [
        (None, (at_step(1), during_the_write_of_a_checkpoint)),
        pytest.param(None, KILLS, marks=pytest.mark.slow),
        pytest.param(LORA, KILLS, marks=pytest.mark.slow),
    ],
    ids=["full", "full everywhere", "lora everywhere"],
)
def test_killed_anywhere_it_ends_in_the_same_weights(
    make_job: MakeJob, tmp_path: Path, lora: dict[str, float] | None, kills: Sequence[Kill]
) -> None:
    job = make_job(
        24, epochs=3, lora=lora, held_out=0.2, held_out_every=2, best_checkpoint=True,
        save_every=3, keep_checkpoints=1, packing=False, batch_size=6,
    )  # fmt: skip
    for kill in kills:
        assert in_a_child(job, kill) == -signal.SIGKILL, kill.__name__
    assert in_a_child(job, None) == 0

    undisturbed = dataclasses.replace(job, folder=tmp_path / "undisturbed")
    assert in_a_child(undisturbed, None) == 0
    assert said(job) == said(undisturbed)
    assert (
        complete_checkpoints(job.checkpoints).keys()
        == complete_checkpoints(undisturbed.checkpoints).keys()
    )
    ours, theirs = (load_file(j.model / "model.safetensors") for j in (job, undisturbed))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_killed_at_any_moment_it_ends_in_the_same_weights(
    make_job: MakeJob, tmp_path: Path, seed: int
) -> None:
    job = make_job(24, epochs=3, held_out=0.2, save_every=1, packing=False, batch_size=6)
    killed = 0
    delay = 0.4 + 0.37 * seed
    while killed < 3:
        process = multiprocessing.get_context("fork").Process(
            target=lambda: run(read_job(prepare(job)), io.StringIO())
        )
        process.start()
        process.join(delay)
        if process.exitcode is None:
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
        killed += 1
        delay *= 1.3
    assert in_a_child(job, None) == 0
    undisturbed = dataclasses.replace(job, folder=tmp_path / "undisturbed")
    assert in_a_child(undisturbed, None) == 0
    assert said(job) == said(undisturbed)


def checkpoint(folder: Path, step: int, *, complete: bool = True) -> None:
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"")
    if complete:
        watch.mark_complete(path)


def test_the_newest_and_the_best_checkpoint_stay(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8, 10):
        checkpoint(tmp_path, step)
    watch.remove_oldest(tmp_path, keep=2, best=4)
    assert sorted(complete_checkpoints(tmp_path)) == [4, 8, 10]
    watch.remove_oldest(tmp_path, keep=1, best=None)
    assert sorted(complete_checkpoints(tmp_path)) == [10]


def test_files_of_a_sharded_checkpoint_are_synced_before_its_mark(tmp_path: Path) -> None:
    shards = tmp_path / "checkpoint-3" / "pytorch_model_fsdp_0"
    shards.mkdir(parents=True)
    (shards / "__0_0.distcp").write_bytes(b"1")
    watch.mark_complete(tmp_path / "checkpoint-3")
    assert list(complete_checkpoints(tmp_path)) == [3]
