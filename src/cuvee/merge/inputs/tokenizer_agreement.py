"""Whether two checkpoints' tokenizers turn text into the same tokens, read from their files.

`tokenizer.json` decides where both have one (it is all that a fast tokenizer reads), else
`vocab.json` with its companions, else the bytes of `tokenizer.model`. Not here: how many rows
the embedding has, which is often more than there are tokens (`cuvee.merge.inputs.agreement`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cuvee.merge.inputs.headers import read_json
from cuvee.merge.inputs.wording import listed_names

FILES = (
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json",
    "tokenizer.model", "chat_template.jinja",
)  # fmt: skip
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token")
FLAGS = ("add_bos_token", "add_eos_token", "add_prefix_space")

Side = tuple[str, Path]
"""A checkpoint's label in messages, and its folder."""


def compare_tokenizers(
    one: Side, two: Side, *, decided: bool = False
) -> tuple[list[str], list[str]]:
    """Return (errors, warnings): where two checkpoints' tokenizers and chat templates differ.

    `decided`: the merge names the tokenizer and template of the result, so a difference in
    anything but the vocabulary is a warning. A vocabulary (token -> id) that differs is always
    an error: a row of the embedding would mean two tokens. A folder without any tokenizer is
    taken to have the other's, and a warning says so.
    """
    if all(_bytes(one[1] / name) == _bytes(two[1] / name) for name in FILES):
        return [], []
    for (label, path), (other, _) in ((one, two), (two, one)):
        if not any((path / name).exists() for name in FILES if name != "chat_template.jinja"):
            return [], [f"{label} holds no tokenizer: it is taken to be that of {other}"]
    errors = _vocabulary(one, two)
    rest = [*_parts(one, two), *_templates(one, two)]
    return (errors, rest) if decided else ([*errors, *rest], [])


def vocabulary_size(path: Path) -> int | None:
    """Return the tokenizer's largest token id plus 1; None where no file tells."""
    tokens = read_tokens(path)
    return max(tokens.values()) + 1 if tokens else None


def read_tokens(path: Path) -> dict[str, int] | None:
    """Return token -> id, added tokens included; None without tokenizer.json and vocab.json."""
    if (path / "tokenizer.json").exists():
        content = read_json(path / "tokenizer.json")
        vocabulary = content.get("model", {}).get("vocab", {})
        if isinstance(vocabulary, list):  # Unigram: [token, score] in the order of ids
            vocabulary = {entry[0]: number for number, entry in enumerate(vocabulary)}
        added = {entry["content"]: entry["id"] for entry in content.get("added_tokens", ())}
        return {**vocabulary, **added}
    if not (path / "vocab.json").exists():
        return None
    return read_json(path / "vocab.json") | _optional(path / "added_tokens.json")


def _vocabulary(one: Side, two: Side) -> list[str]:
    first, second = read_tokens(one[1]), read_tokens(two[1])
    pair = f"{one[0]} and {two[0]}"
    if first is None or second is None:
        models = [_bytes(path / "tokenizer.model") for _, path in (one, two)]
        if first == second and models[0] == models[1]:
            return []
        return [
            f"the vocabularies of {pair} cannot be compared: not both have a tokenizer.json; "
            "load each with transformers.AutoTokenizer and save it into its folder"
        ]
    if first == second:
        return []
    moved = sorted(t for t in first.keys() & second.keys() if first[t] != second[t])
    facts = [
        ("another id", [f"{t!r} ({first[t]}, {second[t]})" for t in moved]),
        (f"only in {one[0]}", [repr(t) for t in sorted(first.keys() - second.keys())]),
        (f"only in {two[0]}", [repr(t) for t in sorted(second.keys() - first.keys())]),
    ]
    listed = "; ".join(f"{what}: {listed_names(tokens)}" for what, tokens in facts if tokens)
    return [
        f"the vocabularies of {pair} differ ({listed}): a row of their embeddings would mean "
        "two tokens; merge models that share a vocabulary"
    ]


def _parts(one: Side, two: Side) -> list[str]:
    """Name all but the vocabulary in which the tokenizers differ, in one message."""
    first, second = _settings(one[1]), _settings(two[1])
    differing = [part for part in first if first[part] != second.get(part)]
    differing += [part for part in second if part not in first]
    # A flag that one file leaves out has a default of its tokenizer's class.
    known = [part for part in differing if part not in FLAGS or (part in first and part in second)]
    if not known:
        return []
    listed = ", ".join(
        f"{part} ({first.get(part)!r}, {second.get(part)!r})"
        if part in SPECIAL_TOKENS + FLAGS
        else part
        for part in known
    )
    return [
        f"the tokenizers of {one[0]} and {two[0]} differ in {listed}: "
        "say whose the merged model gets (tokenizer_source)"
    ]


def _settings(path: Path) -> dict[str, Any]:
    """Return what besides the vocabulary decides how text becomes tokens, by name."""
    config = _optional(path / "tokenizer_config.json")
    found: dict[str, Any] = {key: _text(config[key]) for key in SPECIAL_TOKENS if config.get(key)}
    found |= {key: config[key] for key in FLAGS if config.get(key) is not None}
    if not (path / "tokenizer.json").exists():
        lines = (_bytes(path / "merges.txt") or b"").decode("utf-8").splitlines()
        return found | {"merges": [m for m in lines if m and not m.startswith("#version")]}
    content = read_json(path / "tokenizer.json")
    model = dict(content.get("model", {}))
    model.pop("vocab", None)
    found["merges"] = [m if isinstance(m, str) else " ".join(m) for m in model.pop("merges", ())]
    # Training leaves its padding and truncation behind; they decide no token.
    names = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
    found |= {name: content[name] for name in names if content.get(name)}
    found["model settings"] = {k: v for k, v in model.items() if v not in (None, False)}
    found["flags of added tokens"] = {
        entry["content"]: {k: v for k, v in entry.items() if k not in ("id", "content")}
        for entry in content.get("added_tokens", ())
    }
    return found


def _templates(one: Side, two: Side) -> list[str]:
    first, second = _template(one[1]), _template(two[1])
    if first == second:
        return []
    advice = "say whose the merged model gets (chat_template)"
    for label, own, other in ((one[0], first, second), (two[0], second, first)):
        if own and not other:
            return [f"only {label} has a chat template: {advice}"]
    return [f"the chat templates of {one[0]} and {two[0]} differ: {advice}"]


def _template(path: Path) -> dict[str, str]:
    """Return the chat templates by name; an only one is called `default`."""
    file = path / "chat_template.jinja"
    if file.exists():
        return {"default": file.read_text("utf-8")}
    found = _optional(path / "tokenizer_config.json").get("chat_template")
    if isinstance(found, list):
        return {entry["name"]: entry["template"] for entry in found}
    return {"default": found} if found else {}


def _text(token: str | Mapping[str, Any]) -> Any:
    return token if isinstance(token, str) else token.get("content")


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None
