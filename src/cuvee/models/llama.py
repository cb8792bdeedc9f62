"""One llama.cpp engine in a process of its own: its configuration, and its start.

Not here: what the process does (`cuvee.models.llama_server`), several of them behind one URL
(`cuvee.models.replicas`).
"""

import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cuvee.atomic import write_text
from cuvee.models.announce import announced
from cuvee.models.door import LOOPBACK
from cuvee.models.process import Process, running
from cuvee.recipe import Serve


def llama_config(
    spec: Serve, file: Path, *, name: str, port: int, host: str = LOOPBACK
) -> dict[str, Any]:
    """Return what each engine of `spec` is started with; `name` is the model's."""
    return {
        "model": str(file),
        "name": name,
        "slots": spec.slots,
        "context": spec.context,
        "threads": threads_of(spec),
        "host": host,
        "port": port,
    }


def threads_of(spec: Serve) -> int | None:
    """Return the CPU threads of each engine: as stated; None leaves them to a lone engine.

    Several share out the cores that this process may use.
    """
    if spec.threads is not None or spec.replicas == 1:
        return spec.threads
    return max(1, len(os.sched_getaffinity(0)) // spec.replicas)


@contextmanager
def running_llama(
    config: Mapping[str, Any],
    *,
    name: str,
    folder: Path,
    seconds: float,
    env: Mapping[str, str] | None = None,
    stop: threading.Event | None = None,
) -> Iterator[tuple[Process, str]]:
    """Run an engine while the block runs; yield its process and its URL, ending in `/v1`.

    `name` names its files in `folder`. Raises EngineError as `cuvee.models.process.running`
    and `cuvee.models.announce.announced` do.
    """
    config_file = folder / f"{name}.json"
    write_text(config_file, json.dumps(config, indent=1))
    command = [sys.executable, "-m", "cuvee.models.llama_server", str(config_file)]
    with running(command, name=name, folder=folder, env=env) as process:
        yield process, announced(process, seconds=seconds, stop=stop)
