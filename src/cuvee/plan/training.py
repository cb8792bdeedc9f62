"""Rows of training: how many tokens, how long, how much memory, on which devices.

Memory is `cuvee.train.memory`'s estimate, time `cuvee.train.duration`'s, or the speed that a
training of the same base with the same settings had in the run folder. Where the recipe's
launcher does not fit, the nearest that does is sought, and the time is of that one.
"""

import dataclasses

from cuvee.plan.case import Case
from cuvee.plan.figures import NOTHING, Figure, known, measured, total
from cuvee.plan.rows import Misfit, Row
from cuvee.plan.yields import example_tokens, examples_of
from cuvee.recipe import MIXTURE, Train
from cuvee.train.duration import operations
from cuvee.train.memory import Device, Memory, estimate

GIGA = 1e9
HOUR = 3600.0
GPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
A_NODE = 8
"""GPUs of a machine, in what is proposed."""
ROOM = 0.97
"""Of a GPU's memory, what can be used."""
MASTER, SMALL = 4, 2
"""Bytes of a trained weight; of one in bf16."""
LARGEST_ON_CPU = 3e9
"""Weights of a base above which a training is planned for GPUs, wherever it is planned."""


@dataclasses.dataclass(frozen=True)
class Setup:
    """Where training is planned to run."""

    train: Train
    """With the launcher that fits, or the recipe's where none does."""
    device: Device
    processes: int
    memory: Memory | None
    least: Figure | None
    """Bytes of one process at least, where the base's shape is unknown."""
    misfit: Misfit | None


def train_rows(case: Case, setup: Setup) -> list[Row]:
    """Return a row for each model that is trained."""
    return [_row(case, name, setup) for name in case.recipe.trained()]


def set_up(case: Case) -> Setup:
    """Return where training can run: as the recipe says, or the nearest that fits."""
    train, here = case.recipe.train, case.machine.gpus
    if _on_cpu(case):
        memory = _memory(case, train, 1 if not train.launcher.cpu else None, "cpu")
        needed = None if memory is None else float(memory.total) * _local(train)
        misfit = None if needed is None or needed <= case.machine.ram else Misfit(
            "train", "memory", needed, case.machine.ram,
            f"training takes {needed / GIGA:.1f} GB of RAM, this machine has "
            f"{case.machine.ram / GIGA:.1f} GB",
            "train.lora, a smaller train.max_tokens, or a machine with more RAM",
        )  # fmt: skip
        return Setup(train, "cpu", train.launcher.processes, memory, None, misfit)
    gpus = train.launcher.gpus or max(1, len(here))
    asked = _launched(train, gpus=gpus, nodes=train.launcher.nodes, strategy=None)
    return _on_gpus(case, asked)


def gpu_bytes(case: Case) -> float:
    """Return the memory of one GPU: of this machine's smallest, else as assumed."""
    given = case.assumptions.wish("gpu_gb")
    if given is None and case.machine.gpus:
        return float(min(case.machine.gpus))
    return case.assumptions.figure("gpu_gb").value * GIGA


def _on_cpu(case: Case) -> bool:
    launcher = case.recipe.train.launcher
    if launcher.cpu:
        return True
    weights = case.base.parameters
    small = weights is not None and weights.value <= LARGEST_ON_CPU
    return not case.machine.gpus and launcher.gpus is None and small


def _local(train: Train) -> int:
    return train.launcher.gpus or 1


def _launched(train: Train, *, gpus: int, nodes: int, strategy: str | None) -> Train:
    change: dict[str, object] = {"gpus": gpus, "nodes": nodes}
    if strategy is not None:
        change["strategy"] = strategy
    return train.model_copy(update={"launcher": train.launcher.model_copy(update=change)})


def _memory(case: Case, train: Train, processes: int | None, device: Device) -> Memory | None:
    if case.base.shape is None:
        return None
    longest = train.max_tokens
    if not train.packing:
        tokens = [example_tokens(case, domain).high for domain in case.recipe.domains]
        longest = min(longest, max(1, round(max(tokens))))
    rows = [longest] * train.micro_batch
    return estimate(
        case.base.shape, train, lengths=rows, processes=processes or train.launcher.processes,
        device=device,
    )  # fmt: skip


def _on_gpus(case: Case, asked: Train) -> Setup:
    room = gpu_bytes(case) * ROOM
    memory, least = _memory(case, asked, None, "cuda"), _least(case, asked)
    needed = float(memory.total) if memory else (least.value if least else 0.0)
    if needed <= room:
        return Setup(asked, "cuda", asked.launcher.processes, memory, least, None)
    about = "at least " if memory is None else ""
    nearest = _nearest(case, asked, room)
    words = (
        f"training takes {about}{needed / GIGA:.0f} GB on each of {asked.launcher.processes} "
        f"GPU(s) with {asked.launcher.strategy}; one has {gpu_bytes(case) / GIGA:.0f} GB"
    )
    if nearest is None:
        misfit = Misfit("train", "memory", needed, gpu_bytes(case), words, "nothing of up to "
                        f"{GPUS[-1]} such GPUs does; try train.lora")  # fmt: skip
        return Setup(asked, "cuda", asked.launcher.processes, memory, least, misfit)
    misfit = Misfit("train", "memory", needed, gpu_bytes(case), words, _said(nearest, case))
    return Setup(
        nearest, "cuda", nearest.launcher.processes, _memory(case, nearest, None, "cuda"),
        _least(case, nearest), misfit,
    )  # fmt: skip


def _nearest(case: Case, asked: Train, room: float) -> Train | None:
    """Return the fewest GPUs, and the simplest strategy on them, that training fits on."""
    for count in GPUS:
        if count < asked.launcher.sequence_parallel:
            continue
        nodes = max(1, count // A_NODE)
        for strategy in ("ddp", "fsdp"):
            found = _launched(asked, gpus=count // nodes, nodes=nodes, strategy=strategy)
            memory, least = _memory(case, found, None, "cuda"), _least(case, found)
            needed = float(memory.total) if memory else (least.value if least else 0.0)
            if needed <= room:
                return found
    return None


def _said(train: Train, case: Case) -> str:
    launcher, size = train.launcher, gpu_bytes(case) / GIGA
    nodes = f"nodes: {launcher.nodes}, " if launcher.nodes > 1 else ""
    least = " or more (activations are not counted)" if case.base.shape is None else ""
    return (
        f"{launcher.processes} GPUs of {size:.0f} GB{least}: train.launcher: "
        f"{{{nodes}gpus: {launcher.gpus}, strategy: {launcher.strategy}}}"
    )


def _least(case: Case, train: Train) -> Figure | None:
    """Return the bytes of weights, gradients and optimizer of one process, of no known shape."""
    if case.base.shape is not None or case.base.parameters is None:
        return None
    each = 4 * (SMALL if train.weights == "bf16" else MASTER)
    if train.lora is not None:
        each = SMALL if train.weights == "bf16" else MASTER
    shards = 1 if train.launcher.strategy == "ddp" else train.launcher.processes
    return case.base.parameters.scaled(each / shards)


def _row(case: Case, name: str, setup: Setup) -> Row:
    train, examples = setup.train, examples_of(case, name)
    tokens = _tokens(case, name, examples)
    weight = SMALL if train.weights == "bf16" else MASTER
    saved = (train.keep_checkpoints + 1) * 3 * weight
    scratch = NOTHING if train.lora is not None else case.base.bytes(saved)
    memory = measured(0) if setup.memory is None else Figure(
        setup.memory.total, setup.memory.total * 0.9, setup.memory.total * 1.25, "assumed"
    )  # fmt: skip
    task = f"train/{name}"
    return Row(
        "train", name, answer_tokens=tokens, hours=_hours(case, tokens, setup),
        disk=case.base.bytes(weight), scratch=scratch, tasks=(task,),
        memory=setup.least if setup.memory is None else memory,
        gpus=setup.processes if setup.device == "cuda" else 0,
        done=case.measured.is_done(task, case.recipe.limit),
        note=_note(case, examples),
    )  # fmt: skip


def _note(case: Case, examples: Figure | None) -> str:
    if examples is None:
        return "examples unknown: problems unknown until loaded, and no select.target"
    return f"memory at least: {case.base.why}" if case.base.shape is None else ""


def _tokens(case: Case, name: str, examples: Figure | None) -> Figure | None:
    """Return the tokens that are trained on, all epochs together."""
    train = case.recipe.train
    if examples is None:
        return None
    kept = train.epochs * (1 - train.held_out)
    if name != MIXTURE:
        return (examples * example_tokens(case, name)).scaled(kept)
    return total(_tokens(case, domain, examples_of(case, domain)) for domain in case.recipe.domains)


def _hours(case: Case, tokens: Figure | None, setup: Setup) -> Figure | None:
    if tokens is None:
        return None
    seen = list(case.measured.train.values())
    if seen:
        trained, seconds = sum(each[0] for each in seen), sum(each[1] for each in seen)
        slow = max(each[1] / each[0] for each in seen)
        fast = min(each[1] / each[0] for each in seen)
        rate = Figure(seconds / trained, fast, slow, "measured")
        around = sum(each[2] for each in seen) / len(seen)
        return (tokens * rate + measured(around)).scaled(1 / HOUR)
    a_token = _operations(case, setup)
    if a_token is None:
        return None
    start = case.assumptions.figure("start_seconds")
    return (tokens * a_token / _speed(case, setup) + start).scaled(1 / HOUR)


def _operations(case: Case, setup: Setup) -> Figure | None:
    """Return the operations to train on one token."""
    train = setup.train
    if case.base.shape is not None:
        row = train.max_tokens if train.packing else 1024
        return known(operations(case.base.shape, tokens=1, row=row, train=train))
    if case.base.parameters is None:
        return None
    passes = (2 if train.lora else 3) + (1 if train.gradient_checkpointing else 0)
    return case.base.parameters.scaled(2 * passes)


def _speed(case: Case, setup: Setup) -> Figure:
    """Return the operations a second of all devices together."""
    if setup.device == "cpu":
        return case.assumptions.figure("cpu_gflops").scaled(GIGA)
    one = case.assumptions.figure("gpu_tflops") * case.assumptions.figure("gpu_share")
    return one.scaled(1e12 * setup.processes)
