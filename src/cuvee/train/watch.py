"""What is watched while training: a line a step, complete checkpoints, a loss that breaks.

Writes `train_log.jsonl` (step, loss, learning_rate, grad_norm, tokens, seconds) and marks
each checkpoint as complete once all of it is written: a kill half way leaves one without
the mark, which is never taken. Not here: training itself.
"""

import json
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from cuvee.atomic import remove, write_text
from cuvee.errors import TrainError

COMPLETE = "COMPLETE"
"""Name of the mark in a checkpoint's folder."""
_CHECKPOINT = re.compile(r"^checkpoint-(\d+)$")


def complete_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint in `folder`; incomplete ones are removed."""
    found: dict[int, Path] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _CHECKPOINT.match(path.name)
        if match and (path / COMPLETE).is_file():
            found[int(match[1])] = path
        elif match:
            remove(path)
    return found[max(found)] if found else None


def read_log(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a training log; a last line cut short by a kill is left out."""
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    return [json.loads(line) for line in whole.splitlines()]


class Watch(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Log each step to a file and to the parent; a trainer takes nothing but such a class.

    `after` is the step training goes on from: later lines of an earlier, killed process are
    taken out of the file, for those steps are done again.
    """

    def __init__(
        self, file: Path, *, after: int, tell: Callable[[Mapping[str, Any]], None]
    ) -> None:
        self.file = file
        self.tell = tell
        self.begin = time.monotonic()
        kept = [line for line in read_log(file) if line["step"] <= after]
        write_text(file, "".join(json.dumps(line) + "\n" for line in kept))

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note when the step begins."""
        self.begin = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Write the step's line. Raises TrainError where the loss is no finite number."""
        if logs is None or "loss" not in logs or not state.is_world_process_zero:
            return
        line = {
            "step": state.global_step,
            "loss": logs["loss"],
            "learning_rate": logs["learning_rate"],
            "grad_norm": logs["grad_norm"],
            "tokens": state.num_input_tokens_seen,
            "seconds": round(time.monotonic() - self.begin, 3),
        }
        if not math.isfinite(line["loss"]):
            raise TrainError(
                f"the loss is {line['loss']} at step {line['step']} (learning rate "
                f"{line['learning_rate']:.3g}, gradient norm {line['grad_norm']:.3g}): lower "
                "train.learning_rate, or look for a broken base; the last checkpoint is kept"
            )
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.tell(line)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Mark the checkpoint, all of which is written by now."""
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            for path in folder.iterdir():
                _sync(path)  # the mark must not reach the disk before what it vouches for
            write_text(folder / COMPLETE, "")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
