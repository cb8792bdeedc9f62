"""What is known of each exported file: where it stands, its size, its parity with the checkpoint.

A run folder in, `Export` records out. Each type's own files stand in `08_release/exports`, so
that one type can be exported and compared anew alone; `parity.parquet` and `parity.json` gather
the rows of all. Not here: writing a GGUF file, comparing it (`cuvee.release.parity`).
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from cuvee.atomic import write_text
from cuvee.errors import DataError
from cuvee.records import Parity, read_rows, write_rows
from cuvee.runfolder import Run


@dataclasses.dataclass(frozen=True)
class Export:
    """One exported file."""

    file: str
    """Its name in `08_release`."""
    quantization: str
    bytes: int
    detail: str
    """Which tensors are stored in another type and why, in words; empty where none are."""
    context: int
    """Tokens of context that `memory` is for."""
    memory: int
    """Bytes needed to serve it to one user, by estimate."""
    parity: Parity | None = None
    """None where it was not compared."""

    @property
    def broken(self) -> bool:
        """Return whether its template or tokenizer is not the checkpoint's."""
        return self.parity is not None and bool(unlike(self.parity))


def gguf_file(run: Run, quantization: str) -> Path:
    """Return the file of an exported type."""
    return run.folder("release") / f"{run.recipe.name}.{quantization}.gguf"


def export_file(run: Run, quantization: str) -> Path:
    """Return the record of its export."""
    return run.folder("release") / "exports" / f"{quantization}.json"


def parity_file(run: Run, quantization: str) -> Path:
    """Return the file of its one row of parity."""
    return run.folder("release") / "exports" / f"{quantization}.parquet"


def modelfile_file(run: Run, quantization: str) -> Path:
    """Return its Modelfile."""
    return run.folder("release") / f"Modelfile.{quantization}"


def parity_table(run: Run) -> Path:
    """Return the file with the rows of all types; `.json` beside it says the same."""
    return run.folder("release") / "parity.parquet"


def write_export(file: Path, export: Export) -> None:
    """Write the record of an export, without its parity."""
    fields = {f.name: getattr(export, f.name) for f in dataclasses.fields(export)}
    del fields["parity"]
    write_text(file, json.dumps(fields, indent=1, ensure_ascii=False) + "\n")


def read_exports(run: Run) -> tuple[Export, ...]:
    """Return what is known of the recipe's types, in their order.

    Raises DataError naming the file that is missing or is no such record.
    """
    return tuple(_read(run, quantization) for quantization in run.recipe.release.gguf)


def _read(run: Run, quantization: str) -> Export:
    file = export_file(run, quantization)
    try:
        export = Export(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{file}: no record of an export ({error}); `cuvee release`") from error
    if run.recipe.release.parity is None:
        return export
    [row] = read_rows(parity_file(run, quantization), Parity)
    return dataclasses.replace(export, parity=row)


def write_parity(table: Path, rows: Sequence[Parity]) -> None:
    """Write rows of parity as a table, and as JSON beside it."""
    write_rows(table, rows, Parity)
    text = json.dumps([dataclasses.asdict(row) for row in rows], indent=1, ensure_ascii=False)
    write_text(table.with_suffix(".json"), text + "\n")


def unlike(parity: Parity) -> str:
    """Return what differs of template and tokenizer, or was not compared; empty for nothing.

    A file with such a difference answers other prompts than those it was trained on, however
    good its weights are.
    """
    found = []
    for name, unlike_, of, what in (
        ("tokenizer", parity.texts_unlike, parity.texts, "texts get other token ids"),
        (
            "chat template",
            parity.chats_unlike,
            parity.chats,
            "conversations are rendered otherwise",
        ),
    ):
        if not of:
            found.append(f"the {name} could not be compared")
        elif unlike_:
            found.append(f"the {name} differs ({unlike_} of {of} {what})")
    return " and ".join(found)
