"""How a byte-level BPE tokenizer cuts text before merging: llama.cpp's names for each way.

A GGUF file holds only a name (`tokenizer.ggml.pre`), a `tokenizer.json` only the rules. The
table here goes both ways, so that export and import cannot disagree; what is not in it is
refused by name, for a wrong way of cutting gives other tokens without any error.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from cuvee.errors import DataError

# The regular expressions are facts of the published tokenizers (OpenAI's cl100k family).
_LLAMA3_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2_REGEX = _LLAMA3_REGEX.replace(r"\p{N}{1,3}", r"\p{N}")


def _byte_level(*, use_regex: bool) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def _split(regex: str) -> dict[str, Any]:
    pattern = {"Regex": regex}
    return {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}


def _sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


@dataclasses.dataclass(frozen=True)
class Pretokenizer:
    """One way of cutting: the parts of a `tokenizer.json` that llama.cpp derives from a name."""

    rules: Mapping[str, Any]
    """The `pre_tokenizer` of tokenizer.json."""
    ignore_merges: bool
    """Whether a word that is a token is taken whole, without merging."""


PRETOKENIZERS: Mapping[str, Pretokenizer] = {
    "gpt-2": Pretokenizer(_byte_level(use_regex=True), ignore_merges=False),
    "smollm": Pretokenizer(
        _sequence({"type": "Digits", "individual_digits": True}, _byte_level(use_regex=True)),
        ignore_merges=False,
    ),
    "qwen2": Pretokenizer(
        _sequence(_split(_QWEN2_REGEX), _byte_level(use_regex=False)), ignore_merges=False
    ),
    "llama-bpe": Pretokenizer(
        _sequence(_split(_LLAMA3_REGEX), _byte_level(use_regex=False)), ignore_merges=True
    ),
}

SAME_AS: Mapping[str, str] = {
    "llama3": "llama-bpe",
    "llama-v3": "llama-bpe",
    "deepseek-r1-qwen": "qwen2",
}
"""Other names of the same way of cutting."""


def name_of(tokenizer_json: Mapping[str, Any]) -> str:
    """Return llama.cpp's name for the way a tokenizer.json cuts text.

    Raises DataError where none of the known ways is meant.
    """
    given = tokenizer_json.get("pre_tokenizer")
    ignore_merges = bool(tokenizer_json["model"].get("ignore_merges"))
    for name, known in PRETOKENIZERS.items():
        if _plain(given) == _plain(known.rules) and ignore_merges == known.ignore_merges:
            return name
    raise DataError(
        f"pre-tokenizer {json.dumps(given)} with ignore_merges={ignore_merges} is none of those "
        f"that can be exported: {', '.join(PRETOKENIZERS)}"
    )


def by_name(name: str) -> Pretokenizer:
    """Return the way of cutting that llama.cpp calls `name`. Raises DataError if unknown."""
    found = PRETOKENIZERS.get(SAME_AS.get(name, name))
    if found is None:
        known = ", ".join([*PRETOKENIZERS, *SAME_AS])
        raise DataError(f"tokenizer.ggml.pre {name!r} is not supported; known: {known}")
    return found


def _plain(rules: Any) -> Any:
    """Return rules without `trim_offsets`, which moves character offsets, never tokens."""
    if isinstance(rules, Mapping):
        return {k: _plain(v) for k, v in rules.items() if k != "trim_offsets"}
    if isinstance(rules, list):
        return [_plain(item) for item in rules]
    return rules
