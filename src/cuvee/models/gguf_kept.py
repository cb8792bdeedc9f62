"""A GGUF export that is made once: the file stays while what it comes from is the same.

Beside OUT stands `OUT.source.json`: the identity of the checkpoint (a hash of weights,
tokenizer, template and configuration), the type, what the metadata says of the model, the
version of the writer and of the quantiser, and the file's size and time. Where all of that
is as it was, OUT is not written again. Not here: writing it (`cuvee.models.gguf_write`).
"""

import dataclasses
import importlib.metadata
import json
from pathlib import Path
from typing import Any

from cuvee.atomic import write_text
from cuvee.models.files import identity
from cuvee.models.gguf_quantize import FILE_TYPES
from cuvee.models.gguf_write import About, Exported, write_gguf

WRITER_VERSION = 1
"""Counts up when the same checkpoint becomes other bytes."""


@dataclasses.dataclass(frozen=True)
class Kept:
    """A file that is there, and whether it was written just now."""

    exported: Exported
    is_new: bool


def kept_gguf(
    checkpoint: Path, out: Path, *, quantization: str, about: About | None = None
) -> Kept:
    """Write `checkpoint` as `out`, or leave `out` where it is that export already.

    Reads all weights once for their hash either way. Raises as
    `cuvee.models.gguf_write.write_gguf`, and DataError where the folder is no checkpoint.
    """
    note = out.with_name(f"{out.name}.source.json")
    source = {
        "checkpoint": identity(checkpoint),
        "quantization": quantization,
        "about": None if about is None else json.loads(json.dumps(dataclasses.asdict(about))),
        "writer": WRITER_VERSION,
        "quantizer": _quantizer() if quantization in FILE_TYPES else None,
    }
    known = _read(note)
    if out.is_file() and known.get("source") == source and known.get("file") == _stat(out):
        return Kept(Exported(**known["exported"]), is_new=False)
    note.unlink(missing_ok=True)
    exported = write_gguf(checkpoint, out, quantization=quantization, about=about)
    entry = {"source": source, "file": _stat(out), "exported": dataclasses.asdict(exported)}
    write_text(note, json.dumps(entry, indent=1, ensure_ascii=False))
    return Kept(exported, is_new=True)


def _quantizer() -> str:
    try:
        return importlib.metadata.version("cyllama")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"  # a file that is there already may stay or not: it is written


def _stat(file: Path) -> dict[str, int]:
    found = file.stat()
    return {"bytes": found.st_size, "mtime_ns": found.st_mtime_ns}


def _read(note: Path) -> dict[str, Any]:
    """Return a note; nothing where there is none, or it is not one of ours."""
    try:
        entry = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return entry if isinstance(entry, dict) else {}
