"""What the training will take: memory of its fullest process, and time, as estimates.

The rows as they are trained in, `Estimates` out, with what they rest on in words. Not here: the
arithmetic (`cuvee.train.memory`, `cuvee.train.duration`).
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from cuvee.errors import DataError
from cuvee.models.machine import ram
from cuvee.models.shape import ModelShape
from cuvee.recipe import Train
from cuvee.train.duration import Speed, measure_speed, seconds
from cuvee.train.machine import flash, precision
from cuvee.train.memory import Device, estimate
from cuvee.train.preflight.findings import Finding


@dataclasses.dataclass(frozen=True)
class Estimates:
    """Memory and time of a training."""

    memory: dict[str, Any] | None = None
    """Bytes by what they are for, `total`, and `assumptions` in words."""
    seconds: float | None = None
    """None where nothing is known of the model, or the device is not in this machine."""
    findings: tuple[Finding, ...] = ()


def estimates(
    base: Path, train: Train, *, rows: Sequence[int], labelled: float, processes: int
) -> Estimates:
    """Return what training on rows of so many tokens takes, a share `labelled` in the loss.

    Where the recipe asks for GPUs that are not here, memory is that of a GPU and time unknown.
    """
    if not rows:
        return Estimates()
    try:
        shape = ModelShape.of(base)
    except DataError as error:
        return Estimates(findings=(Finding("note", "memory_unknown", str(error)),))
    device = _device(train)
    if device == "cpu":
        train = train.model_copy(update={"precision": precision(train)})
    found = estimate(
        shape,
        train,
        lengths=rows,
        processes=processes,
        device=device,
        labelled=labelled,
        attention="flash" if flash(train) else "sdpa",
    )
    memory = dataclasses.asdict(found) | {"assumptions": list(found.assumptions)}
    if device == "cuda" and not torch.cuda.is_available():
        return Estimates(memory=memory)
    speed = _speed(train.precision, train.weights, device)
    memory["assumptions"].append(f"time: {speed.source}")
    taken = seconds(
        shape,
        tokens=round(sum(rows) * train.epochs),
        row=round(sum(rows) / len(rows)),
        train=train,
        processes=processes,
        speed=speed,
    )
    return Estimates(memory, round(taken, 1), tuple(_too_large(found.total, device)))


def _device(train: Train) -> Device:
    on_gpus = torch.cuda.is_available() or train.launcher.gpus is not None
    return "cuda" if on_gpus and not train.launcher.cpu else "cpu"


@functools.cache
def _speed(precision: Any, weights: Any, device: Device) -> Speed:
    """Return the speed of this machine, measured once a process."""
    return measure_speed(Train(precision=precision, weights=weights), device=device)


def _too_large(total: int, device: Device) -> Iterator[Finding]:
    there = ram() if device == "cpu" else int(torch.cuda.get_device_properties(0).total_memory)
    if total > there:
        yield Finding(
            "warning",
            "memory",
            f"training takes about {total / 1e9:.1f} GB in its fullest process, and this "
            f"{'GPU' if device == 'cuda' else 'machine'} has {there / 1e9:.1f} GB: lower "
            "train.max_tokens or train.micro_batch, share the model out with train.launcher, or "
            "train a LoRA",
        )
