"""The tokenizer inside a GGUF file: byte-level BPE as vocabulary, merges, types and names.

`to_metadata` and `to_folder` are each other's inverse. What llama.cpp would tokenise in
another way than the `tokenizer.json` says is refused by name.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from cuvee.errors import DataError
from cuvee.models.pretokenizers import by_name, name_of
from cuvee.models.rendering import adds_bos
from cuvee.models.template import end_of_turn, render_prompt

_KEYS = gguf.Keys.Tokenizer
_NORMALIZERS = (None, {"type": "NFC"}, {"type": "Sequence", "normalizers": []})
"""llama.cpp normalises nothing; NFC differs for decomposed accents alone."""
_SPECIAL = {
    _KEYS.BOS_ID: "bos_token",
    _KEYS.EOS_ID: "eos_token",
    _KEYS.PAD_ID: "pad_token",
    _KEYS.UNK_ID: "unk_token",
}


def to_metadata(
    tokenizer: PreTrainedTokenizerBase, tokenizer_json: Mapping[str, Any], *, rows: int
) -> dict[str, Any]:
    """Return the metadata (`tokenizer.*`) of a tokenizer, for a model with `rows` embeddings.

    Rows without a token become unused tokens `[PADn]`. Raises DataError for what cannot be
    exported, naming it.
    """
    name = name_of(tokenizer_json)
    _check_rules(tokenizer_json)
    texts, types = _tokens(tokenizer_json, rows=rows)
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer_json["model"]["merges"]]
    metadata: dict[str, Any] = {
        _KEYS.MODEL: "gpt2",
        _KEYS.PRE: name,
        _KEYS.LIST: texts,
        _KEYS.TOKEN_TYPE: types,
        _KEYS.MERGES: merges,
        _KEYS.ADD_BOS: _adds_bos(tokenizer),
    }
    for key, attribute in _SPECIAL.items():
        token = getattr(tokenizer, attribute)
        if token is not None:
            metadata[key] = int(tokenizer.convert_tokens_to_ids(token))
    if tokenizer.chat_template:
        end_of_turn(tokenizer)
        metadata[_KEYS.CHAT_TEMPLATE] = tokenizer.get_chat_template()
    return metadata


def to_folder(metadata: Mapping[str, Any], folder: Path, *, context: int) -> None:
    """Write the tokenizer of a GGUF file's metadata as `tokenizer.json` and its config.

    `context` is the model's context in tokens. Raises DataError for what is not byte-level
    BPE.
    """
    if metadata.get(_KEYS.MODEL) != "gpt2":
        raise DataError(
            f"GGUF tokenizer {metadata.get(_KEYS.MODEL)!r}: only 'gpt2' (byte-level BPE) is known"
        )
    way = by_name(str(metadata.get(_KEYS.PRE, "(none)")))
    texts, types = metadata[_KEYS.LIST], metadata[_KEYS.TOKEN_TYPE]
    vocabulary = {
        text: number for number, text in enumerate(texts) if types[number] != gguf.TokenType.UNUSED
    }
    merges = [tuple(m.split(" ")) for m in metadata[_KEYS.MERGES]]
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, ignore_merges=way.ignore_merges)
    )
    tokenizer.decoder = decoders.ByteLevel()
    for number, text in enumerate(texts):
        if types[number] in (gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED):
            special = types[number] == gguf.TokenType.CONTROL
            tokenizer.add_tokens([AddedToken(text, special=special, normalized=False)])
    content = json.loads(tokenizer.to_str()) | {"pre_tokenizer": way.rules}
    saved = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)),
        chat_template=metadata.get(_KEYS.CHAT_TEMPLATE),
        model_max_length=context,
        clean_up_tokenization_spaces=False,
        **{a: texts[metadata[key]] for key, a in _SPECIAL.items() if key in metadata},
    )
    saved.save_pretrained(folder)


def _check_rules(tokenizer_json: Mapping[str, Any]) -> None:
    model, normalizer = tokenizer_json["model"], tokenizer_json.get("normalizer")
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise DataError(f"tokenizer model {model.get('type')!r}: only byte-level BPE is exported")
    if normalizer not in _NORMALIZERS:
        raise DataError(f"tokenizer normalizer {json.dumps(normalizer)}: llama.cpp has none")
    for token in tokenizer_json["added_tokens"]:
        if token["lstrip"] or token["rstrip"] or token["single_word"]:
            raise DataError(
                f"added token {token['content']!r}: lstrip, rstrip and single_word are unknown "
                "to llama.cpp"
            )


def _tokens(tokenizer_json: Mapping[str, Any], *, rows: int) -> tuple[list[str], list[int]]:
    """Return text and type of each token, in the order of ids."""
    texts = [f"[PAD{number}]" for number in range(rows)]
    types = [int(gguf.TokenType.UNUSED)] * rows
    added = tokenizer_json["added_tokens"]
    vocabulary = tokenizer_json["model"]["vocab"]
    highest = max([*vocabulary.values(), *(t["id"] for t in added)])
    if highest >= rows:
        raise DataError(f"the tokenizer has a token {highest}, the model only {rows} embeddings")
    for text, number in vocabulary.items():
        texts[number], types[number] = text, int(gguf.TokenType.NORMAL)
    for token in added:
        kind = gguf.TokenType.CONTROL if token["special"] else gguf.TokenType.USER_DEFINED
        texts[token["id"]], types[token["id"]] = token["content"], int(kind)
    return texts, types


def _adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether llama.cpp is to begin with BOS: only where the template writes it too.

    The server takes a BOS that it will add off the rendered text, so the ids are the same as
    ours; where the template writes none, ours has none.
    """
    if not adds_bos(tokenizer):
        return False
    bos = str(tokenizer.bos_token)
    return not tokenizer.chat_template or render_prompt(tokenizer, "a").startswith(bos)
