"""Whether what will be served fits into what memory is free: told, never refused.

A plan in, a warning or nothing out. Counted as `cuvee.fit.serving` does it, the weights as
they stand in their file. What a model needs before it is there is `cuvee fit`'s.
"""

from pathlib import Path

from cuvee.errors import DataError
from cuvee.fit.serving import serving_bytes
from cuvee.models.files import weight_files
from cuvee.models.shape import shape_of
from cuvee.progress import warn
from cuvee.serve.start import Plan

_GIB = 1 << 30


def needed_bytes(plan: Plan) -> int:
    """Return the bytes that llama.cpp will take. Raises DataError where the shape is unknown."""
    path, spec = Path(plan.path), plan.spec
    files = [path] if path.is_file() else weight_files(path)
    weights = sum(file.stat().st_size for file in files)
    return serving_bytes(shape_of(path), weights=weights, context=spec.context, slots=spec.slots)


def warn_of_memory(plan: Plan) -> None:
    """Warn where llama.cpp on this machine's memory will not do; of vLLM's GPUs nothing is said."""
    if plan.spec.engine != "llama.cpp":
        return
    try:
        needed = needed_bytes(plan)
    except DataError as error:
        warn(f"whether it fits into memory is not known: {error}")
        return
    free = _available()
    if free is not None and needed > free:
        warn(
            f"it needs about {needed / _GIB:.1f} GiB ({plan.spec.slots} slots of "
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
