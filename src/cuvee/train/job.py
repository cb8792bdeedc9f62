"""One specialist's training as a file: what the training process is told, and where it works.

The work folder holds `job.json`, `checkpoints/`, `train_log.jsonl` and, at the end, `model/`:
the specialist. It outlives a killed run, so that training goes on from the last checkpoint;
`prepare` removes it where it belongs to other data or other settings.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from cuvee.atomic import remove, write_text
from cuvee.errors import TrainError
from cuvee.models.checkpoint import identity
from cuvee.recipe import Train
from cuvee.records import content_hash
from cuvee.runfolder import hash_path


@dataclasses.dataclass(frozen=True)
class Job:
    """What makes one specialist."""

    base: Path
    """Folder of the base checkpoint."""
    examples: Path
    """Parquet file of `Example` rows."""
    folder: Path
    """Work folder of this job alone."""
    train: Train
    seed: int

    @property
    def model(self) -> Path:
        """Return where the finished specialist appears."""
        return self.folder / "model"

    @property
    def checkpoints(self) -> Path:
        """Return the folder of the checkpoints training can go on from."""
        return self.folder / "checkpoints"

    @property
    def log(self) -> Path:
        """Return the file with one JSON line an optimizer step."""
        return self.folder / "train_log.jsonl"


def settings(train: Train, seed: int) -> dict[str, Any]:
    """Return the part of the recipe that decides the weights, as JSON values.

    How often checkpoints are written is left out: it changes nothing.
    """
    return {"train": train.model_dump(mode="json", exclude={"save_every"}), "seed": seed}


def prepare(job: Job) -> Path:
    """Make the job's folder ready and return its `job.json`.

    Checkpoints in it stay where they come from the same base, examples and settings; else
    the folder is emptied. Raises DataError where the base is no checkpoint.
    """
    fingerprint = content_hash(
        identity(job.base), hash_path(job.examples), settings(job.train, job.seed)
    )
    file = job.folder / "job.json"
    if _fingerprint(file) != fingerprint:
        remove(job.folder)
    remove(job.model)  # half written, if it is there: a finished one is moved away at once
    said = {
        "base": str(job.base.absolute()),
        "examples": str(job.examples.absolute()),
        "train": job.train.model_dump(mode="json"),
        "seed": job.seed,
        "fingerprint": fingerprint,
    }
    write_text(file, json.dumps(said, indent=1) + "\n")
    return file


def read_job(file: Path) -> Job:
    """Return the job a `job.json` describes; its folder is where the file stands.

    Raises TrainError where the file cannot be read as one.
    """
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        return Job(
            base=Path(said["base"]),
            examples=Path(said["examples"]),
            folder=file.parent,
            train=Train.model_validate(said["train"]),
            seed=int(said["seed"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainError(f"{file}: not a readable training job: {error!r}") from error


def _fingerprint(file: Path) -> str | None:
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return said.get("fingerprint") if isinstance(said, dict) else None
