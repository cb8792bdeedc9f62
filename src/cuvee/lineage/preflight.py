"""What training said of its examples before it began: the one reader of `preflight.json`.

The file of a trained model in, `Preflight` out. An older version's file lacks some of it: no
example was held out then, and what else was found is unknown. Not here: the checks themselves
(`cuvee.train`).
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cuvee.errors import DataError


@dataclasses.dataclass(frozen=True)
class PreflightFinding:
    """One thing that was found in the examples, in words."""

    level: str
    """`error`, `warning` or `note`."""
    message: str
    count: int
    """Rows concerned; 0: the whole set."""


@dataclasses.dataclass(frozen=True)
class Preflight:
    """What became of a training set's examples."""

    too_long: frozenset[str]
    """Ids of the examples that training left out because they are too long."""
    held_out: frozenset[str]
    """Ids of those that it did not train on but measured the loss of."""
    findings: tuple[PreflightFinding, ...] | None
    """None where the file does not say."""

    @property
    def warnings(self) -> tuple[PreflightFinding, ...] | None:
        """Return the warnings alone; None where the file does not say."""
        if self.findings is None:
            return None
        return tuple(found for found in self.findings if found.level == "warning")


def read_preflight(path: Path) -> Preflight:
    """Return what a `preflight.json` says. Raises DataError naming the file."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        found = said.get("findings")
        return Preflight(
            too_long=frozenset(str(name) for name in said["dropped_too_long"]),
            held_out=frozenset(str(name) for name in said.get("held_out_ids", ())),
            findings=None if found is None else tuple(_finding(row) for row in found),
        )
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: not the findings of a preflight ({error!r}); `cuvee train` writes it"
        ) from error


def _finding(row: Mapping[str, Any]) -> PreflightFinding:
    return PreflightFinding(str(row["level"]), str(row["message"]), int(row["count"]))
