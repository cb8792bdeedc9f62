"""All that `cuvee fit` says of one model on one machine: every type of file, and training.

Not here: the numbers themselves (`cuvee.fit.files`, `cuvee.fit.serving`, `cuvee.fit.speed`,
`cuvee.train.memory`), and how they are shown (`cuvee.cli.fit`).
"""

import dataclasses
from collections.abc import Sequence

from cuvee.errors import DataError
from cuvee.fit.files import FileSize, gguf_bytes
from cuvee.fit.serving import (
    RAM_RESERVE,
    Placement,
    ServingMemory,
    largest_context,
    layers_on_gpu,
    serving_memory,
)
from cuvee.fit.speed import Bandwidth, Pace, tokens_per_second
from cuvee.models.shape import ModelShape

HEADLINE = "Q4_K_M"
"""The type that the headline speaks of where nothing fits, or nobody chose one."""

UNQUANTISED = ("F32", "F16", "BF16")


@dataclasses.dataclass(frozen=True)
class Machine:
    """Bytes and bandwidths of a machine; `gpu` 0 is none."""

    gpu: int
    ram: int
    ram_bandwidth: Bandwidth
    gpu_bandwidth: Bandwidth | None = None

    @property
    def usable_ram(self) -> int:
        """Return the bytes of RAM that are left beside the system."""
        return max(0, self.ram - RAM_RESERVE)


@dataclasses.dataclass(frozen=True)
class Wanted:
    """How the model is to be served."""

    context: int
    slots: int
    kv: str = "f16"


@dataclasses.dataclass(frozen=True)
class Row:
    """One type of file on one machine."""

    quantization: str
    file: FileSize
    memory: ServingMemory
    placed: Placement
    fits: bool
    short: int
    """Bytes of RAM that are missing; 0 where it fits."""
    largest_context: int
    """Tokens a slot that would fit, with as many slots."""
    pace: Pace | None
    """With a full cache of one slot; None where it does not fit, or a bandwidth is unknown."""


@dataclasses.dataclass(frozen=True)
class TrainingRow:
    """One way to train the model, on the fullest of the GPUs."""

    way: str
    strategy: str
    total: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    """Logits and overhead included in `total` alone."""
    fits: bool


def overview(
    shape: ModelShape,
    machine: Machine,
    wanted: Wanted,
    *,
    types: Sequence[str],
    metadata: int | None = None,
) -> tuple[Row, ...]:
    """Return a row for each type. Raises DataError for an unknown one, or one that cannot be."""
    return tuple(_row(shape, machine, wanted, kind, metadata) for kind in types)


def chosen(rows: Sequence[Row], *, own: str | None = None) -> Row:
    """Return the row to speak of: that of the type `own`, where there is one.

    Else the largest that fits, else `HEADLINE`, else the last. Unquantised files are passed
    over where a quantised one is among the rows: Q8_0 is as good.
    """
    if found := [row for row in rows if row.quantization == own]:
        return found[0]
    quantised = [row for row in rows if row.quantization not in UNQUANTISED] or list(rows)
    fitting = [row for row in quantised if row.fits]
    if fitting:
        return max(fitting, key=lambda row: row.file.total)
    return next((row for row in rows if row.quantization == HEADLINE), quantised[-1])


def headline(row: Row, wanted: Wanted) -> str:
    """Return the sentence to begin with, of one row."""
    begin = (
        f"{row.quantization} with {wanted.context:,} tokens x {wanted.slots} "
        f"slot{'s' if wanted.slots > 1 else ''} needs {_gb(row.memory.total)}"
    )
    if not row.fits:
        return f"{begin}: does not fit, {_gb(row.short)} of RAM are missing."
    where = "all in RAM" if not row.placed.gpu_layers else (
        f"{_gb(row.placed.gpu)} on the GPU (n_gpu_layers {row.placed.gpu_layers}), "
        f"{_gb(row.placed.ram)} in RAM"
    )  # fmt: skip
    pace = f", about {row.pace.tokens:.2g} tokens/s" if row.pace else ""
    return f"{begin}: fits, {where}{pace}."


def nearest(
    shape: ModelShape, machine: Machine, wanted: Wanted, *, row: Row, rows: Sequence[Row]
) -> tuple[str, ...]:
    """Return what would have to change for a row to fit; nothing where it does."""
    if row.fits:
        return ()
    said = []
    smaller = [r for r in rows if r.fits and r.file.total < row.file.total]
    if smaller:
        best = max(smaller, key=lambda r: r.file.total)
        said.append(f"{best.quantization} fits as it is")
    if row.largest_context:
        said.append(f"{row.quantization} fits with {row.largest_context:,} tokens a slot")
    slots = [
        slots
        for slots in range(1, wanted.slots)
        if _placed(shape, machine, dataclasses.replace(wanted, slots=slots), row.quantization).ram
        <= machine.usable_ram
    ]
    if slots:
        said.append(f"{row.quantization} fits with {max(slots)} slot(s)")
    said.append(f"{row.quantization} fits with {_gb(row.short)} more RAM")
    return tuple(said)


def training(
    shape: ModelShape, *, gpus: int, gpu: int, row_tokens: int, lora_rank: int = 32
) -> tuple[TrainingRow, ...]:
    """Return what training takes on the fullest of `gpus` GPUs of `gpu` bytes each.

    With gradient checkpointing and rows of `row_tokens` tokens, a micro-batch of one row.
    """
    from cuvee.recipe import Train
    from cuvee.train.memory import STRATEGIES, estimate

    found = []
    for way, lora in (("full", None), (f"LoRA {lora_rank}", {"rank": lora_rank})):
        for strategy in STRATEGIES:
            settings = {
                "lora": lora,
                "launcher": {"gpus": gpus, "strategy": strategy},
                "batch_size": gpus,
                "max_tokens": row_tokens,
                "gradient_checkpointing": True,
            }
            memory = estimate(
                shape,
                Train.model_validate(settings),
                lengths=[row_tokens],
                processes=gpus,
                device="cuda",
            )
            found.append(
                TrainingRow(
                    way=way,
                    strategy=strategy,
                    total=memory.total,
                    weights=memory.weights,
                    gradients=memory.gradients,
                    optimizer=memory.optimizer,
                    activations=memory.activations,
                    fits=memory.total <= gpu,
                )
            )
    return tuple(found)


def _row(
    shape: ModelShape, machine: Machine, wanted: Wanted, kind: str, metadata: int | None
) -> Row:
    placed = _placed(shape, machine, wanted, kind)
    short = max(0, placed.ram - machine.usable_ram)
    pace = None
    if not short and (machine.gpu_bandwidth is not None or not placed.gpu_layers):
        pace = tokens_per_second(
            placed,
            ram=machine.ram_bandwidth,
            gpu=machine.gpu_bandwidth,
            filled=1 / wanted.slots,
        )
    return Row(
        quantization=kind,
        file=gguf_bytes(shape, kind, metadata=metadata),
        memory=serving_memory(
            shape, kind, context=wanted.context, slots=wanted.slots, kv=wanted.kv
        ),
        placed=placed,
        fits=not short,
        short=short,
        largest_context=largest_context(
            shape, kind, gpu=machine.gpu, ram=machine.usable_ram, slots=wanted.slots, kv=wanted.kv
        ),
        pace=pace,
    )


def _placed(shape: ModelShape, machine: Machine, wanted: Wanted, kind: str) -> Placement:
    return layers_on_gpu(
        shape, kind, gpu=machine.gpu, context=wanted.context, slots=wanted.slots, kv=wanted.kv
    )


def possible(shape: ModelShape, types: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the types that can hold the model, and why the others cannot."""
    held, refused = [], []
    for kind in types:
        try:
            gguf_bytes(shape, kind)
        except DataError as error:
            refused.append(f"{kind}: {error}")
        else:
            held.append(kind)
    return held, refused


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
