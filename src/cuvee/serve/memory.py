"""Whether what will be served fits into what memory is free: told, never refused.

A plan in, a warning or nothing out. A lower bound: the weights as they stand in their file
and the KV cache in 16 bits; engines need working memory beside. What a model needs before it
is there is `cuvee fit`'s.
"""

from pathlib import Path

from cuvee.errors import DataError
from cuvee.models.files import weight_files
from cuvee.models.shape import shape_of
from cuvee.progress import warn
from cuvee.serve.start import Plan

_KV_BYTES = 2
_GIB = 1 << 30


def least_memory(plan: Plan) -> int:
    """Return bytes that serving takes at least. Raises DataError where the shape is unknown."""
    path = Path(plan.path)
    files = [path] if path.is_file() else weight_files(path)
    shape = shape_of(path)
    values = 2 * shape.layers * shape.key_value_heads * shape.head_size
    tokens = plan.spec.slots * plan.spec.context
    return sum(file.stat().st_size for file in files) + values * tokens * _KV_BYTES


def warn_of_memory(plan: Plan) -> None:
    """Warn where llama.cpp on this machine's memory will not do; of vLLM's GPUs nothing is said."""
    if plan.spec.engine != "llama.cpp":
        return
    try:
        needed = least_memory(plan)
    except DataError as error:
        warn(f"whether it fits into memory is not known: {error}")
        return
    free = _available()
    if free is not None and needed > free:
        warn(
            f"it needs at least {needed / _GIB:.1f} GiB ({plan.spec.slots} slots of "
            f"{plan.spec.context} tokens), {free / _GIB:.1f} GiB are free: try fewer --slots, less "
            "--context or a smaller type"
        )


def _available() -> int | None:
    """Return the bytes of memory that programs may still take; None where Linux does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = (line.split() for line in lines if line.startswith("MemAvailable:"))
    return next((int(words[1]) * 1024 for words in found), None)
