"""`train.launcher` as accelerate itself reads it: config file, environment, plugins."""

import re
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import (
    DeepSpeedSequenceParallelConfig,
    DistributedType,
    FullyShardedDataParallelPlugin,
    ParallelismConfig,
    TorchContextParallelConfig,
)
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from cuvee.errors import TrainError
from cuvee.recipe import Train
from cuvee.train.accelerate_config import accelerate_config, check, command


def settings(*, batch_size: int = 96, packing: bool = False, **launcher: Any) -> Train:
    values = {"batch_size": batch_size, "packing": packing, "launcher": launcher}
    return Train.model_validate(values)


def arguments(train: Train, folder: Path) -> Any:
    """Return what `accelerate launch` makes of our command's arguments."""
    words = command(train, folder / "job.json", folder=folder)
    parsed = launch_command_parser().parse_args(words[words.index("--config_file") :])
    return _validate_launch_command(parsed)[0]


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def enter(environment: dict[str, str], patch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        if re.match(r"(ACCELERATE|FSDP|PARALLELISM_CONFIG)_", name):
            patch.setenv(name, value)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "zero3"])
@pytest.mark.parametrize("sequence_parallel", [1, 2])
def test_every_config_is_one_of_accelerate_s(
    tmp_path: Path, strategy: str, sequence_parallel: int
) -> None:
    if strategy == "ddp" and sequence_parallel > 1:
        return
    train = settings(strategy=strategy, gpus=4, nodes=2, sequence_parallel=sequence_parallel)
    words = command(train, tmp_path / "job.json", folder=tmp_path)
    config = load_config_from_file(words[words.index("--config_file") + 1])
    assert isinstance(config, ClusterConfig)
    kinds = {"ddp": "MULTI_GPU", "fsdp": "FSDP", "zero3": "DEEPSPEED"}
    assert config.distributed_type == DistributedType(kinds[strategy])
    assert (config.num_machines, config.num_processes) == (2, 8)
    known = vars(launch_command_parser().parse_args(["x.py"]))
    for part in (config.fsdp_config, config.deepspeed_config, config.parallelism_config):
        assert set(part or {}) <= known.keys(), "accelerate's launcher takes no such key"


def test_the_command_trains_the_job_in_ranks_that_accelerate_starts(tmp_path: Path) -> None:
    train = settings(gpus=2, cpu=True)
    parsed = arguments(train, tmp_path)
    assert parsed.multi_gpu
    assert parsed.module
    assert (parsed.training_script, parsed.training_script_args) == (
        "cuvee.train.rank",
        [str(tmp_path / "job.json")],
    )


def test_one_process_needs_no_accelerate(tmp_path: Path) -> None:
    for launcher in ({}, {"gpus": 1}, {"cpu": True}, {"strategy": "fsdp"}):
        words = command(settings(**launcher), tmp_path / "job.json", folder=tmp_path)
        assert words[1:] == ["-m", "cuvee.train.sft", str(tmp_path / "job.json")]
    assert list(tmp_path.iterdir()) == []


def test_fsdp_is_the_plugin_of_its_second_version_with_checkpoints_in_parts(
    tmp_path: Path, clean: pytest.MonkeyPatch
) -> None:
    parsed = arguments(settings(strategy="fsdp", gpus=4), tmp_path)
    enter(prepare_multi_gpu_env(parsed), clean)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert plugin.cpu_ram_efficient_loading is True
    assert plugin.activation_checkpointing is False
    assert plugin.state_dict_type.name == "SHARDED_STATE_DICT"
    assert plugin.auto_wrap_policy.__name__ == "transformer_auto_wrap_policy"


def test_zero3_is_told_to_deepspeed(tmp_path: Path, clean: pytest.MonkeyPatch) -> None:
    train = settings(strategy="zero3", gpus=4)
    parsed = arguments(train, tmp_path)
    parsed.deepspeed_fields_from_accelerate_config = ""
    _, environment = prepare_deepspeed_cmd_env(parsed)
    told = {k: v for k, v in environment.items() if k.startswith("ACCELERATE_")}
    assert told["ACCELERATE_USE_DEEPSPEED"] == "true"
    assert told["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == "3"
    assert told["ACCELERATE_DEEPSPEED_ZERO3_INIT"] == "true"
    assert told["ACCELERATE_GRADIENT_ACCUMULATION_STEPS"] == "24"  # 96 rows in 4 processes
    assert told["ACCELERATE_GRADIENT_CLIPPING"] == str(train.max_grad_norm)
    assert told["ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE"] == "none"
    assert told["ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE"] == "none"


def test_zero3_on_several_nodes_needs_no_hostfile(tmp_path: Path) -> None:
    parsed = arguments(settings(strategy="zero3", gpus=4, nodes=2), tmp_path)
    parsed.deepspeed_fields_from_accelerate_config = ""
    parsed.main_process_ip, parsed.main_process_port, parsed.machine_rank = "node0", 29511, 1
    started, _ = prepare_deepspeed_cmd_env(parsed)
    assert started is None, "each node starts its own processes: none is sent by ssh"
    assert (parsed.nnodes, parsed.nproc_per_node, parsed.node_rank) == ("2", "4", 1)
    assert (parsed.rdzv_backend, parsed.rdzv_endpoint) == ("static", "node0:29511")


def test_sequences_are_shared_by_torch_under_fsdp(
    tmp_path: Path, clean: pytest.MonkeyPatch
) -> None:
    train = settings(strategy="fsdp", gpus=8, sequence_parallel=4)
    enter(prepare_multi_gpu_env(arguments(train, tmp_path)), clean)
    config = ParallelismConfig()
    assert (config.cp_size, config.sp_size, config.dp_shard_size) == (4, 1, 2)
    assert config.total_size == train.launcher.processes == 8
    assert isinstance(config.cp_handler, TorchContextParallelConfig)


def test_sequences_are_shared_by_deepspeed_under_zero3(
    tmp_path: Path, clean: pytest.MonkeyPatch
) -> None:
    train = settings(strategy="zero3", gpus=8, sequence_parallel=4)
    parsed = arguments(train, tmp_path)
    parsed.deepspeed_fields_from_accelerate_config = ""
    enter(prepare_deepspeed_cmd_env(parsed)[1], clean)
    config = ParallelismConfig()
    assert (config.sp_size, config.cp_size, config.dp_shard_size) == (4, 1, 2)
    assert config.sp_backend == "deepspeed"
    handler = config.sp_handler
    assert isinstance(handler, DeepSpeedSequenceParallelConfig)
    assert (handler.sp_seq_length_is_variable, handler.sp_attn_implementation) == (True, "sdpa")
    accumulation = accelerate_config(train, processes=8)["deepspeed_config"]
    assert accumulation["gradient_accumulation_steps"] == 48  # 96 rows for 8 / 4 processes


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (
            settings(batch_size=6, gpus=4),
            r"train.batch_size = 6 is no multiple .* 1 \* 4 / 1 = 4: set it to one",
        ),
        (
            settings(batch_size=9, gpus=4, strategy="fsdp", sequence_parallel=2),
            r"train.batch_size = 9 .* 1 \* 4 / 2 = 2",
        ),
        (
            settings(gpus=4, sequence_parallel=2),
            r"sequence_parallel .*set train.launcher.strategy to fsdp or zero3",
        ),
        (
            settings(gpus=4, strategy="fsdp", sequence_parallel=2, packing=True),
            r"sequence_parallel with train.packing: .*would see each other",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(
    tmp_path: Path, train: Train, message: str
) -> None:
    with pytest.raises(TrainError, match=message):
        check(train)
    with pytest.raises(TrainError, match=message):
        command(train, tmp_path / "job.json", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_processes_that_share_a_sequence_count_once_in_the_batch() -> None:
    check(settings(batch_size=2, gpus=4, strategy="fsdp", sequence_parallel=2))
