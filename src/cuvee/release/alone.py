"""`cuvee release CHECKPOINT --gguf TYPE... --out DIR`: GGUF files of a model that is no run's.

A checkpoint folder, hub id or .gguf file in; in DIR one file a type, `parity.parquet` (and
`.json`) with how each differs from the checkpoint. Stop it anywhere: a file of the same
checkpoint stays (`cuvee.models.gguf_kept` says how that is known), and so does its row of
parity while file, text and length are the same. Not here: cards and Modelfiles, pushing.
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cuvee import __version__
from cuvee.atomic import hold, write_text
from cuvee.errors import RecipeError
from cuvee.models.checkpoint import resolve
from cuvee.models.gguf_kept import Kept, kept_gguf
from cuvee.models.gguf_write import About, Exported
from cuvee.progress import say
from cuvee.recipe import Parity as ParitySpec
from cuvee.recipe import Quantization
from cuvee.records import Parity, content_hash, read_rows
from cuvee.release.exports import unlike, write_parity
from cuvee.release.parity import Text, read_text, shipped_text
from cuvee.release.parity.check import check_parity

TABLE = "parity.parquet"
NOTES = "parity.source.json"
"""Of each row in TABLE: what it was taken of, as a hash."""


@dataclasses.dataclass(frozen=True)
class Released:
    """One file in the folder."""

    file: Path
    exported: Exported
    is_new: bool
    """False where the file was there already and is still right."""
    parity: Parity | None
    """None where it was not asked for."""

    @property
    def failure(self) -> str | None:
        """Return why the file must not be handed out; None where nothing speaks against it."""
        return None if self.parity is None else unlike(self.parity) or None


@dataclasses.dataclass(frozen=True)
class _Compared:
    """What one comparison takes."""

    checkpoint: Path
    file: Path
    quantization: Quantization
    text: Text
    tokens: int


def export(
    checkpoint: str, out: Path, *, types: Sequence[Quantization], parity: ParitySpec | None
) -> tuple[Released, ...]:
    """Write one GGUF file a type into the folder `out`, and compare each with the checkpoint.

    `parity` None compares nothing. A file whose template or tokenizer differs is returned all
    the same: see `Released.failure`. Raises RecipeError for no type or one named twice, a
    checkpoint or text that is not there, or a missing quantiser; DataError for what cannot be
    exported; CuveeError where another process holds the folder or the quantiser fails.
    """
    if not types or len(set(types)) < len(types):
        raise RecipeError(f"--gguf: name each type once, and at least one; got {list(types)}")
    text = _text(parity)
    folder = resolve(checkpoint)
    about = _about(checkpoint, folder)
    found = []
    with hold(out):
        for quantization in types:
            file = out / f"{about.name}.{quantization}.gguf"
            kept = kept_gguf(folder, file, quantization=quantization, about=about)
            if not kept.is_new:
                say(f"{file.name}: kept, it is of the same checkpoint")
            row = None
            if parity is not None:
                wanted = _Compared(folder, file, quantization, text, parity.tokens)
                row = _row(wanted, kept, out=out)
            found.append(Released(file, kept.exported, kept.is_new, row))
    return tuple(found)


def summary(released: Sequence[Released]) -> tuple[str, ...]:
    """Return the lines to print: each file's size, what fell back, and how it compares."""
    return tuple(line for one in released for line in _lines(one))


def _lines(one: Released) -> list[str]:
    state = "written" if one.is_new else "kept"
    lines = [f"{one.file}: {one.exported.bytes / 1e6:.1f} MB, {state}"]
    if one.exported.detail:
        lines.append(f"  {one.exported.detail}")
    row = one.parity
    if row is None:
        return [*lines, "  not compared with the checkpoint"]
    lines.append(
        f"  token ids: {row.texts - row.texts_unlike} of {row.texts} texts the same; "
        f"conversations: {row.chats - row.chats_unlike} of {row.chats}"
    )
    if row.perplexity is not None and row.kl_mean is not None and row.same_top is not None:
        lines.append(
            f"  on {row.positions} tokens of {row.text}: perplexity {row.perplexity:.3f} "
            f"(checkpoint {row.perplexity_checkpoint:.3f}), mean KL {row.kl_mean:.2g}, "
            f"same top token {row.same_top:.1%}"
        )
    allowed = f"token ids and chats the same, predictions within what {row.quantization} may lose"
    verdict = f"passed ({allowed})" if row.passed else "NOT PASSED"
    return [*lines, f"  parity: {verdict}{f'; {row.detail}' if row.detail else ''}"]


def _text(parity: ParitySpec | None) -> Text:
    if parity is None or parity.text is None:
        return shipped_text()
    return read_text(Path(parity.text).expanduser())


def _about(checkpoint: str, folder: Path) -> About:
    """Return what the files say of the model: its name, and what its own card says of it."""
    last = Path(checkpoint).expanduser().absolute().name.removesuffix(".gguf")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", last).lstrip("._-") or "model"
    card = _front_matter(folder / "README.md")
    license_, given = card.get("license"), card.get("base_model")
    bases = given if isinstance(given, list) else [given]
    return About(
        name=name,
        license=license_ if isinstance(license_, str) else None,
        base_models=tuple(base for base in bases if isinstance(base, str)),
    )


def _front_matter(card: Path) -> dict[str, Any]:
    """Return the metadata of a model card; nothing where there is no card or no metadata."""
    from huggingface_hub import metadata_load

    if not card.is_file():
        return {}
    try:
        return metadata_load(card) or {}
    except ValueError as error:
        say(f"{card}: its metadata is left out of the GGUF files: {error}")
        return {}


def _row(wanted: _Compared, kept: Kept, *, out: Path) -> Parity:
    """Return the file's row of parity, taken now unless the folder has it already."""
    rows = {row.file: row for row in read_rows(out / TABLE, Parity)} if _has_table(out) else {}
    keys = _read_keys(out)
    key = content_hash(
        *(wanted.file.name, wanted.text.name, wanted.text.content, wanted.tokens, __version__),
        wanted.file.stat().st_mtime_ns,
    )
    known = rows.get(wanted.file.name)
    if not kept.is_new and known is not None and keys.get(wanted.file.name) == key:
        return known
    row = check_parity(
        wanted.checkpoint,
        wanted.file,
        quantization=wanted.quantization,
        text=wanted.text,
        tokens=wanted.tokens,
        folder=out / "engines",
    )
    rows[row.file], keys[row.file] = row, key
    write_parity(out / TABLE, list(rows.values()))
    write_text(out / NOTES, json.dumps(keys, indent=1))  # last: it vouches for the table
    return row


def _has_table(out: Path) -> bool:
    return (out / TABLE).is_file() and (out / NOTES).is_file()


def _read_keys(out: Path) -> dict[str, str]:
    try:
        keys = json.loads((out / NOTES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return keys if isinstance(keys, dict) else {}
