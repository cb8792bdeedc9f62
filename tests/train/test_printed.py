"""`cuvee train RUN --print-command`: a script that trains as cuvee would, node by node."""

import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from cuvee.cli import app
from cuvee.models.checkpoint import weight_files
from cuvee.pipeline import open_recipe
from cuvee.records import Example, write_rows
from cuvee.runfolder import Run

pytestmark = pytest.mark.usefixtures("one_thread")

Sums = Callable[[int], list[Example]]
MakeRun = Callable[..., Run]


@pytest.fixture
def make_run(base: Path, tmp_path: Path, sums: Sums) -> MakeRun:
    """Return a maker of runs with selected examples; keywords override `train` settings."""

    def make(*, domains: tuple[str, ...] = ("math",), **train: object) -> Run:
        path = tmp_path / "run"
        path.mkdir()
        domain = {"problems": [{"source": "generator:arithmetic"}], "verifier": "math"}
        quick = {"epochs": 1, "warmup": 0, "batch_size": 2, "max_tokens": 256}
        recipe = {
            "name": "tiny",
            "base": str(base),
            "domains": dict.fromkeys(domains, domain),
            "teachers": [{"name": "alice", "scripted": {}}],
            "train": quick | train,
        }
        (path / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
        from_file = open_run(path)
        for name in domains:
            write_rows(from_file.examples(name), sums(4), Example)
        return from_file

    return make


def open_run(path: Path) -> Run:

    return Run(path, open_recipe(path, overrides=[], out=None)[0])


def printed(run: Run, *more: str) -> str:
    result = CliRunner().invoke(app, ["train", str(run.path), "--print-command", *more])
    assert result.exit_code == 0, result.output
    return result.stdout


def commands(script: str) -> list[list[str]]:
    lines = [line for line in script.splitlines() if line.startswith(shlex.quote(sys.executable))]
    return [shlex.split(line) for line in lines]


def test_one_process_is_a_plain_command_for_each_model(make_run: MakeRun) -> None:
    run = make_run(domains=("math", "code"))
    script = printed(run)
    folders = [run.folder("train") / f".{name}.partial" for name in ("math", "code")]
    expected = [[sys.executable, "-m", "cuvee.train.sft", str(f / "job.json")] for f in folders]
    assert commands(script) == expected
    assert all((folder / "job.json").is_file() for folder in folders)
    assert "SLURM" not in script
    assert "# Models to train: 2, on 1 node(s) with 1 GPUs each." in script


def test_nodes_are_told_apart_by_the_variables_of_slurm(make_run: MakeRun) -> None:
    run = make_run()
    script = printed(
        run, "--set", "train.launcher={nodes: 2, gpus: 4}", "--set", "train.batch_size=8"
    )
    (words,) = commands(script)
    assert words[words.index("--machine_rank") + 1] == "$SLURM_NODEID"
    assert words[words.index("--main_process_ip") + 1] == "$MASTER_ADDR"
    assert words[words.index("--main_process_port") + 1] == "$MASTER_PORT"
    assert "srun --nodes=2 --ntasks-per-node=1" in script
    config = yaml.safe_load(Path(words[words.index("--config_file") + 1]).read_text())
    assert (config["num_machines"], config["num_processes"]) == (2, 8)
    assert open_run(run.path).recipe.train.launcher.nodes == 2, "kept for the script's end"


def test_the_first_node_is_asked_of_slurm_unless_it_is_given(
    make_run: MakeRun, tmp_path: Path
) -> None:
    script = printed(make_run(), "--set", "train.launcher.nodes=2")
    setting = script.partition("\n\n# math")[0] + '\necho "$MASTER_ADDR:$MASTER_PORT"\n'
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "scontrol").write_text('#!/bin/sh\nprintf "%s-first\\nother\\n" "$3"\n')
    (fake / "scontrol").chmod(0o755)
    env = {"PATH": f"{fake}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "rack7"}

    def said(**more: str) -> str:
        done = subprocess.run(
            ["sh", "-c", setting], env=env | more, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert said() == "rack7-first:29500"
    assert said(MASTER_ADDR="10.0.0.1", MASTER_PORT="4242") == "10.0.0.1:4242"


def test_one_of_many_gpus_is_seen_by_one_process(make_run: MakeRun) -> None:
    setting = printed(make_run()).partition("\n\n# math")[0] + '\necho "[$CUDA_VISIBLE_DEVICES]"'

    def seen(env: dict[str, str]) -> str:
        path = {"PATH": os.environ["PATH"]}
        done = subprocess.run(
            ["sh", "-c", setting], env=path | env, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert seen({}) == "[0]"
    assert seen({"CUDA_VISIBLE_DEVICES": "3,5"}) == "[3]"
    assert seen({"CUDA_VISIBLE_DEVICES": ""}) == "[]"


def test_without_examples_it_says_what_to_run_first(make_run: MakeRun) -> None:
    run = make_run()
    run.examples("math").unlink()
    result = CliRunner().invoke(app, ["train", str(run.path), "--print-command"])
    assert result.exit_code == 1
    assert "no examples yet to train math on" in " ".join(result.output.split())


def test_what_the_launcher_cannot_do_is_refused_here_too(make_run: MakeRun) -> None:
    run = make_run()
    more = ["--set", "train.launcher.gpus=4"]
    result = CliRunner().invoke(app, ["train", str(run.path), "--print-command", *more])
    assert result.exit_code == 1
    assert "train.batch_size = 2 is no multiple" in " ".join(result.output.split())


@pytest.mark.slow
def test_the_script_of_one_node_runs_as_it_stands_and_the_run_takes_the_model(
    make_run: MakeRun,
) -> None:
    run = make_run()
    subprocess.run(["sh", "-c", printed(run)], check=True, capture_output=True)
    assert CliRunner().invoke(app, ["train", str(run.path)]).exit_code == 0
    assert weight_files(run.specialist("math"))
    assert commands(printed(run)) == [], "nothing is left to train"


@pytest.mark.slow
def test_two_nodes_that_run_the_script_train_one_model_together(make_run: MakeRun) -> None:
    run = make_run()
    script = printed(run, "--set", "train.launcher={nodes: 2, cpu: true}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    meeting = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    nodes = [
        subprocess.Popen(
            ["sh", "-c", script],
            env=meeting | {"SLURM_NODEID": str(node)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for node in range(2)
    ]
    said = [node.communicate(timeout=280)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert '"summary"' in said[0]
    assert '"summary"' not in said[1]
    result = CliRunner().invoke(app, ["train", str(run.path)])
    assert result.exit_code == 0, result.output
    assert weight_files(run.specialist("math"))
