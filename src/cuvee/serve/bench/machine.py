"""What this machine says beside a bench: memory of an engine, other programs' load, copying.

Process ids in, bytes out; Linux's `/proc`. Also what of a GGUF file a token must read. Not
here: GPUs; another machine's engine.
"""

import math
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cuvee.models.gguf_header import read_header

LOOK_SECONDS = 0.5
COPY_BYTES = 256 << 20
"""Copied at once: more than what most processors' caches hold."""
COPIES = 5
EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"


def peak_bytes(pid: int) -> int | None:
    """Return the most memory a process has held so far (RSS), with those that descend from it.

    The weights of a file that is mapped count as far as they were read. Peaks of several
    processes are added, so what they share counts more than once. None where it has ended.
    """
    peaks = [_status_bytes(member, "VmHWM") for member in _family(pid)]
    found = [peak for peak in peaks if peak is not None]
    return sum(found) if found else None


def busy_cores(seconds: float = LOOK_SECONDS) -> float:
    """Return how many cores were busy over the next `seconds`, with whatever it was."""
    before = _ticks()
    time.sleep(seconds)
    busy, total = (after - old for after, old in zip(_ticks(), before, strict=True))
    return (os.cpu_count() or 1) * busy / total if total else 0.0


def copy_bytes_per_second(threads: int) -> float:
    """Return what plain copies from memory to memory move, read and written bytes together.

    The median of a few copies, each by `threads` threads on parts of their own.
    """
    import numpy as np

    source = np.ones(COPY_BYTES, dtype=np.uint8)
    target = np.zeros_like(source)  # written before: a page's first touch is no copy
    target[:] = 1
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    seconds = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(COPIES):
            begin = time.perf_counter()
            list(pool.map(lambda part: np.copyto(part[1], part[0]), parts))
            seconds.append(time.perf_counter() - begin)
    return 2 * COPY_BYTES / statistics.median(seconds)


def bytes_a_token(file: Path) -> int | None:
    """Return how many bytes of weights of a GGUF file one token must read, exact for dense models.

    All tensors, but of an embedding that is not the output layer too one row alone. None where
    it has a type that this version of gguf does not know. Raises DataError where the file
    cannot be read.
    """
    from gguf import GGML_QUANT_SIZES

    sizes: dict[str, int] = {}
    rows: dict[str, int] = {}
    for tensor in read_header(file).tensors:
        if tensor.kind not in GGML_QUANT_SIZES:
            return None
        block, size = GGML_QUANT_SIZES[tensor.kind]
        sizes[tensor.name] = math.prod(tensor.shape) // block * size
        rows[tensor.name] = tensor.shape[-1]
    total = sum(sizes.values())
    if EMBEDDING in sizes and OUTPUT in sizes:
        total -= sizes[EMBEDDING] - sizes[EMBEDDING] // rows[EMBEDDING]
    return total


def _family(pid: int) -> set[int]:
    """Return a process and all that descend from it."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:  # it ended meanwhile
            continue
        parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
    found = {pid}
    while new := {child for child, parent in parents.items() if parent in found} - found:
        found |= new
    return found


def _status_bytes(pid: int, key: str) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = [line.split() for line in lines if line.startswith(f"{key}:")]
    return int(found[0][1]) * 1024 if found else None


def _ticks() -> tuple[int, int]:
    """Return busy and all clock ticks of all cores since boot, of proc(5) `stat`."""
    with Path("/proc/stat").open(encoding="utf-8") as file:
        ticks = [int(field) for field in file.readline().split()[1:9]]
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)
