"""Whether what will be served fits into what memory is free: told, never refused.

A plan in, a warning or nothing out. Counted as `cuvee.fit.serving` does it, the weights as
they stand in their file. What a model needs before it is there is `cuvee fit`'s.
"""

from pathlib import Path

from cuvee.errors import DataError
from cuvee.fit.serving import serving_bytes
from cuvee.models.files import weight_files
from cuvee.models.machine import free_ram
from cuvee.models.shape import shape_of
from cuvee.progress import warn
from cuvee.serve.start import Plan, said

_GIB = 1 << 30


def needed_bytes(plan: Plan) -> int:
    """Return the bytes that all replicas of llama.cpp will take.

    Raises DataError where the shape is unknown.
    """
    path, spec = Path(plan.path), plan.spec
    files = [path] if path.is_file() else weight_files(path)
    weights = sum(file.stat().st_size for file in files)
    each = serving_bytes(shape_of(path), weights=weights, context=spec.context, slots=spec.slots)
    return spec.replicas * each


def warn_of_memory(plan: Plan) -> None:
    """Warn where llama.cpp on this machine's memory will not do; of vLLM's GPUs nothing is said."""
    if plan.spec.engine != "llama.cpp":
        return
    try:
        needed = needed_bytes(plan)
    except DataError as error:
        warn(f"whether it fits into memory is not known: {error}")
        return
    free = free_ram()
    if free is not None and needed > free:
        warn(
            f"it needs about {needed / _GIB:.1f} GiB ({said(plan.spec)}), {free / _GIB:.1f} GiB "
            "are free: try fewer --slots or --replicas, less --context or a smaller type"
        )
