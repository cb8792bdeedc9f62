"""Where a model's files are: every way a recipe can name one becomes a local folder.

A hub id is downloaded, a folder checked, a `.gguf` file converted once, `random:two-layer`
made; what makes one is imported where it is needed, as it loads torch, which takes seconds.
The folder holds `config.json`, safetensors, `tokenizer.json` and `tokenizer_config.json` with
the chat template. Not here: reading the weights.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from cuvee.errors import DataError, RecipeError
from cuvee.models.files import (
    CONFIG_FILES,
    INDEX,
    TOKENIZER_FILES,
    check_folder,
    identity,
    is_hub_id,
    weight_files,
)
from cuvee.progress import say
from cuvee.runfolder import hash_path

__all__ = [
    "CONFIG_FILES",
    "DEFAULT_CACHE",
    "RANDOM",
    "TOKENIZER_FILES",
    "identity",
    "load_tokenizer",
    "resolve",
    "weight_files",
]

DEFAULT_CACHE = Path("~/.cache/cuvee").expanduser()
RANDOM = "random:two-layer"
CONVERTER_VERSION = 1
"""Counts up when conversion or the random model changes, so that old copies are not used."""

FORMS = f"a hub id (owner/name), a local folder, a .gguf file or {RANDOM}"


def resolve(spec: str, *, weights: bool = True, cache: Path = DEFAULT_CACHE) -> Path:
    """Return the local folder of a model: hub id, folder, `.gguf` file or `random:two-layer`.

    `weights=False` asks for configuration and tokenizer alone (a hub id then downloads only
    those). Converted and made models are kept under `cache/bases`, complete or not at all.
    A relative path is of the current folder. Raises RecipeError where `spec` names nothing
    that is there, DataError where what is there is not a usable checkpoint.
    """
    if spec == RANDOM:
        return _random(cache)
    path = Path(spec).expanduser()
    if spec.endswith(".gguf"):
        return _converted(path, cache)
    if path.is_dir():
        check_folder(path, weights=weights)
        return path
    if not is_hub_id(spec):
        raise RecipeError(f"model {spec!r}: no such folder; a model is {FORMS}")
    folder = _downloaded(spec, weights=weights)
    check_folder(folder, weights=weights)
    return folder


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Return a folder's tokenizer exactly as its `tokenizer.json` says.

    `AutoTokenizer` may rebuild the rules from the model's type; the GGUF export and this
    read the same file instead. Raises DataError where it cannot be read.
    """
    if not (path / "tokenizer.json").is_file():
        raise DataError(f"{path}: no tokenizer.json")
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: its tokenizer cannot be read: {error}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise DataError(f"{path}: its tokenizer is a {type(tokenizer).__name__}")
    return tokenizer


def _downloaded(spec: str, *, weights: bool) -> Path:
    patterns = [*TOKENIZER_FILES, *CONFIG_FILES]
    if weights:
        patterns += ["*.safetensors", INDEX]
    try:
        return Path(snapshot_download(spec, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise RecipeError(
            f"model {spec!r}: no such folder, and the hub gave none: {reason}; a model is {FORMS}"
        ) from error


def _random(cache: Path) -> Path:
    folder = cache / "bases" / f"random-two-layer-{CONVERTER_VERSION}"
    if folder.is_dir():
        return folder
    from cuvee.models.random_model import write_random_model

    return _made(folder, write_random_model)


def _converted(file: Path, cache: Path) -> Path:
    if not file.is_file():
        raise RecipeError(f"model {file}: no such file; a model is {FORMS}")
    folder = cache / "bases" / f"{hash_path(file)[:16]}-{CONVERTER_VERSION}"
    if folder.is_dir():
        return folder
    from cuvee.models.gguf_read import read_gguf

    say(f"converting {file} to safetensors once, into {folder}")
    return _made(folder, lambda out: read_gguf(file, out))


def _made(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return `folder`, which is not there yet: it is made under another name and renamed."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        make(temporary)
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster, and its copy is the same
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder
