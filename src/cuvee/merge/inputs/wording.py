"""What messages of merging call checkpoints, and how they list many names."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

SHOWN = 12
"""Names a message lists before it counts the rest."""


def labels(paths: Sequence[Path]) -> list[str]:
    """Return what messages call each folder: its name, or its path where two share a name.

    A snapshot in the hub's cache (`models--org--name/snapshots/<hash>`) is called org/name.
    """
    short = {path: _short(path) for path in paths}
    uses = Counter(short.values())
    return [short[path] if uses[short[path]] == 1 else str(path) for path in paths]


def listed_names(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _short(path: Path) -> str:
    if path.parent.name == "snapshots":
        return path.parent.parent.name.removeprefix("models--").replace("--", "/")
    return path.name
