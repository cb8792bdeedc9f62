"""The row of the merge, and its memory beside this machine's.

The base's shape and the recipe's `merge` in; hours, disk and bytes out. Memory is the sum that
`cuvee.merge.plan.memory_needed` makes of the files, made of the shape. Not here: adapters,
which `train.lora` merges into the specialists before.
"""

from collections.abc import Iterator

from cuvee.merge.blocks import BLOCK_ELEMENTS
from cuvee.merge.config.entries import ARCEE_FUSION
from cuvee.merge.inputs.reader import WINDOW_BYTES
from cuvee.merge.methods.fusion import KEPT
from cuvee.merge.methods.table import METHODS
from cuvee.merge.plan import MERGEKIT_BYTES, PROCESS_BYTES, SELECTION_BYTES, WORK_ARRAYS
from cuvee.models.shape import ModelShape
from cuvee.plan.asking import HOUR
from cuvee.plan.case import Case
from cuvee.plan.figures import Figure, known, measured, total
from cuvee.plan.rows import Misfit, Row
from cuvee.recipe import Recipe

MEGA, GIGA = 1e6, 1e9
OUT_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
MASTER, SMALL = 4, 2
"""Bytes of a specialist's weight; of one trained in bf16."""
FLOAT = 4


def merge_rows(case: Case) -> list[Row]:
    """Return the row of the merge: it streams, so memory is blocks, threads and maps of files."""
    base, count = case.base, len(case.recipe.domains)
    out = base.bytes(OUT_BYTES[case.recipe.merge.out_dtype])
    read = base.bytes(_stored(case.recipe) * count)
    shape, threads = base.shape, case.machine.cores
    memory = None if shape is None else known(merge_bytes(shape, case.recipe, threads=threads))
    seconds = case.measured.seconds("merge/merged")
    return [
        Row(
            "merge",
            "merged",
            hours=hours_of_bytes(case, total([out, read]), seconds),
            disk=out,
            memory=memory,
            tasks=("merge/merged",),
            note="" if base.shape else base.why,
            done=case.measured.is_done("merge/merged", case.recipe.limit),
        )
    ]


def hours_of_bytes(case: Case, size: Figure | None, seconds: float | None) -> Figure | None:
    """Return the hours of reading and writing files: as measured, which a pilot's size is."""
    if seconds is not None:
        return measured(seconds / HOUR)
    if size is None:
        return None
    rate = case.assumptions.figure("disk_mb_per_second").scaled(MEGA)
    return (size / rate).scaled(1 / HOUR)


def merge_bytes(shape: ModelShape, recipe: Recipe, *, threads: int) -> int:
    """Return about how many bytes the merge holds at its peak with that many threads (>= 1)."""
    merge, models = recipe.merge, len(recipe.domains)
    sizes = list(_sizes(shape))
    block = max(max(1, BLOCK_ELEMENTS // d) * d for _, d in sizes)
    largest = max(rows * d for rows, d in sizes)
    method = METHODS.get(merge.method)
    with_base = method is not None and method.base != "refused"
    # The base is read in any case: merged, or what changes are measured from.
    arrays = models + with_base + 1 + WORK_ARRAYS
    mapped = (models + 1) * min(WINDOW_BYTES, largest * _stored(recipe))
    rows = max(rows for rows, _ in sizes)
    needed = PROCESS_BYTES + mapped + threads * FLOAT * arrays * block + FLOAT * rows * models
    if merge.method == ARCEE_FUSION:
        needed += SELECTION_BYTES * min(KEPT, largest // 2)
    if merge.mode == "mergekit":
        needed += MERGEKIT_BYTES * largest
    return int(needed)


def merge_misfits(case: Case) -> Iterator[Misfit]:
    """Yield what is to be said where the merge takes more than this machine's RAM."""
    shape, recipe, ram = case.base.shape, case.recipe, case.machine.ram
    if shape is None:
        return
    needed = merge_bytes(shape, recipe, threads=case.machine.cores)
    if needed > ram:
        words = (
            f"merging takes {needed / GIGA:.1f} GB of RAM with {case.machine.cores} threads, this "
            f"machine has {ram / GIGA:.1f} GB"
        )
        yield Misfit("merge", "memory", needed, ram, words, _nearest(shape, case))


def _nearest(shape: ModelShape, case: Case) -> str:
    """Return the most threads that fit, else `mode: exact`, else how much RAM."""
    recipe, ram = case.recipe, case.machine.ram
    for threads in range(case.machine.cores - 1, 0, -1):
        if merge_bytes(shape, recipe, threads=threads) <= ram:
            return f"{threads} threads, one a core: `taskset -c 0-{threads - 1} cuvee run ...`"
    if recipe.merge.mode == "mergekit":
        merge = recipe.merge.model_copy(update={"mode": "exact"})
        if merge_bytes(shape, recipe.model_copy(update={"merge": merge}), threads=1) <= ram:
            return "merge: {mode: exact}, which holds no whole tensors"
    least = merge_bytes(shape, recipe, threads=1)
    return f"a machine with {least / GIGA:.1f} GB, which one thread needs"


def _stored(recipe: Recipe) -> int:
    return SMALL if recipe.train.weights == "bf16" else MASTER


def _sizes(shape: ModelShape) -> Iterator[tuple[int, int]]:
    """Yield (rows, width) of the tensors of a checkpoint: embedding, norms, biases, matrices."""
    yield shape.vocabulary, shape.hidden
    yield 1, shape.hidden
    for wide, out in shape.linear:
        yield out, wide
        yield 1, out
