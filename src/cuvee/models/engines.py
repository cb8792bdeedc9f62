"""Engines: processes that serve a model over HTTP, started and ended by cuvee.

`serve` starts llama.cpp (`cuvee.models.llama`; several, behind `cuvee.models.balancer`) or
vLLM for one model, and `engine_identity` says beforehand what its answers are known by;
`spawn` starts any server of ours that announces its URL. An engine dies with the process that
started it, even on `kill -9`; `end_stale` is the second net. Not here: asking a model.
"""

import dataclasses
import importlib.metadata
import json
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cuvee.atomic import write_text
from cuvee.errors import RecipeError
from cuvee.models.announce import announced, wait_a_moment
from cuvee.models.files import identity
from cuvee.models.health import is_healthy
from cuvee.models.llama import llama_config, running_llama
from cuvee.models.process import end_stale, running
from cuvee.models.replicas import SILENT_SECONDS
from cuvee.models.vllm import vllm_command, vllm_environment, vllm_version
from cuvee.recipe import Serve
from cuvee.records import content_hash

__all__ = ["Door", "Engine", "end_stale", "engine_identity", "engine_version", "serve", "spawn"]


@dataclasses.dataclass(frozen=True)
class Engine:
    """A model that is being served."""

    url: str
    """Base URL of its OpenAI-style API, ending in `/v1`."""
    model: str
    """The name to ask for."""
    pid: int


def engine_identity(spec: Serve, model: str) -> str:
    """Return what the answers of a model served by `spec` are known by; starts no engine.

    The hash of weights, tokenizer and template, quantisation, engine and its version; of a
    hub id that vLLM loads itself, its name. `model` as for `serve`. Raises RecipeError as
    `serve`, DataError where a folder is no checkpoint, EngineError where vLLM does not run.
    """
    if spec.engine == "llama.cpp":
        # The file's hash says the quantisation too.
        return content_hash(identity(_gguf(model)), spec.engine, engine_version(spec))
    weights = identity(Path(model)) if Path(model).exists() else model
    return content_hash(weights, spec.engine, {"version": engine_version(spec)}, spec.args)


def engine_version(spec: Serve) -> str:
    """Return the version of the engine that `spec` names: of xllamacpp, or what vLLM says.

    Raises RecipeError and EngineError where vLLM's `command` does not run.
    """
    if spec.engine == "llama.cpp":
        return importlib.metadata.version("xllamacpp")
    return vllm_version(spec)


@dataclasses.dataclass(frozen=True)
class Door:
    """Where an engine listens on 127.0.0.1, and whom it lets in."""

    port: int = 0
    """0: any that is free."""
    token: str | None = dataclasses.field(default=None, repr=False)
    """What requests must bring as `Authorization: Bearer`; None: nothing."""


ANY_DOOR = Door()
BALANCER_SECONDS = 30.0
"""A balancer may take so much longer than its engines to be ready."""


@contextmanager
def serve(
    spec: Serve, model: str, *, name: str, folder: Path, door: Door = ANY_DOOR
) -> Iterator[Engine]:
    """Serve a model while the block runs.

    `model` is a .gguf file (llama.cpp), or a checkpoint folder or hub id (vLLM); `name` names
    its files in `folder`. Raises RecipeError where `spec` and `model` do not fit together,
    EngineError, with the end of its log, where the engine does not answer within
    `spec.start_timeout` seconds or dies.
    """
    open_engine = _vllm if spec.engine == "vllm" else _llama if spec.replicas == 1 else _llamas
    with open_engine(spec, model, name=name, folder=folder, door=door) as engine:
        yield engine


@contextmanager
def spawn(
    command: Sequence[str],
    *,
    name: str,
    folder: Path,
    seconds: float,
    env: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Run a server of ours while the block runs; yield the URL it announces.

    It prints one JSON line `{"url": ...}` on stdout when it is ready. It is ended by SIGTERM
    (and SIGKILL where that does not help) after the block, and dies with this thread. Raises
    EngineError, with the end of its log, where it ends or says nothing within `seconds`.
    """
    with running(command, name=name, folder=folder, env=env) as process:
        yield announced(process, seconds=seconds)


@contextmanager
def _llama(spec: Serve, model: str, *, name: str, folder: Path, door: Door) -> Iterator[Engine]:
    config = llama_config(spec, _gguf(model), name=name, port=door.port)
    seconds, env = spec.start_timeout, _token(door)
    with running_llama(config, name=name, folder=folder, seconds=seconds, env=env) as (
        process,
        url,
    ):
        yield Engine(url=url, model=name, pid=process.popen.pid)


@contextmanager
def _llamas(spec: Serve, model: str, *, name: str, folder: Path, door: Door) -> Iterator[Engine]:
    """Serve by several engines of llama.cpp behind a balancer."""
    config = {
        "engine": llama_config(spec, _gguf(model), name=name, port=0),
        "replicas": spec.replicas,
        "folder": str(folder),
        "port": door.port,
        "start_seconds": spec.start_timeout,
        "silent_seconds": SILENT_SECONDS,
    }
    config_file = folder / f"{name}.json"
    write_text(config_file, json.dumps(config, indent=1))
    command = [sys.executable, "-m", "cuvee.models.balancer", str(config_file)]
    with running(command, name=name, folder=folder, env=_token(door)) as process:
        # The balancer knows which replica does not start, and says it first.
        url = announced(process, seconds=spec.start_timeout + BALANCER_SECONDS)
        yield Engine(url=url, model=name, pid=process.popen.pid)


@contextmanager
def _vllm(spec: Serve, model: str, *, name: str, folder: Path, door: Door) -> Iterator[Engine]:
    port = door.port or _free_port()
    command = vllm_command(spec, model, port)
    token = {} if door.token is None else {"VLLM_API_KEY": door.token}
    with running(
        command,
        name=name,
        folder=folder,
        env={**vllm_environment(spec), **token},
        death_signal=signal.SIGTERM,  # it has worker processes of its own to end
    ) as process:
        root = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + spec.start_timeout
        while not is_healthy(f"{root}/health"):
            wait_a_moment(process, deadline=deadline, seconds=spec.start_timeout)
        yield Engine(url=f"{root}/v1", model=model, pid=process.popen.pid)


def _gguf(model: str) -> Path:
    if not model.endswith(".gguf") or not Path(model).is_file():
        raise RecipeError(f"serve.model {model!r}: no .gguf file, which engine llama.cpp serves")
    return Path(model)


def _token(door: Door) -> dict[str, str]:
    return {} if door.token is None else {"CUVEE_ENGINE_TOKEN": door.token}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
