"""The files that make up a checkpoint: whether all are there, and the hash of what they say.

Reads no weights and loads neither torch nor transformers. Not here: getting a checkpoint
(`cuvee.models.checkpoint`).
"""

import json
import re
from pathlib import Path

from cuvee.errors import DataError
from cuvee.records import content_hash
from cuvee.runfolder import hash_path

INDEX = "model.safetensors.index.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
CONFIG_FILES = ("config.json", "generation_config.json")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
FILE_ENDINGS = (".gguf", ".parquet", ".jsonl", ".json", ".csv")


def is_hub_id(name: str) -> bool:
    """Return whether a model or data set has the form of a hub id (`owner/name`), not a file's."""
    return HUB_ID.fullmatch(name) is not None and not name.endswith(FILE_ENDINGS)


def identity(path: Path) -> str:
    """Return 16 hex digits of what a checkpoint is: weights, tokenizer, template, config.

    `path` is a checkpoint folder (other files in it do not count) or a `.gguf` file. Raises
    DataError where neither is there.
    """
    if path.is_file():
        return content_hash("file", hash_path(path))
    check_folder(path, weights=True)
    names = [*TOKENIZER_FILES, *CONFIG_FILES, INDEX]
    files = sorted([*(path / n for n in names if (path / n).is_file()), *weight_files(path)])
    return content_hash([[f.name, hash_path(f)] for f in files])


def weight_files(path: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint folder, in order of their names.

    Raises DataError naming what is missing.
    """
    index = path / INDEX
    if not index.is_file():
        single = path / "model.safetensors"
        if not single.is_file():
            raise DataError(f"{path}: neither model.safetensors nor {INDEX}; only safetensors load")
        return [single]
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{index}: not a readable index of shards ({error!r})") from error
    if missing := sorted(n for n in names if not (path / n).is_file()):
        raise DataError(f"{path}: shards named in {INDEX} are missing: {', '.join(missing)}")
    return [path / name for name in sorted(names)]


def check_folder(path: Path, *, weights: bool) -> None:
    """Raise DataError, naming what is missing, where a folder is not a whole checkpoint.

    `weights=False` asks for configuration and tokenizer alone.
    """
    missing = [n for n in ("config.json", "tokenizer.json") if not (path / n).is_file()]
    if missing:
        raise DataError(f"{path}: not a model's folder: no {' and no '.join(missing)}")
    if weights:
        weight_files(path)
