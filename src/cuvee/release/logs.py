"""Reads what training and merging say of themselves.

`train_log.jsonl` and `held_out.jsonl` of a trained model, `cuvee_merge.json` of the merged one.

Files of these models' folders in, facts out. What these files do not hold (the weights, the
recipe) is not looked at; `preflight.json` has its reader in `cuvee.lineage.preflight`.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from cuvee.errors import DataError
from cuvee.lineage.preflight import read_preflight
from cuvee.release.facts import Adopted, HeldOutPoint, Training, TrainPoint
from cuvee.runfolder import Run

Point = TypeVar("Point", TrainPoint, HeldOutPoint)


def train_log(run: Run, model: str) -> Path:
    """Return the file of a trained model's log."""
    return run.specialist(model) / "train_log.jsonl"


def held_out_log(run: Run, model: str) -> Path:
    """Return the file of a trained model's held-out loss; not there where none was measured."""
    return run.specialist(model) / "held_out.jsonl"


def preflight(run: Run, model: str) -> Path:
    """Return the file of what was found before a model was trained."""
    return run.specialist(model) / "preflight.json"


def preflight_page(run: Run, model: str) -> Path:
    """Return the page that shows it; not there where an older version trained the model."""
    return run.specialist(model) / "preflight.html"


def training_files(run: Run, model: str) -> list[Path]:
    """Return the files that `read_training` reads or asks after, of a finished training."""
    perhaps = (held_out_log(run, model), preflight_page(run, model))
    found = [path for path in perhaps if path.exists()]
    return [preflight(run, model), train_log(run, model), *found]


def read_training(run: Run, model: str) -> Training:
    """Return what a training said of itself. Raises DataError naming the file."""
    measured = held_out_log(run, model)
    return Training(
        log=read_train_log(train_log(run, model)),
        held_out=read_held_out(measured) if measured.exists() else (),
        preflight=read_preflight(preflight(run, model)),
        has_page=preflight_page(run, model).exists(),
    )


def merge_statistics(run: Run) -> Path:
    """Return the file of the merge's statistics per tensor."""
    return run.merged() / "cuvee_merge.json"


def read_train_log(path: Path) -> tuple[TrainPoint, ...]:
    """Return the points of a training log by step.

    A step that stands twice (training went on from a checkpoint before it) counts as it was
    last. Raises DataError naming the file and the line.
    """

    def point(row: Mapping[str, Any]) -> TrainPoint:
        return TrainPoint(
            int(row["step"]), float(row["loss"]), int(row["tokens"]), float(row["seconds"])
        )

    return _points(path, point, keys="step, loss, tokens and seconds")


def read_held_out(path: Path) -> tuple[HeldOutPoint, ...]:
    """Return the measurements of the held-out loss by step, as `read_train_log` does."""

    def point(row: Mapping[str, Any]) -> HeldOutPoint:
        return HeldOutPoint(int(row["step"]), float(row["loss"]))

    return _points(path, point, keys="step and loss")


def _points(
    path: Path, point: Callable[[Mapping[str, Any]], Point], *, keys: str
) -> tuple[Point, ...]:
    """Return the points of a file of JSON lines by step, the last of each."""
    by_step: dict[int, Point] = {}
    for number, line in enumerate(_read(path).splitlines(), 1):
        try:
            found = point(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}:{number}: not a line of a training log ({error!r}); expected {keys}"
            ) from error
        by_step[found.step] = found
    return tuple(by_step[step] for step in sorted(by_step))


def read_adopted(path: Path) -> tuple[Adopted, ...]:
    """Return what each fusion adopted of each tensor; nothing where one specialist was copied.

    Tensors without elements are left out: there is nothing to adopt in them. Raises DataError
    naming the file.
    """
    try:
        record = json.loads(_read(path))
        names = [f"{f['other']} into {f['anchor']}" for f in record["fusions"]]
        return tuple(
            Adopted(
                fusion=name,
                layer=tensor["layer"],
                module=str(tensor["module"]),
                share=float(found["share_adopted"]),
                elements=int(found["elements"]),
                differing=int(found["differing"]),
                degenerate=bool(found["degenerate"]),
            )
            for tensor in record["tensors"]
            for name, found in zip(names, tensor["fusions"], strict=True)
            if found["elements"]
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not the statistics of a merge ({error!r})") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
