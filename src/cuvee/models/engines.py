"""Engines: processes that serve a model over HTTP, started and ended by cuvee.

`serve` starts llama.cpp (`cuvee.models.llama_server`) or vLLM for one model, and
`engine_identity` says beforehand what its answers are known by; `spawn` starts any server of
ours that announces its URL. An engine dies with the process that started it, even on
`kill -9`; `end_stale` is the second net. Not here: asking a model.
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
from cuvee.models.files import identity
from cuvee.models.health import is_healthy
from cuvee.models.process import POLL_SECONDS, Process, end_stale, failure, running
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
    open_engine = _llama if spec.engine == "llama.cpp" else _vllm
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
        yield _announced(process, seconds=seconds)


@contextmanager
def _llama(spec: Serve, model: str, *, name: str, folder: Path, door: Door) -> Iterator[Engine]:
    config = {
        "model": str(_gguf(model)),
        "name": name,
        "slots": spec.slots,
        "context": spec.context,
        "threads": spec.threads,
        "port": door.port,
    }
    env = {} if door.token is None else {"CUVEE_ENGINE_TOKEN": door.token}
    config_file = folder / f"{name}.json"
    write_text(config_file, json.dumps(config, indent=1))
    command = [sys.executable, "-m", "cuvee.models.llama_server", str(config_file)]
    with running(command, name=name, folder=folder, env=env) as process:
        url = _announced(process, seconds=spec.start_timeout)
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
            _check(process, deadline=deadline, seconds=spec.start_timeout)
        yield Engine(url=f"{root}/v1", model=model, pid=process.popen.pid)


def _gguf(model: str) -> Path:
    if not model.endswith(".gguf") or not Path(model).is_file():
        raise RecipeError(f"serve.model {model!r}: no .gguf file, which engine llama.cpp serves")
    return Path(model)


def _announced(process: Process, *, seconds: float) -> str:
    """Return the URL a process announces on stdout."""
    deadline = time.monotonic() + seconds
    while True:
        for line in process.out.read_text(encoding="utf-8", errors="replace").splitlines():
            if (url := _url_in(line)) is not None:
                return url
        _check(process, deadline=deadline, seconds=seconds)


def _url_in(line: str) -> str | None:
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return str(said["url"]) if isinstance(said, dict) and "url" in said else None


def _check(process: Process, *, deadline: float, seconds: float) -> None:
    """Wait a moment; raise EngineError where the process has ended or the time is over."""
    if (code := process.popen.poll()) is not None:
        raise failure(process, f"ended before it answered (exit code {code})")
    if time.monotonic() > deadline:
        raise failure(process, f"did not answer within {seconds:g} s")
    time.sleep(POLL_SECONDS)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
