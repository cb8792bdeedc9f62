"""What a merge has finished, written down as it goes, so that a killed one can go on.

A file of JSON lines in the folder under work: first what is being merged, then a row for each
tensor whose weights are in their place. A line counts when it is whole. Weights are not
synced until the end, so after a restart of the machine nothing is taken as finished.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

JOURNAL = "progress.jsonl"
BOOT = Path("/proc/sys/kernel/random/boot_id")


def merge_key(
    config: Mapping[str, Any], files: Iterable[Path], *, out_dtype: str, version: str
) -> dict[str, Any]:
    """Return what must be the same for finished tensors to count: JSON values.

    Files are told apart by name, size and time of change; the machine by its start (systems
    that do not tell it give "": a merge there goes on after a restart as well).
    """
    stats = [(str(file.absolute()), file.stat()) for file in sorted(set(files))]
    return {
        "config": dict(config),
        "files": [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats],
        "out_dtype": out_dtype,
        "version": version,
        "boot": BOOT.read_text().strip() if BOOT.exists() else "",
    }


def read_journal(folder: Path, key: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of what is finished in a folder under work; [] where it is another merge."""
    path = folder / JOURNAL
    # What stands after the last line's end was being written when the merge was killed.
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    try:
        rows = [json.loads(line) for line in lines]
    except ValueError:
        return []
    same = bool(rows) and rows[0] == json.loads(json.dumps(key))
    return rows[1:] if same else []


@contextmanager
def open_journal(
    folder: Path, key: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]
) -> Iterator[IO[str]]:
    """Yield the journal, begun anew with what is finished already (`rows`)."""
    path = folder / JOURNAL
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        for line in (key, *rows):
            file.write(json.dumps(line) + "\n")
    temporary.replace(path)
    with path.open("a", encoding="utf-8") as file:
        yield file


def note(journal: IO[str], row: Mapping[str, Any]) -> None:
    """Write a finished tensor's row."""
    journal.write(json.dumps(row) + "\n")
    journal.flush()
