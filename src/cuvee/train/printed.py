"""`cuvee train RUN --print-command`: what to run where cuvee does not start the training itself.

A run whose examples are selected in; a shell script out, with one command a model that is
still to be trained, and each job's files ready in the run folder. A finished model stays
there until `cuvee train RUN` takes it into the run. Nothing is started here.
"""

import shlex
from contextlib import ExitStack
from pathlib import Path

from cuvee.errors import TrainError
from cuvee.models.checkpoint import resolve
from cuvee.recipe import Train
from cuvee.runfolder import Run, is_done, read_manifest
from cuvee.train.accelerate_config import check, command
from cuvee.train.job import prepare
from cuvee.train.launch import ENVIRONMENT
from cuvee.train.stage import job, tasks

PORT = 29500
"""At which the nodes meet, where MASTER_PORT says no other."""
_FIRST_NODE = '$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)'
_NODE = '--machine_rank "$SLURM_NODEID" --main_process_ip "$MASTER_ADDR" ' + (
    '--main_process_port "$MASTER_PORT"'
)


def script(run: Run, *, place: Path) -> str:
    """Return the script; the jobs' folders in `run` are made ready, so hold the run meanwhile.

    `place` is how the user calls the run. Raises TrainError where examples are missing or
    `train.launcher` makes no sense, DataError where the base is no checkpoint.
    """
    train = run.recipe.train
    check(train)
    missing = [name for name in run.recipe.trained() if not run.examples(name).is_file()]
    if missing:
        raise TrainError(
            f"no examples yet to train {', '.join(missing)} on: run `cuvee run {place} --until "
            "select` first"
        )
    with ExitStack() as resources:
        manifest = read_manifest(run.path)
        to_do = [t.name for t in tasks(run, resources) if not is_done(run, t, manifest)]
    lines = [*_head(train, len(to_do), place), *_setting(train)]
    for name in to_do:
        lines += ["", f"# {name}", _line(run, name)]
    return "\n".join(lines) + "\n"


def _head(train: Train, count: int, place: Path) -> list[str]:
    launcher = train.launcher
    device = "processes on the CPU" if launcher.cpu else "GPUs"
    lines = [
        "#!/bin/sh",
        f"# Models to train: {count}, on {launcher.nodes} node(s) with {launcher.gpus or 1} "
        f"{device} each.",
    ]
    if launcher.nodes > 1:
        lines += [
            "# Run all of it on every node; they share this folder. With Slurm, from sbatch:",
            f"#   srun --nodes={launcher.nodes} --ntasks-per-node=1 sh train.sh",
        ]
    return [*lines, f"# Then `cuvee train {place}` takes the finished models into the run.", ""]


def _setting(train: Train) -> list[str]:
    """Return the lines that set the environment, as `cuvee.train.launch.environment` does."""
    offline = {"HF_HUB_OFFLINE"} if train.kernels else set()
    values = {name: value for name, value in ENVIRONMENT.items() if name not in offline}
    lines = ["set -e", "export " + " ".join(f"{name}={v}" for name, v in values.items())]
    if train.launcher.cpu:
        lines.append("export CUDA_VISIBLE_DEVICES=")
    elif train.launcher.processes == 1:
        lines.append(
            'export CUDA_VISIBLE_DEVICES="$(echo "${CUDA_VISIBLE_DEVICES-0}" | cut -d, -f1)"'
        )
    if train.launcher.nodes > 1:
        lines.append(f': "${{MASTER_ADDR:={_FIRST_NODE}}}" "${{MASTER_PORT:={PORT}}}"')
    return lines


def _line(run: Run, name: str) -> str:
    made = job(run, name, base=resolve(run.recipe.base))
    words = command(made.train, prepare(made), folder=made.folder)
    if made.train.launcher.nodes == 1:
        return shlex.join(words)
    cut = words.index("-m", words.index("--config_file"))  # before `-m cuvee.train.rank JOB`
    return f"{shlex.join(words[:cut])} {_NODE} {shlex.join(words[cut:])}"
