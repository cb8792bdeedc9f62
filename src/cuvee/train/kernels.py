"""`train.kernels`: proof before the first step that the hub's kernels are in the model.

transformers keeps a layer's own code, without a word, where no kernel of the hub fits it or
none could be loaded. Not here: whether the package and a GPU are there (`arguments`).
"""

from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel, TrainerCallback
from trl import SFTTrainer

from cuvee.errors import TrainError


class Kernels(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Check the model once it is on the GPU; a trainer takes nothing but such a class."""

    def __init__(self, trainer: SFTTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Raise TrainError where no layer was replaced."""
        model = self.trainer.model_wrapped
        model.train()  # it is then that transformers puts in the kernels for training
        if not replaced(model):
            raise TrainError(
                "train.kernels asks for the hub's GPU kernels, but none is in the model: the "
                "hub has none for its layers on this GPU, or could not be reached (is "
                "HF_HUB_OFFLINE set?); set train.kernels: false"
            )


def replaced(model: torch.nn.Module) -> set[str]:
    """Return the names of the layers' classes whose forward is not their class's own.

    Whole models are left out: autocast and TRL's loss change theirs in any case.
    """
    return {
        type(layer).__name__
        for layer in model.modules()
        if not isinstance(layer, PreTrainedModel | PeftModel)
        and getattr(layer.forward, "__func__", layer.forward) is not type(layer).forward
    }
