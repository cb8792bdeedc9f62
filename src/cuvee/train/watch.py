"""What is watched while training: a line a step, held-out losses, complete checkpoints.

Writes `train_log.jsonl` (step, loss, learning_rate, grad_norm, tokens, seconds) and
`held_out.jsonl` (step, loss, tokens), says when to measure and when to save, and marks each
checkpoint as complete once all of it is written: a kill half way leaves one without the
mark, which is never taken. Not here: training itself, losses that break (`guard`).
"""

import dataclasses
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from cuvee.atomic import remove, write_text

COMPLETE = "COMPLETE"
"""Name of the mark in a checkpoint's folder."""
_CHECKPOINT = re.compile(r"^checkpoint-(\d+)$")


@dataclasses.dataclass(frozen=True)
class Plan:
    """When a training measures and saves, and which checkpoints stay."""

    steps: int
    """Optimizer steps in all; the last one is measured and saved in any case."""
    save_every: int
    keep: int
    """Newest checkpoints that stay; the best one stays as well."""
    measure_every: int | None
    """Steps between held-out losses; None: nothing is held out."""
    best: bool
    """Save where the held-out loss is the lowest so far."""


def complete_checkpoints(folder: Path) -> dict[int, Path]:
    """Return the complete checkpoints in `folder` by step, in order; others are removed."""
    found: dict[int, Path] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _CHECKPOINT.match(path.name)
        if match and (path / COMPLETE).is_file():
            found[int(match[1])] = path
        elif match:
            remove(path)
    return dict(sorted(found.items()))


def complete_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint in `folder`; incomplete ones are removed."""
    found = complete_checkpoints(folder)
    return found[max(found)] if found else None


def read_log(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a training log; a last line cut short by a kill is left out."""
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    return [json.loads(line) for line in whole.splitlines()]


def forget_after(file: Path, step: int) -> list[dict[str, Any]]:
    """Take the lines of later steps out of a log, which are done again; return the others."""
    kept = [line for line in read_log(file) if line["step"] <= step]
    if file.exists():
        write_text(file, "".join(json.dumps(line) + "\n" for line in kept))
    return kept


def best_step(held_out: list[dict[str, Any]]) -> int | None:
    """Return the step of the lowest held-out loss, the first of equals; None without one.

    Step 0 is the base before any training, and no candidate.
    """
    lines = [line for line in held_out if line["step"] > 0]
    return min(lines, key=lambda line: line["loss"])["step"] if lines else None


class Watch(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Keep the logs, tell the parent, and decide when to measure and to save.

    A trainer takes nothing but such a class. `log` and `held_out` are the lines up to the
    step training goes on from. `wait` returns when all processes of the training are there.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        log: Path,
        held_out: Path,
        held_out_tokens: int,
        tell: Callable[[Mapping[str, Any]], None],
        wait: Callable[[], None],
    ) -> None:
        self.plan = plan
        self.log = log
        self.held_out = held_out
        self.held_out_tokens = held_out_tokens
        self.measured = read_log(held_out)
        self.tell = tell
        self.wait = wait
        self.begin = time.monotonic()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note when the step begins."""
        self.begin = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for a measurement and a checkpoint where the plan has one."""
        step, last = state.global_step, state.global_step >= self.plan.steps
        every = self.plan.measure_every
        control.should_evaluate = every is not None and (last or step % every == 0)
        control.should_save = last or step % self.plan.save_every == 0

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Write the step's line."""
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
        _append(self.log, line)
        self.tell(line)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any
    ) -> None:
        """Write the held-out loss; where it is the best so far, ask for a checkpoint."""
        line = {
            "step": state.global_step,
            "loss": metrics["eval_loss"],
            "tokens": self.held_out_tokens,
        }
        self.measured.append(line)
        if state.is_world_process_zero:
            _append(self.held_out, line)
        if self.plan.best and best_step(self.measured) == state.global_step:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Mark the checkpoint, all of which is written by now; remove the oldest ones."""
        self.wait()  # each process writes a part of it
        if state.is_world_process_zero:
            folder = Path(args.output_dir)
            mark_complete(folder / f"checkpoint-{state.global_step}")
            best = best_step(self.measured) if self.plan.best else None
            remove_oldest(folder, keep=self.plan.keep, best=best)


def mark_complete(checkpoint: Path) -> None:
    """Mark a checkpoint's folder as complete, once the disk holds every file of it."""
    for path in checkpoint.rglob("*"):
        if path.is_file():  # the mark must not reach the disk before what it vouches for
            _sync(path)
    write_text(checkpoint / COMPLETE, "")


def remove_oldest(folder: Path, *, keep: int, best: int | None) -> None:
    """Remove the complete checkpoints but the newest `keep` and the one of step `best`.

    The mark goes first, so that a kill half way leaves none that looks complete.
    """
    found = complete_checkpoints(folder)
    for step in list(found)[:-keep]:
        if step != best:
            (found[step] / COMPLETE).unlink()
            remove(found[step])


def _append(file: Path, line: Mapping[str, Any]) -> None:
    with file.open("a", encoding="utf-8") as log:
        log.write(json.dumps(dict(line)) + "\n")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
