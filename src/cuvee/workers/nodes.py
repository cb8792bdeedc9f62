"""Each node of a cluster is asked what it has, before it is given rows.

A function that finds faults in, a line a node out: its address, CPUs and memory, whether its
versions are those of here, and what the function says of it. Not here: what a node needs for
a stage (`cuvee.verify.clustered` says that of checking).
"""

import contextlib
import dataclasses
import importlib.metadata
import platform
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cuvee.errors import CuveeError
from cuvee.progress import say
from cuvee.workers.cluster import cluster, require_ray

SAME = ("cuvee", "math-verify", "sympy", "numpy", "pyarrow", "tokenizers", "transformers")
"""Packages that must be of one version everywhere: another one may judge or count otherwise."""
NODE_SECONDS = 120.0
"""A node that has not answered by then has no free CPU, or does not start a worker."""
ONE_CPU = {"CPU": 1.0}


@dataclasses.dataclass(frozen=True)
class Node:
    """What was heard of one node."""

    id: str
    """Ray's."""
    address: str
    cpus: int
    memory_gb: float
    faults: tuple[str, ...]
    """Why it cannot take part, in words; none: it can."""


def check_nodes(
    find_faults: Callable[[], list[str]],
    *,
    needs: Mapping[str, float] = ONE_CPU,
    seconds: float = NODE_SECONDS,
) -> list[Node]:
    """Ask every node that is alive and has what is needed, and say a line of each; return them.

    `find_faults` runs in a worker of each node and returns what stands against it; it must be
    importable there, and answer within `seconds`. `needs` has Ray's names (`CPU`, `GPU`).
    A node that is lost meanwhile is left out. Raises CuveeError where a node has a fault, with
    all faults of all nodes.
    """
    ray = require_ray()
    alive = [node for node in ray.nodes() if node["Alive"] and _has(node["Resources"], needs)]
    if not alive:
        raise CuveeError("Ray: the cluster has no node with a CPU; start one with `ray start`")
    asked = [_ask(ray, node["NodeID"], find_faults) for node in alive]
    ray.wait(asked, num_returns=len(asked), timeout=seconds)
    told_of = [_node(ray, node, task, seconds) for node, task in zip(alive, asked, strict=True)]
    nodes = [node for node in told_of if node is not None]
    if gone := len(told_of) - len(nodes):
        say(f"  {gone} of {len(told_of)} nodes went while they were asked")
    if not nodes:
        raise CuveeError("Ray: every node of the cluster went while it was asked")
    for node in nodes:
        state = "; ".join(node.faults) or "ready, versions as here"
        say(f"  node {node.address}: {node.cpus} CPUs, {node.memory_gb:.0f} GB: {state}")
    bad = [node for node in nodes if node.faults]
    if bad:
        told = "\n  ".join(f"{node.address}: {'; '.join(node.faults)}" for node in bad)
        raise CuveeError(
            f"Ray: {len(bad)} of {len(nodes)} nodes cannot take part; mend them or take them "
            f"out of the cluster (`ray stop` there):\n  {told}"
        )
    return nodes


def no_faults() -> list[str]:
    """On a node: find nothing beyond what every node is asked."""
    return []


@contextlib.contextmanager
def checked_cluster(
    address: str | None, find_faults: Callable[[], list[str]] = no_faults
) -> Iterator[None]:
    """Be connected to a cluster each of whose nodes was asked, while the block runs.

    Raises as `cluster` and `check_nodes` do.
    """
    with cluster(address):
        check_nodes(find_faults)
        yield


def versions() -> dict[str, str]:
    """Return the versions that have to be the same on all nodes, by name."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for package in SAME:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """Return what differs between the versions of the driver and of a node, in words."""
    return [
        f"{name} is {there.get(name, 'not installed')}, here {version}"
        for name, version in here.items()
        if there.get(name) != version
    ]


def _ask(ray: Any, node_id: str, find_faults: Callable[[], list[str]]) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)
    remote = ray.remote(num_cpus=1, max_retries=1)(_report)
    return remote.options(scheduling_strategy=there).remote(find_faults, versions())


def _report(find_faults: Callable[[], list[str]], here: Mapping[str, str]) -> list[str]:
    """In a worker of the node: say what stands against it."""
    return differences(here, versions()) + find_faults()


def _has(resources: Mapping[str, float], needs: Mapping[str, float]) -> bool:
    return all(resources.get(key, 0) >= need for key, need in {**ONE_CPU, **needs}.items())


def _node(ray: Any, node: Mapping[str, Any], task: Any, seconds: float) -> Node | None:
    """Return what was heard of a node; None where it is gone: Ray lists it for a while yet."""
    resources = node["Resources"]
    try:
        faults = tuple(ray.get(task, timeout=0))
    except (ray.exceptions.TaskUnschedulableError, ray.exceptions.NodeDiedError):
        return None
    except ray.exceptions.GetTimeoutError:
        faults = (f"no answer within {seconds:.0f} s: no free CPU, or no worker starts",)
        ray.cancel(task, force=True)
    except ray.exceptions.RayTaskError as error:  # cuvee is not there, or not this one
        faults = (f"{type(error.cause).__name__}: {error.cause}",)
    except ray.exceptions.RayError as error:
        faults = (f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",)
    return Node(
        id=node["NodeID"],
        address=node["NodeManagerAddress"],
        cpus=int(resources.get("CPU", 0)),
        memory_gb=resources.get("memory", 0) / 1e9,
        faults=faults,
    )
