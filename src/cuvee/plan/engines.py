"""Memory of the engines that a recipe starts in RAM, and whether this machine has as much.

The recipe's `serve:` sections of llama.cpp and the models they serve in; bytes, and the nearest
that fits, out. Counted as `cuvee.fit.serving` does. Engines are started one after another, so
that none shares the memory with another. Not here: vLLM, which takes whole GPUs, and
llama.cpp on GPUs (`devices`) or on other nodes (`over: ray`).
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

from cuvee.errors import DataError
from cuvee.fit.files import gguf_bytes
from cuvee.fit.serving import ERROR, RAM_RESERVE, serving_bytes
from cuvee.models.shape import ModelShape, shape_of
from cuvee.plan.figures import NOTHING, Figure
from cuvee.plan.rows import Misfit
from cuvee.plan.sizes import Sized
from cuvee.recipe import Quantization, Recipe, Serve, Teacher

EVALUATE = "evaluate.serve"
GIGA = 1e9


@dataclasses.dataclass(frozen=True)
class Engine:
    """One that a recipe starts."""

    serve: Serve
    shape: ModelShape | None
    """None: unknown, and so is its memory."""
    file: int | None
    """Bytes of a file that is served as it is; None: a model is exported for it."""
    stage: str
    """In which it is started first."""

    def bytes(self, *, slots: int | None = None, quantization: str | None = None) -> int | None:
        """Return what all its replicas take, as the recipe says or otherwise; None: unknown."""
        if self.shape is None:
            return None
        serve, weights = self.serve, self.file
        if weights is None:
            weights = gguf_bytes(self.shape, quantization or serve.quantization).weights
        taken = serving_bytes(
            self.shape, weights=weights, context=serve.context, slots=slots or serve.slots
        )
        return serve.replicas * taken


def engines(recipe: Recipe, base: Sized) -> dict[str, Engine]:
    """Return the engines in RAM by the key of their section: `teachers.NAME.serve`."""
    found = {}
    for teacher in recipe.teachers:
        if teacher.serve is not None and _in_ram(teacher.serve):
            file = Path(teacher.serve.model or teacher.model or "").expanduser()
            stage = _first_stage(recipe, teacher)
            found[key_of(teacher.name)] = _of_file(teacher.serve, file, stage)
    if recipe.evaluate.benchmarks and _in_ram(recipe.evaluate.serve):
        found[EVALUATE] = Engine(recipe.evaluate.serve, base.shape, None, "evaluate")
    return found


def _in_ram(serve: Serve) -> bool:
    """Return whether an engine takes this machine's RAM."""
    return serve.engine == "llama.cpp" and not serve.devices and serve.over is None


def _first_stage(recipe: Recipe, teacher: Teacher) -> str:
    """Return the stage that a teacher is asked in first."""
    if any(teacher in recipe.teachers_of(domain) for domain in recipe.domains):
        return "teach"
    for domain in recipe.domains.values():
        if domain.judge == teacher.name:
            return "verify"
        if domain.rubric is not None and domain.rubric.teacher == teacher.name:
            return "verify"
    refiners = [d.refine.teacher for d in recipe.domains.values() if d.refine is not None]
    return "select" if teacher.name in refiners else "evaluate"


def key_of(teacher: str) -> str:
    """Return where the recipe says how a teacher is served."""
    return f"teachers.{teacher}.serve"


def memory(found: Mapping[str, Engine], key: str) -> Figure | None:
    """Return the bytes of an engine; nothing where it takes no RAM of ours, None: unknown."""
    engine = found.get(key)
    if engine is None:
        return NOTHING
    taken = engine.bytes()
    if taken is None:
        return None
    return Figure(taken, taken * (1 - ERROR), taken * (1 + ERROR), "assumed")


def misfits(found: Mapping[str, Engine], ram: int) -> Iterator[Misfit]:
    """Yield what does not fit into `ram` bytes beside the system, with the nearest that does."""
    room = max(0, ram - RAM_RESERVE)
    for key, engine in found.items():
        taken = engine.bytes()
        if taken is None or taken <= room:
            continue
        serve, stage = engine.serve, engine.stage
        words = (
            f"{key} takes {taken / GIGA:.1f} GB of RAM with {serve.slots} slots of "
            f"{serve.context:,} tokens; this machine has {room / GIGA:.1f} GB beside the system"
        )
        yield Misfit(stage, "memory", taken, room, words, f"{key}: {_nearest(engine, room)}")


def _of_file(serve: Serve, file: Path, stage: str) -> Engine:
    """Return the engine of a GGUF file; one that is not there yet, or not readable, is unknown."""
    try:
        return Engine(serve, shape_of(file), file.stat().st_size, stage)
    except (DataError, OSError):
        return Engine(serve, None, None, stage)


def _nearest(engine: Engine, room: int) -> str:
    """Return the most slots that fit, else the largest smaller type with one, else how much RAM."""
    for slots in range(engine.serve.slots - 1, 0, -1):
        if (engine.bytes(slots=slots) or 0) <= room:
            return f"{{slots: {slots}}}"
    alone = engine.bytes(slots=1) or 0
    if engine.file is None:
        sizes = {kind: engine.bytes(slots=1, quantization=kind) for kind in _smaller(engine)}
        fitting = {kind: size for kind, size in sizes.items() if size and size <= room}
        if fitting:
            return f"{{quantization: {max(fitting, key=fitting.__getitem__)}, slots: 1}}"
        alone = min([alone, *(size for size in sizes.values() if size)])
    needed = (alone + RAM_RESERVE) / GIGA
    return f"a machine with {needed:.0f} GB, or vLLM on GPUs, or a url: of a server elsewhere"


def _smaller(engine: Engine) -> Iterator[str]:
    """Yield the types that the model's rows allow."""
    for kind in get_args(Quantization):
        try:
            engine.bytes(slots=1, quantization=kind)
        except DataError:
            continue
        yield kind
