"""Proof before the first step that the parts of a packed row do not see each other.

Whether a packed row is trained as its parts is up to the attention: transformers builds a
block-diagonal mask from `position_ids` for sdpa, eager and flex attention, and flash
attention takes the parts' lengths; an attention that heeds neither mixes strangers without a
word. So the model, as it will be trained, reads two packed rows that differ in their first
part only: its output for the second part must not change. Not here: packing itself (TRL).
"""

from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback
from trl import SFTTrainer

from cuvee.errors import TrainError

PART = 16
"""Tokens of each of the two parts."""
TOLERANCE = 1e-4
"""Largest change, as a share of the outputs' own spread, that is rounding."""


class Isolation(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Check the model once it is placed and wrapped; a trainer takes nothing but a class."""

    def __init__(self, trainer: SFTTrainer, *, vocabulary: int) -> None:
        self.trainer = trainer
        self.vocabulary = vocabulary

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Raise TrainError where a packed row is not its parts."""
        model = self.trainer.model_wrapped
        was_training = model.training
        model.eval()
        change = leak(model, self._batch, vocabulary=self.vocabulary)
        model.train(was_training)
        if change > TOLERANCE:
            attention = self.trainer.model.config._attn_implementation
            raise TrainError(
                f"the parts of a packed row see each other under attention {attention!r}: its "
                f"second part's outputs move by {change:.2g} of their spread with the first "
                "part's tokens. Set train.packing: false, or use a model whose attention in "
                "transformers heeds position_ids"
            )

    def _batch(self, ids: list[int]) -> dict[str, Any]:
        row = {"input_ids": ids, "labels": ids, "seq_lengths": [PART, PART]}
        collated = self.trainer.data_collator([row])
        return dict(self.trainer._prepare_inputs(collated))


def leak(
    model: torch.nn.Module, batch: Callable[[list[int]], dict[str, Any]], *, vocabulary: int
) -> float:
    """Return how far the second part's outputs move with the first part's tokens.

    In units of the outputs' standard deviation; 0 where the parts are apart. `batch` makes
    the model's input of the tokens of a row of two parts of `PART` tokens each. `model` is in
    evaluation mode. Two passes of `2 * PART` tokens, without gradients.
    """
    second = [n % vocabulary for n in range(3, 3 + PART)]
    outputs = []
    for shift in (5, 11):
        first = [(shift * n + shift) % vocabulary for n in range(PART)]
        given = {name: value for name, value in batch(first + second).items() if name != "labels"}
        with torch.no_grad():
            outputs.append(model(**given, use_cache=False).logits[:, PART:].float())
    return float((outputs[0] - outputs[1]).abs().max() / outputs[0].std())
