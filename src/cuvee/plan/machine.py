"""What this machine has: cores, memory, free disk, GPUs. Loads no torch.

GPUs are asked of `nvidia-smi`; where it is not there, there are none for cuvee. Not here:
what a run needs (`cuvee.plan.estimate`).
"""

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path

from cuvee.models.machine import ram

PATIENCE = 10
"""Seconds nvidia-smi may take."""


@dataclasses.dataclass(frozen=True)
class Machine:
    """A machine, in bytes."""

    cores: int
    ram: int
    disk: int
    """Free, where the run folder is or would be."""
    gpus: tuple[int, ...]
    """Memory of each."""


def this_machine(folder: Path) -> Machine:
    """Return what is here; `folder` need not be there yet."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return Machine(
        cores=os.cpu_count() or 1,
        ram=ram(),
        disk=shutil.disk_usage(place).free,
        gpus=_gpus(),
    )


def _gpus() -> tuple[int, ...]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    command = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
        return tuple(int(line) << 20 for line in done.stdout.split())  # it speaks in MiB
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()  # no driver, or a card that does not say
