"""The command line of vLLM, which lives in an environment of its own.

Not here: serving with it (`cuvee.models.engines`).
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

from cuvee.errors import EngineError, RecipeError
from cuvee.recipe import Serve

_OWN_FLAGS = {
    "host": "cuvee serves on 127.0.0.1",
    "port": "cuvee takes a free one",
    "max_num_seqs": "set serve.slots",
    "max_model_len": "set serve.context",
    "data_parallel_size": "set serve.replicas",
}
_SAID = 2000
"""Characters of its stderr that an error repeats."""


def vllm_command(spec: Serve, model: str, port: int) -> list[str]:
    """Return the command that serves a folder or hub id on a port of 127.0.0.1.

    Raises RecipeError where `command` is missing or no program, or `args` holds a flag that
    cuvee sets itself.
    """
    command = [_program(spec), "serve", model, "--host", "127.0.0.1", "--port", str(port)]
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
    if not spec.devices:
        return {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(str(d) for d in spec.devices)}


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
