"""How much memory a training takes on its fullest process, from sizes and row lengths alone.

In: the model's shape, the recipe's `train:`, the tokens of each row as it is trained. Out:
bytes, by what they are for, at the fullest moment of an optimizer step. What is counted:

- weights, gradients, AdamW's two moments: 4 + 4 + 8 bytes a trained weight in float32 (Rajbhandari
  et al. 2020, arXiv:1910.02054, section 3.1, count 2 + 2 + 12 for their mixed precision: 16 too);
  in bf16 half of it; frozen weights under LoRA their own bytes alone; the bf16 copies that
  autocast makes count as weights;
- `fsdp` and `zero3` share these three out over all processes (stage 3 of that paper), and hold two
  layers and what is outside the layers gathered; `ddp` holds a second copy of the gradients in its
  buckets (torch's documentation of `gradient_as_bucket_view`);
- activations: `cuvee.train.activations`; with gradient checkpointing the input of every layer,
  and one layer's activations as they are computed again (Chen et al. 2016, arXiv:1604.06174);
- logits: on a CPU the labelled positions (`cuvee.train.labelled`), on a GPU TRL's tiles.

A step is full at one of four moments, and `Memory` holds the fullest: its parts add up to its
total. Measured against real trainings whose tensors have pages of their own
(MALLOC_MMAP_THRESHOLD_=65536; tests/train/test_memory.py, benchmarks/memory.py). By default
glibc keeps freed tensors in its heap, and the same steps grow a process by 1.2 to 2.1 times as
much (measured); that is said beside the estimate and is not in it. Not here: time
(`cuvee.train.duration`), disk, the host's memory beside a GPU.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from cuvee.models.shape import ModelShape
from cuvee.recipe import Train
from cuvee.train.activations import (
    Attention,
    MicroBatch,
    Numbers,
    input_bytes,
    layer_bytes,
    outside_bytes,
    working_bytes,
)

Device = Literal["cpu", "cuda"]

PROCESS = {"cpu": 550_000_000, "cuda": 1_500_000_000}
"""Bytes before the first weight. CPU: measured, of imports, tokenizer and trainer. GPU: CUDA's
context, cuBLAS workspaces and NCCL buffers as commonly seen; not measured by us."""
HOLES_ON_GPU = 0.08
"""Share of what a step allocates that CUDA's allocator holds on top: assumed."""
TILE_TOKENS, TILE_WORDS = 4096, 32768
"""The tiles in which TRL 1.16 makes logits on a GPU (trl/kernels/chunked_logprob.py)."""
STRATEGIES: tuple[Literal["ddp", "fsdp", "zero3"], ...] = ("ddp", "fsdp", "zero3")


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of the fullest process at the fullest moment of a step; the parts add up."""

    weights: int
    """Its part of the weights, what it has gathered, and copies in bf16."""
    gradients: int
    optimizer: int
    activations: int
    logits: int
    """Logits, their gradients, and the head's share of the work."""
    overhead: int
    """The process itself; on a GPU also the holes between tensors."""
    total: int
    moment: str
    """When that is, in words."""
    assumptions: tuple[str, ...]
    """What the numbers rest on, in words."""


@dataclasses.dataclass(frozen=True)
class _Case:
    """One process of a training."""

    shape: ModelShape
    train: Train
    numbers: Numbers
    batch: MicroBatch
    labelled: int
    """Positions of the micro-batch that are inside the loss."""
    processes: int
    device: Device
    attention: Attention

    @property
    def shards(self) -> int:
        return 1 if self.train.launcher.strategy == "ddp" else self.processes

    @property
    def trained(self) -> int:
        """Weights that are trained, on all processes together."""
        lora = self.train.lora
        return self.shape.adapter_parameters(lora.rank) if lora else self.shape.parameters

    @property
    def trained_bytes(self) -> int:
        """Bytes of one trained weight: peft keeps adapters in float32."""
        return 4 if self.train.lora else self.numbers.weight

    @property
    def accumulates(self) -> bool:
        rows = self.processes // self.train.launcher.sequence_parallel
        return self.train.batch_size > self.train.micro_batch * rows


def estimate(  # noqa: PLR0913 - each of them decides
    shape: ModelShape,
    train: Train,
    *,
    lengths: Sequence[int],
    processes: int,
    device: Device,
    labelled: float = 1.0,
    attention: Attention = "sdpa",
) -> Memory:
    """Return what a training takes on its fullest process, once the optimizer has its state.

    `lengths` are the tokens of each row as training reads it: packed rows where
    `train.packing`, else examples; at least one. `processes` is nodes * GPUs, of which
    `train.launcher.sequence_parallel` share a row. `labelled`, in (0, 1], is the share of the
    tokens inside the loss. `train.precision: auto` is taken as bf16. With sdpa packed rows are
    masked, with flash attention they are not. Raises ValueError for no lengths.
    """
    batch = fullest(train, lengths)
    case = _Case(
        shape=shape,
        train=train,
        numbers=numbers(train, device),
        batch=batch,
        labelled=math.ceil(batch.tokens * labelled),
        processes=processes,
        device=device,
        attention=attention,
    )
    return _fullest_moment(case)


def numbers(train: Train, device: Device) -> Numbers:
    """Return the types a training computes with; `precision: auto` is taken as bf16."""
    return Numbers(
        product=4 if train.precision == "fp32" and train.weights == "fp32" else 2,
        weight=2 if train.weights == "bf16" else 4,
        lora=train.lora,
        dropout_mask=1 if device == "cuda" else 4,
    )


def fullest(train: Train, lengths: Sequence[int]) -> MicroBatch:
    """Return the largest micro-batch that a training can meet, as one process sees it.

    Packed: the longest rows together, strung into one, masked. Else the longest row beside
    shorter ones that are padded to it. Raises ValueError for no lengths.
    """
    if not lengths:
        raise ValueError("lengths: at least one row is needed")
    longest = sorted(lengths, reverse=True)[: train.micro_batch]
    share = train.launcher.sequence_parallel
    if train.packing:
        return MicroBatch(rows=1, width=math.ceil(sum(longest) / share), masked=True)
    padded = len(longest) > 1 and min(lengths) < longest[0]
    return MicroBatch(
        rows=len(longest), width=math.ceil(longest[0] / share), masked=padded and share == 1
    )


def table(
    shape: ModelShape,
    train: Train,
    *,
    lengths: Sequence[int],
    processes: int,
    device: Device = "cuda",
) -> list[dict[str, Any]]:
    """Return a row of bytes for each strategy, with and without gradient checkpointing.

    Keys: strategy, gradient_checkpointing, and those of `Memory` but its assumptions. The
    recipe's own choice has `chosen` true.
    """
    rows = []
    for strategy in STRATEGIES:
        for checkpointing in (True, False):
            launcher = train.launcher.model_copy(update={"strategy": strategy})
            changed = {"launcher": launcher, "gradient_checkpointing": checkpointing}
            other = train.model_copy(update=changed)
            found = dataclasses.asdict(
                estimate(shape, other, lengths=lengths, processes=processes, device=device)
            )
            del found["assumptions"]
            names = {"strategy": strategy, "gradient_checkpointing": checkpointing}
            rows.append({**names, "chosen": other == train, **found})
    return rows


def _fullest_moment(case: _Case) -> Memory:
    optimizer = 2 * case.trained_bytes * case.trained // case.shards
    best: dict[str, int] = {}
    name = ""
    for moment, parts in _moments(case).items():
        found = {**parts, "optimizer": optimizer}
        holes = HOLES_ON_GPU if case.device == "cuda" else 0.0  # of a CPU's: in the assumptions
        found["overhead"] = PROCESS[case.device] + int(holes * sum(found.values()))
        if sum(found.values()) > sum(best.values()):
            best, name = found, moment
    return Memory(
        **best, total=sum(best.values()), moment=name, assumptions=tuple(_assumptions(case))
    )


def _moments(case: _Case) -> Mapping[str, dict[str, int]]:
    """Return what stands in memory, optimizer and overhead not included, at each full moment."""
    shape, layers = case.shape, case.shape.layers
    one_layer = layer_bytes(shape, case.numbers, case.batch, attention=case.attention)
    outside = outside_bytes(shape, case.numbers, case.batch, attention=case.attention)
    work = working_bytes(shape, case.numbers, case.batch)
    kept, again = layers * one_layer, 0
    if case.train.gradient_checkpointing:
        kept, again = layers * input_bytes(shape, case.numbers, case.batch), one_layer
    checkpointed = bool(again)
    before = _gradients(case, 0.0)
    head = shape.head if case.train.lora is None else 0
    last = before if case.accumulates else _gradients(case, head / shape.parameters)
    full = _gradients(case, 1.0)
    embedding = 0 if case.train.lora else case.numbers.weight * shape.head
    return {
        "the loss": {
            "weights": _weights(case, copied=0 if checkpointed else layers, head=True),
            "gradients": before,
            "activations": kept + outside,
            "logits": _logits(case),
        },
        "the backward pass of the last layer": {
            "weights": _weights(case, copied=1 if checkpointed else layers, head=False),
            "gradients": last,
            "activations": kept + outside + again + work,
            "logits": 0,
        },
        "the backward pass of the first layer": {
            "weights": _weights(case, copied=1, head=False),
            "gradients": full,
            "activations": one_layer + outside + work,
            "logits": 0,
        },
        "the gradient of the embedding": {
            "weights": _weights(case, copied=0, head=False),
            "gradients": full + (embedding if shape.tied or case.accumulates else 0),
            "activations": outside,
            "logits": 0,
        },
    }


def _resident_weights(case: _Case) -> int:
    own = case.numbers.weight * case.shape.parameters // case.shards
    return own + (4 * case.trained // case.shards if case.train.lora else 0)


def _weights(case: _Case, *, copied: int, head: bool) -> int:
    """Return weights and their copies: of `copied` layers, and of the head where `head`."""
    shape = case.shape
    if case.shards > 1:  # gathered in the type of the products: this layer and the next
        gathered = 2 * shape.layer_parameters + shape.outside_layers
        return _resident_weights(case) + case.numbers.product * gathered
    copies = 0
    if case.numbers.casts:
        adapters = shape.adapter_parameters(case.train.lora.rank) if case.train.lora else 0
        copies = copied * (shape.layer_matrices + adapters // shape.layers)
        copies += shape.head if head else 0
    return _resident_weights(case) + 2 * copies


def _gradients(case: _Case, share: float) -> int:
    """Return the gradients when `share` of the weights have theirs in this micro-batch."""
    if case.accumulates:
        share = 1.0
    whole = case.trained_bytes * case.trained
    if case.shards > 1:
        layer = (
            case.trained // case.shape.layers
            if case.train.lora
            else (case.shape.layer_parameters + case.shape.outside_layers)
        )
        return math.ceil(share * whole / case.shards) + case.trained_bytes * layer
    buckets = whole if case.processes > 1 else 0
    return math.ceil(share * whole) + buckets


def _logits(case: _Case) -> int:
    """Return logits and what their loss takes.

    CPU: log-probabilities, their gradient and the logits' gradient in float32; or, a little
    later, the logits' gradient beside the head's. GPU: one tile, the hidden states and their
    gradient in float32, the head's gradient in float32.
    """
    shape, size, positions = case.shape, case.numbers.product, case.labelled
    trained_head = 0 if case.train.lora else shape.head
    hidden = positions * shape.hidden
    if case.device == "cuda":
        tile = size * TILE_WORDS * (min(positions, TILE_TOKENS) + shape.hidden)
        return tile + (size + 4) * hidden + 4 * trained_head
    logits = positions * shape.vocabulary
    cast = size if size == 2 else 0
    return 4 * hidden + max(12 * logits, (4 + cast) * logits + size * trained_head)


def _assumptions(case: _Case) -> list[str]:
    launcher = case.train.launcher
    said = [
        f"a micro-batch of {case.batch.rows} x {case.batch.width} tokens, "
        f"{case.labelled} positions inside the loss",
        f"products in {'bf16' if case.numbers.product == 2 else 'fp32'}, master weights in "
        f"{'bf16' if case.numbers.weight == 2 else 'fp32'}, AdamW",
    ]
    if case.batch.masked and case.attention == "sdpa":
        bytes_ = case.batch.pairs * (1 + case.numbers.product)
        said.append(
            f"sdpa attention with a mask of {case.batch.width} x {case.batch.width}: "
            f"{bytes_ / 1e9:.2f} GB a layer; with flash attention none"
        )
    eager = case.shape.heads * case.batch.pairs * (6 if case.numbers.product == 2 else 4)
    said.append(f"eager attention would keep {eager / 1e9:.2f} GB of scores a layer")
    if case.processes > 1:
        said.append(
            f"{launcher.strategy} over {case.processes} processes: by formula, "
            "checked by no run of ours"
        )
    if case.device == "cpu":
        said.append(
            "holes between tensors are not counted: glibc may hold as much again as the step "
            "needs, with MALLOC_MMAP_THRESHOLD_=65536 none, and more slowly"
        )
    if case.device == "cuda":
        said.append(
            f"{PROCESS['cuda'] / 1e9:.1f} GB for CUDA and NCCL and {HOLES_ON_GPU:.0%} for the "
            "allocator's holes: assumed, not measured"
        )
    return said
