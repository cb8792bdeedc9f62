"""Opens a Ray cluster, or starts one of this machine's cores, and closes it again.

An address in, a connected Ray while a block runs. Ray is imported here and in this room alone,
when it is asked for (extra `ray`). Not here: whether its nodes can do the work
(`cuvee.workers.nodes`), the work itself (`cuvee.workers.chunks`).
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

from cuvee.errors import CuveeError, RecipeError
from cuvee.progress import say, warn

ADDRESS = "RAY_ADDRESS"
"""The environment's address of a cluster, as every program of Ray reads it."""
LOOPBACK = "127.0.0.1"
STARTS = 2
"""Ray gives itself 30 s to start, which a busy or cold machine may not keep."""
SCRATCH_MB = 512
"""Shared memory of a Ray that is started here: chunks pass through it, none stays."""


def require_ray() -> Any:
    """Return the module `ray`. Raises RecipeError where it is not installed."""
    try:
        import ray
    except ImportError as error:
        raise RecipeError(
            f"workers: ray needs Ray ({error}); install it with `pip install 'cuvee[ray]'`, on "
            "every node"
        ) from error
    return ray


@contextlib.contextmanager
def cluster(address: str | None, *, cpus: int | None = None) -> Iterator[None]:
    """Be connected to a Ray cluster while the block runs.

    `address` is `host:port` or `auto`; where it is None that of the environment
    (`RAY_ADDRESS`) counts, and where that is not set either a Ray of this machine is started,
    of `cpus` cores (None: all), and stopped at the end. A Ray that this process is connected to
    already is used, and left open. Raises RecipeError where Ray is not installed, CuveeError
    where no cluster answers.
    """
    where = address or os.environ.get(ADDRESS) or None
    if where is None:
        _stay_private()
    ray = require_ray()
    if ray.is_initialized():
        yield
        return
    try:
        _connect(ray, where, cpus=cpus)
    except Exception as error:  # of Ray: a node that does not start is a bare one
        ray.shutdown()
        named = f"the Ray cluster at {where!r}" if where else "a Ray of this machine"
        raise CuveeError(
            f"{named} does not answer: {_first_line(error)}; start one with "
            "`ray start --head`, or take the address away to have one started here"
        ) from error
    say(f"workers: Ray at {where}" if where else "workers: a Ray of this machine, for this run")
    try:
        yield
    finally:
        ray.shutdown()


def _connect(ray: Any, where: str | None, *, cpus: int | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if where is not None:
        ray.init(address=where, **quiet)
        return
    for left in reversed(range(STARTS)):
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=SCRATCH_MB * 2**20,
                **quiet,
            )
            break
        except Exception as error:  # of Ray: what does not start in time is a bare one
            ray.shutdown()
            if not left:
                raise
            warn(f"a Ray of this machine did not start ({_first_line(error)}); once more")
    address = ray.util.get_node_ip_address()
    if address != LOOPBACK:
        warn(
            f"the Ray started here listens on {address}, where any program that reaches it may "
            "run code: Ray was loaded before cuvee could tell it to keep to this machine"
        )


def _stay_private() -> None:
    """Have a Ray that is started here listen on the loopback alone and report to nobody.

    Ray reads this when it is imported. Without it every port of Ray is open to the network, and
    whoever reaches one may run code; the name is that of other systems, where Ray does so always.
    """
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def cpu_count() -> int:
    """Return how many CPUs the cluster has now, at least 1: nodes come and go."""
    return max(1, int(require_ray().cluster_resources().get("CPU", 0)))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
