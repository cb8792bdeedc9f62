"""The held-out loss: the mean over the trained tokens of rows that are not trained on.

TRL's evaluation takes the mean of batch means, in which a short row weighs as much as a long
one, and draws from the random numbers that training goes on with. Here every token weighs
the same, as in the training loss, and training goes on as if nothing had been measured. Not
here: when it is measured (`watch`), which rows are held out (`preflight`).
"""

import functools
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset
from trl import SFTTrainer

from cuvee.models.tokens import IGNORED
from cuvee.train.guard import Step


def trained_tokens(rows: Dataset) -> int:
    """Return how many tokens of a data set with a column `labels` are inside the loss."""
    total = 0
    for batch in rows.with_format("arrow").iter(batch_size=256):
        labels = pc.list_flatten(batch["labels"])
        total += pc.sum(pc.not_equal(labels, pa.scalar(IGNORED, labels.type))).as_py() or 0
    return total


def all_tokens(rows: Dataset) -> int:
    """Return how many tokens a data set with a column `input_ids` has."""
    return sum(
        pc.sum(pc.list_value_length(batch["input_ids"])).as_py()
        for batch in rows.with_format("arrow").iter(batch_size=256)
    )


def watch_losses(trainer: SFTTrainer, step: Step, *, processes: int) -> int:
    """Make a trainer note each training loss in `step` and weigh each held-out token the same.

    Its evaluation must take one row a batch: the mean over rows of (sum of the row's losses) /
    (trained tokens / rows) is the mean over tokens. `processes` share the rows; the loss that
    the trainer has multiplies by their number. Returns the held-out trained tokens, 0 where
    nothing is held out.
    """
    tokens, items = 0, 1.0
    if trainer.eval_dataset is not None:
        tokens = trained_tokens(trainer.eval_dataset)
        items = tokens / len(trainer.eval_dataset) * processes
        trainer.evaluate = functools.partial(_undisturbed, trainer.evaluate)
    loss = trainer.compute_loss

    def compute_loss(
        model: torch.nn.Module,
        inputs: dict[str, Any],
        *,
        num_items_in_batch: torch.Tensor | int | None = None,
        return_outputs: bool = False,  # never asked for: only losses are measured
    ) -> torch.Tensor:
        if not model.training:
            measured: torch.Tensor = loss(model, inputs, num_items_in_batch=torch.tensor(items))
            return measured
        value: torch.Tensor = loss(model, inputs, num_items_in_batch=num_items_in_batch)
        step.add(inputs, value)
        return value

    trainer.compute_loss = compute_loss
    return tokens


def _undisturbed(evaluate: Callable[..., dict[str, float]], **given: Any) -> dict[str, float]:
    """Measure, and put the random numbers back: a loader draws some, dropout goes on."""
    with torch.random.fork_rng():
        return evaluate(**given)
