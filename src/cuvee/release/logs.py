"""Reads what training and merging say of themselves.

`train_log.jsonl` and `preflight.json` of a specialist, `cuvee_merge.json` of the merged model.

Files of a specialist's and of the merged model's folder in, facts out. What these files do
not hold (the weights, the recipe) is not looked at.
"""

import json
from pathlib import Path

from cuvee.errors import DataError
from cuvee.release.facts import Adopted, TrainPoint
from cuvee.runfolder import Run


def train_log(run: Run, domain: str) -> Path:
    """Return the file of a specialist's training log."""
    return run.specialist(domain) / "train_log.jsonl"


def preflight(run: Run, domain: str) -> Path:
    """Return the file of what was found before a specialist was trained."""
    return run.specialist(domain) / "preflight.json"


def merge_statistics(run: Run) -> Path:
    """Return the file of the merge's statistics per tensor."""
    return run.merged() / "cuvee_merge.json"


def read_train_log(path: Path) -> tuple[TrainPoint, ...]:
    """Return the points of a training log by step.

    A step that stands twice (training went on from a checkpoint before it) counts as it was
    last. Raises DataError naming the file and the line.
    """
    by_step: dict[int, TrainPoint] = {}
    for number, line in enumerate(_read(path).splitlines(), 1):
        try:
            row = json.loads(line)
            point = TrainPoint(
                int(row["step"]), float(row["loss"]), int(row["tokens"]), float(row["seconds"])
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}:{number}: not a line of a training log ({error!r}); expected step, "
                "loss, tokens and seconds"
            ) from error
        by_step[point.step] = point
    return tuple(by_step[step] for step in sorted(by_step))


def read_untrained(path: Path) -> frozenset[str]:
    """Return the ids of the examples that training left out as too long. Raises DataError."""
    try:
        return frozenset(str(name) for name in json.loads(_read(path))["dropped_too_long"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not the findings of a preflight ({error!r})") from error


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
