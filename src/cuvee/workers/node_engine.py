"""One engine on a node of a Ray cluster: it starts, is watched and ends as its actor is told.

What to serve in, a URL out. `NodeEngine` runs in a worker of the node, whose thread the engine
dies with (`cuvee.models.process`); the worker ends with whoever owns the actor. An engine
listens on the node's own address alone and wants a token, which comes in a call to the actor
and goes on in the engine's environment. Not here: which node, and what a request gets
(`cuvee.workers.balancer`).
"""

import dataclasses
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from cuvee.errors import CuveeError
from cuvee.models.door import Door, visible
from cuvee.models.engines import engine_version
from cuvee.models.files import identity
from cuvee.models.llama import llama_config, running_llama
from cuvee.models.llama_server import TOKEN_ENV
from cuvee.models.process import Process, failure
from cuvee.models.vllm import running_vllm
from cuvee.recipe import Serve
from cuvee.workers.cluster import require_ray

LOOK_SECONDS = 0.05
"""How often a node looks whether its engine lives."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What each replica serves, and how; nothing secret."""

    serve: Serve
    """Of one engine: `replicas` 1."""
    model: str
    """A .gguf file or folder, absolute, or a hub id, which the engine loads itself."""
    name: str
    """The model's, for llama.cpp."""
    identity: str | None
    """Of the files (`cuvee.models.files.identity`); None: of a hub id it is not checked."""
    version: str
    """Of the engine."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an actor is."""

    node: str
    """Ray's id of the node."""
    address: str


class NodeEngine:
    """An actor: one engine on the node that Ray chose. Its methods run one after another."""

    def __init__(self) -> None:
        self.running = ExitStack()
        self.process: Process | None = None

    def place(self) -> Place:
        """Return where this is."""
        return _place()

    def faults(self, job: Job) -> list[str]:
        """Return what stands against serving here, in words."""
        return faults(job)

    def start(self, job: Job, name: str, token: str) -> tuple[str, int]:
        """Start the engine; return its URL, ending in `/v1`, and its process.

        Raises EngineError as `cuvee.models.engines.serve` does.
        """
        folder = Path(tempfile.mkdtemp(prefix="cuvee-engine-"))
        door = Door(token=token, host=_place().address)
        env = visible(require_ray().get_runtime_context().get_accelerator_ids().get("GPU", []))
        if job.serve.engine == "vllm":
            running = running_vllm(
                job.serve, job.model, name=name, folder=folder, door=door, env=env
            )
        else:
            config = llama_config(
                job.serve, Path(job.model), name=job.name, port=door.port, host=door.host
            )
            running = running_llama(
                config,
                name=name,
                folder=folder,
                seconds=job.serve.start_timeout,
                env={TOKEN_ENV: token, **env},
            )
        self.process, url = self.running.enter_context(running)
        return url, self.process.popen.pid

    def watch(self, seconds: float) -> str | None:
        """Return how the engine ended, with the end of its log; None where it lives on.

        It is watched for so many seconds at most.
        """
        assert self.process is not None
        deadline = time.monotonic() + seconds
        while (code := self.process.popen.poll()) is None:
            if time.monotonic() > deadline:
                return None
            time.sleep(LOOK_SECONDS)
        return str(failure(self.process, f"ended by itself (exit code {code})"))

    def end(self) -> None:
        """End the engine and all it started. Its log stays where it had ended by itself."""
        assert self.process is not None
        self.running.close()
        shutil.rmtree(self.process.log.parent)


def faults(job: Job) -> list[str]:
    """Return what stands against serving on this node: another version, a model that is not there.

    The files of the model are read whole.
    """
    found = []
    try:
        version = engine_version(job.serve)
        if version != job.version:
            found.append(f"{job.serve.engine} is {version}, here {job.version}")
        if job.identity is not None:
            path = Path(job.model)
            if not path.exists():
                found.append(f"it has no {path}")
            elif (there := identity(path)) != job.identity:
                found.append(f"its {path} is another one: {there}, here {job.identity}")
    except (CuveeError, OSError) as error:
        found.append(str(error))
    return found


def _place() -> Place:
    ray = require_ray()
    return Place(ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address())
