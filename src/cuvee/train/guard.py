"""A loss that breaks stops the training, and names the rows of its batch.

Watches each optimizer step's loss and gradient norm, before a checkpoint could be written
of it. What stopped a training is written to `broken_step.json`, with the ids of all rows of
the step. Not here: what else is watched (`watch`).
"""

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from transformers import TrainerCallback

from cuvee.atomic import write_text
from cuvee.errors import TrainError

WINDOW = 100
"""Steps before the one looked at, whose median loss is the measure."""
FEWEST = 10
"""Steps before a loss can be called a spike."""
SHOWN = 20
"""Row ids the error names; the file has all."""


@dataclasses.dataclass
class Step:
    """The forward passes of the optimizer step that runs: their tokens and losses."""

    passes: list[tuple[torch.Tensor, list[torch.Tensor]]] = dataclasses.field(default_factory=list)

    def add(self, inputs: Mapping[str, torch.Tensor], loss: torch.Tensor) -> None:
        """Keep a forward pass until the next step; copies nothing."""
        self.passes.append((loss.detach(), list(sequences(inputs))))

    def worst_first(self) -> list[bytes]:
        """Return the token ids of each row, those of the pass of the highest loss first.

        A loss that is no finite number is the highest.
        """
        losses = [loss.item() for loss, _ in self.passes]
        order = sorted(range(len(losses)), key=lambda n: (math.isfinite(losses[n]), -losses[n]))
        return [_bytes(tokens) for n in order for tokens in self.passes[n][1]]


def sequences(inputs: Mapping[str, torch.Tensor]) -> Iterator[torch.Tensor]:
    """Yield the token ids of each row in a batch, packed (`position_ids`) or padded."""
    ids = inputs["input_ids"]
    if "attention_mask" in inputs:
        for row, mask in zip(ids, inputs["attention_mask"], strict=True):
            yield row[mask.bool()]
        return
    starts = (inputs["position_ids"][0] == 0).nonzero().flatten().tolist()
    for start, end in zip(starts, [*starts[1:], ids.shape[1]], strict=True):
        yield ids[0, start:end]


def rows_with(tokens: Sequence[bytes], file: Path) -> list[str]:
    """Return the ids of the rows of `tokens.parquet` with those tokens, in their order.

    Rows with the same tokens are all named. Reads the file once, in batches.
    """
    found: dict[bytes, list[str]] = {wanted: [] for wanted in tokens}
    with pq.ParquetFile(file) as rows:
        for batch in rows.iter_batches(batch_size=256, columns=["id", "input_ids"]):
            for name, ids in zip(*batch.columns, strict=True):
                key = np.asarray(ids.values, dtype=np.int32).tobytes()
                if key in found:
                    found[key].append(name.as_py())
    return [name for names in found.values() for name in names]


class Guard(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Raise TrainError where a step's loss or gradient is no number, or the loss a spike.

    `before` are the losses up to the step training goes on from; `gather` returns the lists
    of all processes as one. A trainer takes nothing but such a class.
    """

    def __init__(
        self,
        step: Step,
        *,
        max_spike: float | None,
        before: Sequence[float],
        tokens_file: Path,
        report: Path,
        gather: Callable[[list[bytes]], list[bytes]],
    ) -> None:
        self.step = step
        self.max_spike = max_spike
        self.before = list(before)
        self.tokens_file = tokens_file
        self.report = report
        self.gather = gather

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Forget the step before."""
        self.step.passes.clear()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Look at the step's loss; every process sees the same one."""
        if logs is None or "loss" not in logs:
            return
        said = broken(logs, self.before, max_spike=self.max_spike)
        if said is not None:
            self._stop(said, logs, step=state.global_step)
        self.before = [*self.before, logs["loss"]][-WINDOW:]

    def _stop(self, said: str, logs: Mapping[str, float], *, step: int) -> None:
        ids = rows_with(self.gather(self.step.worst_first()), self.tokens_file)
        write_text(self.report, json.dumps({"step": step, **logs, "rows": ids}, indent=1) + "\n")
        more = f" and {len(ids) - SHOWN} more, all in {self.report}" if len(ids) > SHOWN else ""
        raise TrainError(
            f"{said} at step {step} (learning rate {logs['learning_rate']:.3g}, gradient norm "
            f"{logs['grad_norm']:.3g}). Its {len(ids)} rows, the worst first: "
            f"{', '.join(ids[:SHOWN])}{more}. Look at them for broken text, or lower "
            f"train.learning_rate{_way_on(logs)}; the last checkpoint is kept"
        )


def broken(
    logs: Mapping[str, float], before: Sequence[float], *, max_spike: float | None
) -> str | None:
    """Say in words what is wrong with a step's `loss` and `grad_norm`; None: nothing.

    `before` are the losses of the steps before, of which the last `WINDOW` count.
    """
    loss, norm = logs["loss"], logs["grad_norm"]
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    if not math.isfinite(norm):
        return f"the gradient is {norm} (the loss {loss:.4g})"
    if max_spike is None or len(before) < FEWEST:
        return None
    median = statistics.median(before[-WINDOW:])
    if loss <= max_spike * median:
        return None
    return (
        f"the loss is {loss:.4g}, more than train.max_spike = {max_spike:g} times {median:.4g}, "
        f"the median of the {len(before[-WINDOW:])} steps before,"
    )


def _way_on(logs: Mapping[str, float]) -> str:
    finite = math.isfinite(logs["loss"]) and math.isfinite(logs["grad_norm"])
    return "; a larger train.max_spike goes on from the last checkpoint" if finite else ""


def _bytes(tokens: torch.Tensor) -> bytes:
    return tokens.to("cpu", torch.int32).numpy().tobytes()
