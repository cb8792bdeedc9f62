"""What must agree before checkpoints can be merged, checked on headers and small files alone.

Every disagreement is found and they are raised together. Reads no weights.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cuvee.errors import MergeError
from cuvee.merge.headers import Checkpoint, read_json

FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""The dtypes that are merged, with their bytes an element."""

BOOKKEEPING = {
    "_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "pad_token_id",
}  # fmt: skip
"""Keys of a config that may differ: they change no result of the model."""

TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer.model", "added_tokens.json")
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "add_bos_token", "add_eos_token")
SHOWN = 12
"""Tensor names a message lists before it counts the rest."""


def require_agreement(checkpoints: Sequence[Checkpoint]) -> None:
    """Raise one MergeError that lists all in which the checkpoints do not fit together.

    Compared with the first: tensor names, shapes, dtypes that cannot be merged, the config
    (tied embeddings, vocabulary, RoPE, ... : every key but `BOOKKEEPING`), the tokenizer
    (without its padding and truncation settings) and the chat template.
    """
    first = checkpoints[0]
    problems = _dtype_problems(first)
    for other in checkpoints[1:]:
        pair = f"{first.path.name} and {other.path.name}"
        found = [
            *_dtype_problems(other),
            *_tensor_problems(first, other),
            *_config_problems(first, other),
            *_tokenizer_problems(first.path, other.path),
        ]
        problems += [f"{pair}: {problem}" for problem in found]
    if problems:
        listed = "\n  ".join(problems)
        raise MergeError(f"these checkpoints cannot be merged:\n  {listed}")


def _dtype_problems(checkpoint: Checkpoint) -> list[str]:
    strange = sorted(
        f"{t.name} ({t.dtype})" for t in checkpoint.tensors.values() if t.dtype not in FLOATS
    )
    allowed = ", ".join(FLOATS)
    name = checkpoint.path.name
    return [f"{name}: dtypes other than {allowed}: {_names(strange)}"] if strange else []


def _tensor_problems(first: Checkpoint, other: Checkpoint) -> list[str]:
    problems = []
    for one, two in ((first, other), (other, first)):
        if only := sorted(set(one.tensors) - set(two.tensors)):
            problems.append(f"tensors only in {one.path.name}: {_names(only)}")
    shapes = [
        f"{name} {header.shape} against {other.tensors[name].shape}"
        for name, header in sorted(first.tensors.items())
        if name in other.tensors and header.shape != other.tensors[name].shape
    ]
    if shapes:
        problems.append(f"shapes differ: {_names(shapes)}")
    return problems


def _config_problems(first: Checkpoint, other: Checkpoint) -> list[str]:
    keys = sorted((set(first.config) | set(other.config)) - BOOKKEEPING)
    return [
        f"config {key}: {_shown(first.config, key)} against {_shown(other.config, key)}"
        for key in keys
        if first.config.get(key) != other.config.get(key)
    ]


def _tokenizer_problems(first: Path, other: Path) -> list[str]:
    one, two = _tokenizer(first), _tokenizer(other)
    return [f"{part} differs" for part in one if one[part] != two[part]]


def _tokenizer(path: Path) -> dict[str, Any]:
    """Return what decides how text becomes tokens, part by part; None where it is absent."""
    config = _optional(path / "tokenizer_config.json")
    model = _optional(path / "tokenizer.json")
    template = path / "chat_template.jinja"
    parts: dict[str, Any] = {
        "chat template": template.read_text("utf-8")
        if template.exists()
        else config.get("chat_template"),
        # Training leaves its padding and truncation behind; they decide no token.
        "tokenizer.json": {k: v for k, v in model.items() if k not in ("padding", "truncation")},
    }
    for key in SPECIAL_TOKENS:
        parts[f"tokenizer_config.json {key}"] = config.get(key)
    for name in TOKENIZER_FILES:
        parts[name] = (path / name).read_bytes() if (path / name).exists() else None
    return parts


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _shown(config: Any, key: str) -> str:
    return json.dumps(config[key]) if key in config else "no such key"


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
