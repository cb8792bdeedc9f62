"""Whether a tokenizer and a model's configuration agree: vocabulary, end of turn, padding.

The base's folder and its tokenizer in, findings of the whole set out. Reads `config.json`,
`generation_config.json` and `tokenizer.json`, no weights. Not here: what single rows hold.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedTokenizerBase

from cuvee.errors import DataError
from cuvee.models.checkpoint import load_tokenizer
from cuvee.recipe import Train
from cuvee.train.preflight.findings import Finding

UNUSED_SHARE = 0.02
"""Of the embedding's rows: models round their vocabulary up, by less than that."""
NAMED = 5
"""Tokens a finding names."""


def read_config(base: Path) -> Any:
    """Return the configuration of a base's text model. Raises DataError."""
    try:
        return AutoConfig.from_pretrained(base, local_files_only=True).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{base}: its config.json cannot be read: {error}") from error


def agreement(
    tokenizer: PreTrainedTokenizerBase, base: Path, *, config: Any, train: Train, end: str
) -> list[Finding]:
    """Return what does not fit together; `end` is the text that ends a turn.

    `config` is the base's (`read_config`). Raises DataError for a file that is not JSON.
    """
    end_id = int(tokenizer.convert_tokens_to_ids(end))
    stops = _stops(base, config)
    return [
        *_context(config, base, train),
        *_vocabulary(tokenizer, int(config.vocab_size)),
        *_added(tokenizer, base),
        *_end(end, end_id, stops),
        *_pad(tokenizer, config, end_id=end_id, train=train),
    ]


def _context(config: Any, base: Path, train: Train) -> Iterator[Finding]:
    limit = getattr(config, "max_position_embeddings", None)
    if limit is not None and train.max_tokens > limit:
        yield Finding(
            "error",
            "context_too_short",
            f"train.max_tokens = {train.max_tokens}, but {base} was made for {limit} positions: "
            f"set train.max_tokens to at most {limit}",
        )


def _vocabulary(tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> Iterator[Finding]:
    known = len(tokenizer)
    if known > vocabulary:
        yield Finding(
            "warning",
            "vocabulary",
            f"the tokenizer knows {known} tokens, the model {vocabulary}: the tokens beyond cannot "
            "be read; no row may hold one. Use the base's own tokenizer",
        )
    elif known < vocabulary * (1 - UNUSED_SHARE):
        yield Finding(
            "warning",
            "vocabulary",
            f"the tokenizer knows {known} tokens of the model's {vocabulary}, fewer than rounding "
            "up explains: is it this model's own tokenizer?",
        )


def _added(tokenizer: PreTrainedTokenizerBase, base: Path) -> Iterator[Finding]:
    own = load_tokenizer(base).get_vocab()
    added = sorted(set(tokenizer.get_vocab()) - set(own))
    if added:
        more = f" and {len(added) - NAMED} more" if len(added) > NAMED else ""
        yield Finding(
            "warning",
            "added_tokens",
            f"tokens were added to the base's tokenizer: {', '.join(added[:NAMED])}{more}; a "
            "specialist with tokens of its own cannot be merged with the others",
        )


def _stops(base: Path, config: Any) -> list[int] | None:
    """Return the ids a served base stops on, as its files say; None where they do not."""
    file = base / "generation_config.json"
    said: Any = None
    if file.is_file():
        try:
            said = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
        except (OSError, ValueError, AttributeError) as error:
            raise DataError(f"{file}: not a readable generation config: {error!r}") from error
    if said is None:
        said = getattr(config, "eos_token_id", None)
    if said is None:
        return None
    return [int(number) for number in said] if isinstance(said, list) else [int(said)]


def _end(end: str, end_id: int, stops: list[int] | None) -> Iterator[Finding]:
    if stops is None or end_id not in stops:
        where = "say no eos_token_id" if stops is None else f"say eos_token_id {stops}"
        yield Finding(
            "warning",
            "end_of_turn_config",
            f"the base's generation_config.json and config.json {where}, and not the end of a "
            f"turn {end!r} (id {end_id}): the specialist is saved with it, but the base as it is "
            "served does not stop there",
        )


def _pad(
    tokenizer: PreTrainedTokenizerBase, config: Any, *, end_id: int, train: Train
) -> Iterator[Finding]:
    pad, said = tokenizer.pad_token_id, getattr(config, "pad_token_id", None)
    if pad is not None and pad >= config.vocab_size and not train.packing:
        yield Finding(
            "error",
            "pad_token",
            f"the padding token {tokenizer.pad_token!r} has id {pad}, outside the model's "
            f"{config.vocab_size}: set pad_token to a token of the base, or train.packing: true",
        )
    elif pad is None or pad == end_id:
        yield Finding(
            "note",
            "pad_token",
            "rows are padded with the end of the turn: it stays inside the loss where it ends a "
            "turn, for labels are set by place and not by token",
        )
    elif said is not None and said != pad:
        yield Finding(
            "note",
            "pad_token",
            f"the tokenizer pads with id {pad}, config.json says {said}; padding is never trained",
        )
