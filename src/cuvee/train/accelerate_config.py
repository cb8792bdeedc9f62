"""`train.launcher` as accelerate's config file and as the command that starts the processes.

One process needs neither and gets a plain command. Recipe in, a mapping or a command out;
nothing is started here (`cuvee.train.launch`). The keys are those of accelerate's
`ClusterConfig` and of its `deepspeed_config`, `fsdp_config` and `parallelism_config`.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

from cuvee.atomic import write_text
from cuvee.errors import TrainError
from cuvee.recipe import Train
from cuvee.recipe.training import Launcher

FILE = "accelerate.yaml"
"""Name of the config file, in the job's folder."""
_DISTRIBUTED = {"ddp": "MULTI_GPU", "fsdp": "FSDP", "zero3": "DEEPSPEED"}
"""accelerate's names. MULTI_GPU holds for processes on the CPU too: for MULTI_CPU accelerate
starts one process alone and expects MPI to start the others."""


def row_shares(launcher: Launcher, *, processes: int) -> int:
    """Return how many of the processes take different rows."""
    return processes // launcher.sequence_parallel


def check(train: Train) -> None:
    """Raise TrainError where the launcher's settings do not go together."""
    launcher = train.launcher
    processes = launcher.processes
    shares = row_shares(launcher, processes=processes)
    if train.batch_size % (train.micro_batch * shares):
        raise TrainError(
            f"train.batch_size = {train.batch_size} is no multiple of train.micro_batch * "
            f"processes / sequence_parallel = {train.micro_batch} * {processes} / "
            f"{launcher.sequence_parallel} = {train.micro_batch * shares}: set it to one"
        )
    if launcher.sequence_parallel == 1:
        return
    if launcher.strategy == "ddp":
        raise TrainError(
            "train.launcher.sequence_parallel shares sequences among processes that share the "
            "model too: set train.launcher.strategy to fsdp or zero3"
        )
    if train.packing:
        raise TrainError(
            "train.launcher.sequence_parallel with train.packing: the examples of a packed row "
            "would see each other, for the mask that parts them is dropped; set train.packing "
            "to false"
        )


def accelerate_config(train: Train, *, processes: int) -> dict[str, Any]:
    """Return the config file's content for `processes` processes on all nodes together.

    Node rank and the first node's address are not in it: they belong to the command.
    """
    launcher = train.launcher
    config: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "debug": False,
        "distributed_type": _DISTRIBUTED[launcher.strategy],
        "num_machines": launcher.nodes,
        "num_processes": processes,
        "use_cpu": launcher.cpu,
        "main_process_port": 0 if launcher.nodes == 1 else None,  # 0: one that is free
        "mixed_precision": "no",  # the training process sets its own, which holds
    }
    if launcher.strategy == "fsdp":
        config["fsdp_config"] = _fsdp()
    if launcher.strategy == "zero3":
        config["deepspeed_config"] = _zero3(train, processes=processes)
    if launcher.sequence_parallel > 1:
        config["parallelism_config"] = _sequence_parallel(launcher, processes=processes)
    return {name: value for name, value in config.items() if value is not None}


def _fsdp() -> dict[str, Any]:
    return {
        "fsdp_version": 2,
        "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "fsdp_reshard_after_forward": True,
        "fsdp_offload_params": False,
        "fsdp_activation_checkpointing": False,  # train.gradient_checkpointing does it
        "fsdp_cpu_ram_efficient_loading": True,  # one process of all reads the base
        "fsdp_state_dict_type": "SHARDED_STATE_DICT",  # of checkpoints: each writes its part
    }


def _zero3(train: Train, *, processes: int) -> dict[str, Any]:
    shares = row_shares(train.launcher, processes=processes)
    return {
        "zero_stage": 3,
        "zero3_init_flag": True,  # the base is shared out as it is read
        "zero3_save_16bit_model": True,
        "offload_optimizer_device": "none",
        "offload_param_device": "none",
        "gradient_accumulation_steps": train.batch_size // (train.micro_batch * shares),
        "gradient_clipping": train.max_grad_norm,
        "deepspeed_multinode_launcher": "standard",  # each node runs the command itself
    }


def _sequence_parallel(launcher: Launcher, *, processes: int) -> dict[str, Any]:
    """Return torch's ring attention under fsdp, DeepSpeed's Ulysses under zero3."""
    sizes = {
        "parallelism_config_dp_replicate_size": 1,
        "parallelism_config_dp_shard_size": row_shares(launcher, processes=processes),
        "parallelism_config_tp_size": 1,
    }
    if launcher.strategy == "fsdp":
        return sizes | {
            "parallelism_config_cp_size": launcher.sequence_parallel,
            "parallelism_config_cp_backend": "torch",
            "parallelism_config_cp_comm_strategy": "allgather",
        }
    return sizes | {
        "parallelism_config_sp_size": launcher.sequence_parallel,
        "parallelism_config_sp_backend": "deepspeed",
        "parallelism_config_sp_seq_length_is_variable": True,
        "parallelism_config_sp_attn_implementation": "sdpa",
    }


def command(train: Train, job_file: Path, *, folder: Path) -> list[str]:
    """Return the command that trains a job on one node; several get accelerate's config file.

    The file is written into `folder`. Raises TrainError as `check` does.
    """
    check(train)
    processes = train.launcher.processes
    if processes == 1:
        return [sys.executable, "-m", "cuvee.train.sft", str(job_file)]
    file = folder / FILE
    write_text(file, yaml.safe_dump(accelerate_config(train, processes=processes)))
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(file)]
    return [*launch, "-m", "cuvee.train.rank", str(job_file)]
