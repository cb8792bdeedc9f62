"""The memory of this machine: what it has, and what is free. Loads no torch.

Asked by whatever says if a model, a training or a merge fits. Not here: GPUs, and other
machines' memory; a container's own limit is not looked at.
"""

import os
from pathlib import Path

_MEMORY = Path("/proc/meminfo")


def ram() -> int:
    """Return the bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def free_ram() -> int | None:
    """Return the bytes that programs may still take; None where the system does not say."""
    try:
        lines = _MEMORY.read_text(encoding="ascii").splitlines()
    except OSError:
        return None  # no Linux
    found = (line.split() for line in lines if line.startswith("MemAvailable:"))
    return next((int(words[1]) * 1024 for words in found), None)
