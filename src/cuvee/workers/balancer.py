"""Replicas on the nodes of a Ray cluster behind one URL: `python -m cuvee.workers.balancer CONFIG`.

CONFIG is a JSON file with `serve` (the recipe's), `model`, `name` and `port`. What it does with
requests and with dead replicas, and what it prints, is `cuvee.models.balancer`'s; an engine is
an actor (`cuvee.workers.node_engine`) that takes its CPUs and GPUs of whatever node has them.
Before the first is started every node that could hold one says whether it has the model.

This process owns the actors: Ray ends them when it is gone, even on `kill -9`. A token that
requests must bring comes in the environment (`TOKEN_ENV`); where there is none, one is drawn
that only this process and the engines know. Not here: an engine on its node.
"""

import contextlib
import functools
import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cuvee.errors import CuveeError, EngineError
from cuvee.models.balancer import names_of, run
from cuvee.models.engines import engine_version
from cuvee.models.files import identity
from cuvee.models.llama_server import TOKEN_ENV
from cuvee.models.process import END_SECONDS
from cuvee.models.replicas import Group, Running, Start, say
from cuvee.recipe import Serve
from cuvee.workers.cluster import cluster, require_ray
from cuvee.workers.node_engine import Job, NodeEngine, faults
from cuvee.workers.nodes import check_nodes

WATCH_SECONDS = 1.0
"""A node is asked so often whether its engine lives; that its actor is gone is known at once."""
POLL_SECONDS = 0.1


def needs_of(spec: Serve) -> dict[str, float]:
    """Return what a replica takes of its node, by Ray's names.

    Of llama.cpp its threads and `gpus`; of vLLM the product of its parallel sizes in GPUs, and
    as many CPUs.
    """
    gpus = spec.gpus_each()
    cpus = (spec.threads or 1) if spec.engine == "llama.cpp" else gpus
    return {"CPU": cpus, "GPU": gpus}


def job_of(spec: Serve, model: str, *, name: str) -> Job:
    """Return what each replica serves; `model` is read whole to know what it is.

    Raises DataError where a folder is no checkpoint, EngineError where vLLM does not run.
    """
    alone = {"replicas": 1, "over": None, "address": None, "gpus": None}
    known = identity(Path(model)) if Path(model).exists() else None
    return Job(spec.model_copy(update=alone), model, name, known, engine_version(spec))


def require_room(nodes: Sequence[Mapping[str, Any]], spec: Serve) -> None:
    """Raise CuveeError where the nodes (`ray.nodes()`) could not hold all replicas if idle."""
    needs = needs_of(spec)
    alive = [node for node in nodes if node["Alive"]]
    room = sum(
        int(min(node["Resources"].get(key, 0) // need for key, need in needs.items() if need))
        for node in alive
    )
    if room < spec.replicas:
        has = "; ".join(
            f"{node['NodeManagerAddress']}: {_said(node['Resources'])}" for node in alive
        )
        raise CuveeError(
            f"serve.replicas: {spec.replicas} replicas of {_said(needs)} each; the nodes have room "
            f"for {room}: {has}"
        )


def on_nodes(job: Job, needs: Mapping[str, float], *, door: str | None, checked: set[str]) -> Start:
    """Return what starts engines on the cluster.

    `door` is the token that requests bring already, None: none. `checked` are the nodes, by
    Ray's id, that are known to have the model; one that joined later is asked when it is used.
    """
    token = door or secrets.token_urlsafe(24)

    @contextlib.contextmanager
    def start(name: str, stop: threading.Event) -> Iterator[Running]:
        actor = _Actor(name, needs, seconds=job.serve.start_timeout, stop=stop)
        try:
            place = actor.ask(
                "place", late=f"no node has {_said(needs)} free (serve.threads, serve.gpus)"
            )
            if place.node not in checked:
                if found := actor.ask(
                    "faults", job, late=f"{place.address} did not read the model"
                ):
                    raise EngineError(f"{name}: node {place.address}: {'; '.join(found)}")
                checked.add(place.node)
            url, pid = actor.ask("start", job, name, token, late=f"{place.address} is silent")
            actor.began = True
            own = None if door else token
            yield Running(url, f"process {pid} on {place.address}", actor.ended, own)
            if actor.how_ended is not None:
                raise EngineError(f"{name} on {place.address}: {actor.how_ended}")
        finally:
            actor.close()

    return start


class _Actor:
    """One life of a replica, seen from here."""

    def __init__(
        self, name: str, needs: Mapping[str, float], *, seconds: float, stop: threading.Event
    ) -> None:
        self.ray = require_ray()
        self.name, self.seconds, self.stop = name, seconds, stop
        # Ray does not restart it: what died is replaced as on one machine.
        actor = self.ray.remote(NodeEngine).options(
            num_cpus=needs["CPU"], num_gpus=needs["GPU"], max_restarts=0,
            scheduling_strategy="SPREAD",
        )  # fmt: skip
        self.handle = actor.remote()
        self.began = False
        self.watching: Any = None
        self.how_ended: str | None = None

    def ask(self, method: str, *arguments: object, late: str) -> Any:
        """Return what a method says; EngineError where it fails, is late, or `stop` is set."""
        task = getattr(self.handle, method).remote(*arguments)
        deadline = time.monotonic() + self.seconds
        while not self.ray.wait([task], timeout=POLL_SECONDS)[0]:
            if self.stop.is_set():
                raise EngineError(f"{self.name}: was stopped while it started")
            if time.monotonic() > deadline:
                raise EngineError(f"{self.name}: {late}, after {self.seconds:g} s")
        return self._answer(task)

    def ended(self) -> bool:
        """Return whether the engine, its actor or its node is gone; `how_ended` says how."""
        if self.watching is None:
            self.watching = self.handle.watch.remote(WATCH_SECONDS)
        if not self.ray.wait([self.watching], timeout=0)[0]:
            return False
        try:
            self.how_ended = self._answer(self.watching)
        except EngineError as error:
            self.how_ended = str(error)
        self.watching = None
        return self.how_ended is not None

    def close(self) -> None:
        """End the engine, its actor, and with it whatever did not end in order."""
        with contextlib.suppress(self.ray.exceptions.RayError):
            if self.began and self.how_ended is None:
                self.ray.get(self.handle.end.remote(), timeout=END_SECONDS / 2)
        with contextlib.suppress(self.ray.exceptions.RayError):
            self.ray.kill(self.handle)

    def _answer(self, task: Any) -> Any:
        try:
            return self.ray.get(task)
        except self.ray.exceptions.RayTaskError as error:
            raise EngineError(f"{self.name}: {error.cause}") from error
        except self.ray.exceptions.RayError as error:
            why = " ".join(str(error).split())[:200]
            raise EngineError(f"{self.name}: its worker or node is gone: {why}") from error


def _said(resources: Mapping[str, float]) -> str:
    return f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"


def main(arguments: list[str]) -> int:
    """Balance between engines on the cluster; return the exit code."""
    config = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    spec = Serve.model_validate(config["serve"])
    door = os.environ.pop(TOKEN_ENV, None)  # no process of Ray is to inherit it
    try:
        job = job_of(spec, config["model"], name=config["name"])
        with cluster(spec.address):
            require_room(require_ray().nodes(), spec)
            needs = needs_of(spec)
            nodes = check_nodes(
                functools.partial(faults, job), needs=needs, seconds=spec.start_timeout
            )
            start = on_nodes(job, needs, door=door, checked={node.id for node in nodes})
            group = Group(names_of(config["name"], spec.replicas), start, spec.slots)
            return run(group, port=config["port"])
    except CuveeError as error:
        say(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
