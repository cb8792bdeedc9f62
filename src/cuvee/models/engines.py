"""Engines: processes that serve a model over HTTP, started and ended by cuvee.

`serve` starts llama.cpp (`cuvee.models.llama`; several, behind `cuvee.models.balancer`) or
vLLM for one model, or either on the nodes of a cluster (`cuvee.workers.balancer`);
`engine_identity` says beforehand what its answers are known by; `spawn` starts any server of
ours that announces its URL. An engine dies with the process that started it, even on `kill
-9`; `end_stale` is the second net. Not here: asking a model.
"""

import dataclasses
import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cuvee.atomic import write_text
from cuvee.errors import RecipeError
from cuvee.models.announce import announced
from cuvee.models.door import Door, visible
from cuvee.models.files import identity
from cuvee.models.llama import llama_config, running_llama
from cuvee.models.process import end_stale, running
from cuvee.models.replicas import SILENT_SECONDS
from cuvee.models.vllm import running_vllm, vllm_environment, vllm_version
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


ANY_DOOR = Door()
BALANCER_SECONDS = 30.0
"""A balancer may take so much longer than its engines to be ready."""
RAY_SECONDS = 120.0
"""And so much longer where a Ray may have to be started."""


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
    if spec.over == "ray":
        open_engine = _over_ray
    elif spec.engine == "vllm":
        open_engine = _vllm
    else:
        open_engine = _llama if spec.replicas == 1 else _llamas
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
    seconds, env = spec.start_timeout, {**_token(door), **visible(spec.devices)}
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
        "devices": spec.devices,
        "port": door.port,
        "start_seconds": spec.start_timeout,
        "silent_seconds": SILENT_SECONDS,
    }
    command = _balancer("cuvee.models.balancer", config, file=folder / f"{name}.json")
    with running(command, name=name, folder=folder, env=_token(door)) as process:
        # The balancer knows which replica does not start, and says it first.
        url = announced(process, seconds=spec.start_timeout + BALANCER_SECONDS)
        yield Engine(url=url, model=name, pid=process.popen.pid)


@contextmanager
def _over_ray(spec: Serve, model: str, *, name: str, folder: Path, door: Door) -> Iterator[Engine]:
    """Serve by engines on the nodes of a cluster, behind a balancer here."""
    if importlib.util.find_spec("ray") is None:
        raise RecipeError("serve.over: ray needs Ray on every node: pip install 'cuvee[ray]'")
    if spec.engine == "llama.cpp":
        _gguf(model)
    if Path(model).exists():
        model = str(Path(model).absolute())
    serve = spec.model_dump(mode="json")
    config = {"serve": serve, "model": model, "name": name, "port": door.port}
    # A room below this one, and so a name here: nothing of it is imported.
    command = _balancer("cuvee.workers.balancer", config, file=folder / f"{name}.json")
    with running(command, name=name, folder=folder, env=_token(door)) as process:
        # Before the engines start the nodes read the model, with as much time.
        url = announced(process, seconds=2 * spec.start_timeout + RAY_SECONDS)
        asked = name if spec.engine == "llama.cpp" else model
        yield Engine(url=url, model=asked, pid=process.popen.pid)


def _balancer(module: str, config: Mapping[str, Any], *, file: Path) -> list[str]:
    write_text(file, json.dumps(config, indent=1))
    return [sys.executable, "-m", module, str(file)]


@contextmanager
def _vllm(spec: Serve, model: str, *, name: str, folder: Path, door: Door) -> Iterator[Engine]:
    env = vllm_environment(spec)
    with running_vllm(spec, model, name=name, folder=folder, door=door, env=env) as (process, url):
        yield Engine(url=url, model=model, pid=process.popen.pid)


def _gguf(model: str) -> Path:
    if not model.endswith(".gguf") or not Path(model).is_file():
        raise RecipeError(f"serve.model {model!r}: no .gguf file, which engine llama.cpp serves")
    return Path(model)


def _token(door: Door) -> dict[str, str]:
    return {} if door.token is None else {"CUVEE_ENGINE_TOKEN": door.token}
