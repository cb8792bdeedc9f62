"""vLLM, which lives in an environment of its own: its command line, and its start.

Not here: what its answers are known by (`cuvee.models.engines`).
"""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cuvee.errors import EngineError, RecipeError
from cuvee.models.announce import wait_a_moment
from cuvee.models.door import LOOPBACK, Door, visible
from cuvee.models.health import is_healthy
from cuvee.models.process import Process, running
from cuvee.recipe import Serve

_OWN_FLAGS = {
    "host": "cuvee serves on 127.0.0.1, over Ray on the node's address",
    "port": "cuvee takes a free one",
    "max_num_seqs": "set serve.slots",
    "max_model_len": "set serve.context",
    "data_parallel_size": "set serve.replicas",
}
_SAID = 2000
"""Characters of its stderr that an error repeats."""


def vllm_command(spec: Serve, model: str, port: int, *, host: str = LOOPBACK) -> list[str]:
    """Return the command that serves a folder or hub id on a port of an address.

    Raises RecipeError where `command` is missing or no program, or `args` holds a flag that
    cuvee sets itself.
    """
    command = [_program(spec), "serve", model, "--host", host, "--port", str(port)]
    command += ["--max-num-seqs", str(spec.slots), "--max-model-len", str(spec.context)]
    if spec.replicas > 1:
        command += ["--data-parallel-size", str(spec.replicas)]
    for key, value in spec.args.items():
        command += _flag(key.replace("-", "_"), value)
    return command


def vllm_version(spec: Serve) -> str:
    """Return what `command --version` says, e.g. `0.33.0`.

    Raises RecipeError as `vllm_command` does, EngineError where it says nothing within
    `spec.start_timeout` seconds or fails.
    """
    program = _program(spec)
    try:
        done = subprocess.run(
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=spec.start_timeout,
        )
    except subprocess.TimeoutExpired as error:
        said = f"nothing within {spec.start_timeout:g} s"
        raise EngineError(f"{program} --version: {said} (serve.start_timeout)") from error
    # What it logs while it is imported can come first.
    version = done.stdout.strip().splitlines()[-1:]
    if done.returncode or not version:
        raise EngineError(
            f"{program} --version: exit code {done.returncode}\n{done.stderr.strip()[-_SAID:]}"
        )
    return version[0].strip()


def vllm_environment(spec: Serve) -> dict[str, str]:
    """Return the environment variables that choose the GPUs; none where all may be used."""
    return visible(spec.devices)


@contextmanager
def running_vllm(
    spec: Serve, model: str, *, name: str, folder: Path, door: Door, env: Mapping[str, str]
) -> Iterator[tuple[Process, str]]:
    """Run vLLM while the block runs; yield its process and its URL, ending in `/v1`.

    `env` is added to the environment, the token of `door` too. Raises as `vllm_command`, and
    EngineError where it does not answer within `spec.start_timeout` seconds or dies.
    """
    port = door.free_port()
    token = {} if door.token is None else {"VLLM_API_KEY": door.token}
    with running(
        vllm_command(spec, model, port, host=door.host),
        name=name,
        folder=folder,
        env={**env, **token},
        death_signal=signal.SIGTERM,  # it has worker processes of its own to end
    ) as process:
        root = f"http://{door.host}:{port}"
        deadline = time.monotonic() + spec.start_timeout
        while not is_healthy(f"{root}/health"):
            wait_a_moment(process, deadline=deadline, seconds=spec.start_timeout)
        yield process, f"{root}/v1"


def _program(spec: Serve) -> str:
    if spec.command is None:
        raise RecipeError("serve.command: missing; engine vllm needs its executable's path")
    if shutil.which(spec.command) is None:
        raise RecipeError(f"serve.command: {spec.command!r} is no program that can be run")
    return spec.command


def _flag(key: str, value: Any) -> Iterator[str]:
    if key in _OWN_FLAGS:
        raise RecipeError(f"serve.args.{key}: not allowed; {_OWN_FLAGS[key]}")
    name = key.replace("_", "-")
    if isinstance(value, bool):
        yield f"--{name}" if value else f"--no-{name}"
        return
    yield f"--{name}"
    if isinstance(value, list):
        yield from (str(item) for item in value)
    else:
        yield json.dumps(value) if isinstance(value, dict) else str(value)
