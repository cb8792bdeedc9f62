"""Two processes that train together over gloo end where one process ends: ddp and fsdp."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from datasets import Dataset
from safetensors.torch import load_file

from cuvee.train.accelerate_config import command
from cuvee.train.job import Job, prepare
from cuvee.train.launch import environment
from cuvee.train.shared import Order, _filled
from cuvee.train.watch import read_log

pytestmark = pytest.mark.usefixtures("one_thread")

MakeJob = Callable[..., Job]
Train = Callable[[Job], list[list[dict[str, Any]]]]
FORKER = """
# One line in: [{environment of a process}, ...], job file. Imports are paid for once.
import json, os, sys
from pathlib import Path
from cuvee.train import sft
for line in sys.stdin:
    environments, job = json.loads(line)
    children = []
    for number, environment in enumerate(environments):
        if not (child := os.fork()):
            os.environ.update(environment)
            out = os.open(f"{job}.{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            code = 70
            try:
                code = sft.main([job])
            finally:
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(json.dumps(codes), flush=True)
"""


@pytest.fixture(scope="module")
def forker() -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-c", FORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    yield process
    process.communicate()
    assert process.returncode == 0


@pytest.fixture
def train(forker: "subprocess.Popen[str]") -> Train:
    """Return what trains a job as its launcher says; it returns what each process told."""

    def train_job(job: Job) -> list[list[dict[str, Any]]]:
        file = prepare(job)
        environments = ranks(command(job.train, file, folder=job.folder))
        ours = [environment(job.train) | values for values in environments]
        assert forker.stdin is not None
        assert forker.stdout is not None
        forker.stdin.write(json.dumps([ours, str(file)]) + "\n")
        forker.stdin.flush()
        codes = json.loads(forker.stdout.readline())
        told = [Path(f"{file}.{n}").read_text().splitlines() for n in range(len(codes))]
        assert codes == [0] * len(codes), told
        return [[json.loads(line) for line in lines] for lines in told]

    return train_job


def ranks(words: list[str]) -> list[dict[str, str]]:
    """Return what the command would set in the environment of each process it starts."""
    if "--config_file" not in words:
        return [{}]
    parser = launch_command_parser()
    arguments, _, _ = _validate_launch_command(
        parser.parse_args(words[words.index("--config_file") :])
    )
    shared = {
        name: value
        for name, value in prepare_multi_gpu_env(arguments).items()
        if os.environ.get(name) != value
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    count = arguments.num_processes
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count)}
    meeting["LOCAL_WORLD_SIZE"] = str(count)
    return [shared | meeting | {"RANK": str(n), "LOCAL_RANK": str(n)} for n in range(count)]


def two(strategy: str, **more: Any) -> dict[str, Any]:
    return {"launcher": {"strategy": strategy, "gpus": 2, "cpu": True}, **more}


def losses(job: Job) -> list[float]:
    return [line["loss"] for line in read_log(job.model / "train_log.jsonl")]


def furthest(job: Job, other: Job) -> float:
    """Return the largest difference between weights of two specialists."""
    ours, theirs = (load_file(j.model / "model.safetensors") for j in (job, other))
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


SETTINGS: dict[str, Any] = {"epochs": 2, "batch_size": 4, "precision": "fp32"}


@pytest.mark.parametrize(
    "packing",
    [pytest.param(True, id="packed"), pytest.param(False, id="padded", marks=pytest.mark.slow)],
)
def test_two_processes_have_the_losses_and_weights_of_one(
    make_job: MakeJob, train: Train, *, packing: bool
) -> None:
    # 15 rows: neither micro-batches nor processes divide them.
    settings = SETTINGS | {"packing": packing, "micro_batch": 1 if packing else 2}
    one = make_job(15, name="one", **settings)
    train(one)
    for strategy in ("ddp", "fsdp"):
        both = make_job(15, name=strategy, **settings, **two(strategy))
        told = train(both)
        assert losses(both) == pytest.approx(losses(one), rel=1e-5)
        assert furthest(both, one) < 1e-4  # 0.001 is the learning rate, some 8 steps
        steps = [line["step"] for line in told[0] if "step" in line]
        assert steps == list(range(1, len(losses(one)) + 1))
        assert told[1] == [], "progress comes from the first process alone"
        assert [line for line in told[0] if "summary" in line]


@pytest.mark.slow
def test_under_fsdp_lora_ends_as_the_same_plain_checkpoint(make_job: MakeJob, train: Train) -> None:
    settings = SETTINGS | {"epochs": 1, "lora": {"rank": 4, "alpha": 8}}
    one, both = (
        make_job(12, name=name, **settings, **more)
        for name, more in {"one": {}, "both": two("fsdp")}.items()
    )
    train(one)
    train(both)
    assert losses(both) == pytest.approx(losses(one), rel=1e-5)
    assert furthest(both, one) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_measure_and_choose_what_one_does(
    make_job: MakeJob, train: Train, strategy: str
) -> None:
    # A learning rate that does not keep what it has learned: the last loss is not the best.
    chosen = {"held_out": 0.3, "held_out_every": 1, "best_checkpoint": True, "save_every": 1}
    settings = SETTINGS | chosen | {"learning_rate": 1e-2, "keep_checkpoints": 9}
    one = make_job(15, name="one", **settings)
    both = make_job(15, name="both", **settings, **two(strategy))
    train(one)
    train(both)
    measured = [[line["loss"] for line in read_log(job.held_out_log)] for job in (one, both)]
    assert measured[1] == pytest.approx(measured[0], rel=1e-4)
    assert furthest(both, one) < 1e-3


def test_an_epoch_in_shares_is_the_epoch_of_one_process_and_then_empty_rows() -> None:
    order = Order(5, empty=3, seed=7)
    order.set_epoch(2)
    generator = torch.Generator().manual_seed(9)
    assert list(order) == [*torch.randperm(5, generator=generator).tolist(), 5, 6, 7]
    assert list(order) == list(order)
    assert len(order) == 8


def test_an_empty_row_has_one_token_and_no_label() -> None:
    rows = Dataset.from_dict({"input_ids": [[7, 8, 9]], "labels": [[-100, 8, 9]]})
    filled = _filled(rows, 2)
    assert len(filled) == 3
    assert filled[0] == rows[0]
    assert filled[1] == filled[2] == {"input_ids": [7], "labels": [-100]}
