"""One file against one checkpoint: (checkpoint, file, text) -> `Parity`.

Three checks: token ids and conversations with the engine that serves (`served`), predictions
in torch (`predictions`), and the engine's predictions at a few positions against those of the
file's weights. A check that could not be made is said and does not pass. Not here: what is
compared on (`texts`, `text`), and what difference is too large (`limits`).
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from cuvee.errors import CuveeError, DataError
from cuvee.models.adapted import load_adapted
from cuvee.models.engines import serve
from cuvee.models.rendering import adds_bos
from cuvee.models.tokens import text_ids
from cuvee.progress import say
from cuvee.recipe import Serve
from cuvee.records import Parity
from cuvee.release.parity.limits import ENGINE_DIVERGENCE, Limit, limit_of
from cuvee.release.parity.predictions import Comparison, compare
from cuvee.release.parity.served import Compared, compare_chats, compare_texts, distribution
from cuvee.release.parity.text import Text
from cuvee.release.parity.weights import checkpoint_weights, file_weights

ASKED = (16, 48, 128, 256)
"""Lengths of the beginnings of the text after which the engine is asked; shorter texts: less."""
_NOT_MADE = Compared(0, ())
_ROOM = 64
"""Tokens of context beyond the prompt."""
_SHOWN = 3
"""Differences of a kind that are told; the others are counted."""


@dataclasses.dataclass(frozen=True)
class _Reading:
    """The text as both models read it."""

    windows: list[list[int]]
    """Token ids; no window sees another."""
    left_out: int
    """Tokens of the text in no window."""
    words: str

    @property
    def prompts(self) -> list[list[int]]:
        """Return beginnings of the text, each shorter than the first window."""
        first = self.windows[0]
        return [first[:size] for size in ASKED if size < len(first)] or [first[:1]]


@dataclasses.dataclass
class _Found:
    """What the checks have found so far."""

    texts: Compared = _NOT_MADE
    chats: Compared = _NOT_MADE
    comparison: Comparison | None = None
    engine_kl: list[float] = dataclasses.field(default_factory=list)
    failed: list[str] = dataclasses.field(default_factory=list)
    """What differs too much, and what could not be checked."""


def check_parity(
    checkpoint: Path, file: Path, *, quantization: str, text: Text, tokens: int, folder: Path
) -> Parity:
    """Return how the GGUF `file` differs from the `checkpoint` folder it was made from.

    `quantization` is one of `cuvee.recipe.Quantization`. Predictions are compared on the first
    `tokens` (2 or more) of `text`, in windows where the model's context is shorter. The
    engine's log goes to `folder`. Never raises for a difference, nor where the file or the
    engine does not work: the row then has `passed` False and says why in `detail`. Raises
    DataError where the checkpoint itself cannot be used or the text is under two tokens long,
    RecipeError for an unknown quantization, OSError where `folder` or `file` is not there.
    """
    limit = limit_of(quantization)
    size = file.stat().st_size
    folder.mkdir(parents=True, exist_ok=True)
    found = _Found()
    tokenizer = load_adapted(checkpoint)
    with checkpoint_weights(checkpoint) as weights:
        context = int(weights.config.max_position_embeddings)
        reading = _read(tokenizer, text, tokens=tokens, context=context)
        places = [len(prompt) - 1 for prompt in reading.prompts]
        with _making("predictions", found):
            found.comparison = compare(weights, file_weights(file), reading.windows, at=places)
    with _making("token ids, conversations and the engine's predictions", found):
        _serve_and_ask(found, file, tokenizer, prompts=reading.prompts, folder=folder)
    _judge(found, limit)
    left = [f"{reading.left_out} tokens of the text left out"] if reading.left_out else []
    return Parity(
        file=file.name,
        quantization=quantization,
        bytes=size,
        texts=found.texts.count,
        texts_unlike=len(found.texts.unlike),
        chats=found.chats.count,
        chats_unlike=len(found.chats.unlike),
        text=reading.words,
        left_out=reading.left_out,
        **_numbers(found.comparison, exact=limit.difference is not None),
        engine_positions=len(found.engine_kl),
        engine_kl=_worst(found.engine_kl),
        passed=not found.failed,
        detail="; ".join([*found.failed, *found.texts.notes, *found.chats.notes, *left]),
    )


def _read(tokenizer: PreTrainedTokenizerBase, text: Text, *, tokens: int, context: int) -> _Reading:
    """Return the text's first tokens in windows of the context, each begun as a text is."""
    ids = text_ids(tokenizer, text.content)
    start = [int(tokenizer.bos_token_id)] if adds_bos(tokenizer) else []
    step = context - len(start)
    used = ids[:tokens]
    pieces = [used[begin : begin + step] for begin in range(0, len(used), step)]
    windows = [[*start, *piece] for piece in pieces if len(start) + len(piece) > 1]
    if not windows:
        raise DataError(f"parity text {text.name!r}: {len(used)} tokens; at least 2 are needed")
    read = sum(map(len, windows)) - len(start) * len(windows)
    words = f"{text.name}: the first {read} of its {len(ids)} tokens"
    if len(windows) > 1:
        words += f", in {len(windows)} windows of {context}, as the model's context is no longer"
    return _Reading(windows, len(ids) - read, words)


@contextmanager
def _making(what: str, found: _Found) -> Iterator[None]:
    """Note, where a check cannot be made, that it was not and why."""
    try:
        yield
    except (CuveeError, OSError, RuntimeError, ValueError) as error:
        # The model described by a broken file fails in any of these ways.
        found.failed.append(f"not checked: {what}: {error}")


def _serve_and_ask(
    found: _Found,
    file: Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    prompts: Sequence[Sequence[int]],
    folder: Path,
) -> None:
    """Ask the engine that serves; what it has answered is kept where it dies."""
    spec = Serve(slots=1, context=max(len(prompt) for prompt in prompts) + _ROOM)
    name = f"parity-{file.stem}"
    with serve(spec, str(file.absolute()), name=name, folder=folder) as engine:
        found.texts = compare_texts(engine, tokenizer)
        found.chats = compare_chats(engine, tokenizer)
        if found.comparison is None:
            return
        say(f"parity: asking llama.cpp for {len(prompts)} whole distributions")
        for prompt, ours in zip(prompts, found.comparison.at, strict=True):
            theirs = distribution(engine, prompt, vocabulary=len(ours))
            found.engine_kl.append(float((ours.exp() * (ours - theirs)).sum()))


def _judge(found: _Found, limit: Limit) -> None:
    """Add what differs too much; a comparison with NaN does, too."""
    for what, compared in (("token ids", found.texts), ("conversations", found.chats)):
        if compared.unlike:
            told = " | ".join(compared.unlike[:_SHOWN])
            found.failed.append(f"{what}: {len(compared.unlike)} of {compared.count}: {told}")
    if found.comparison is not None:
        mean = float(found.comparison.divergence.mean())
        if not mean <= limit.divergence:
            found.failed.append(
                f"predictions: mean divergence {mean:.3g} nats; at most {limit.divergence:g}"
            )
        largest = float(found.comparison.difference.max())
        if limit.difference is not None and not largest <= limit.difference:
            found.failed.append(
                f"predictions: a log-probability differs by {largest:.3g}; at most "
                f"{limit.difference:g}"
            )
    worst = _worst(found.engine_kl)
    if worst is not None and not worst <= ENGINE_DIVERGENCE:
        found.failed.append(
            f"the engine predicts otherwise than the file's weights do in torch: divergence "
            f"{worst:.3g} nats; at most {ENGINE_DIVERGENCE:g}"
        )


def _worst(values: Sequence[float]) -> float | None:
    """Return the largest, where NaN is larger than any number; None of none."""
    return max(values, key=lambda value: (math.isnan(value), value), default=None)


def _numbers(comparison: Comparison | None, *, exact: bool) -> dict[str, Any]:
    """Return the columns that a comparison gives, None where there is none."""
    if comparison is None:
        names = "perplexity perplexity_checkpoint kl_mean kl_p99 same_top logit_difference"
        return {"positions": 0, **dict.fromkeys(names.split())}
    return {
        "positions": len(comparison.divergence),
        "perplexity": float(comparison.loss_file.mean().exp()),
        "perplexity_checkpoint": float(comparison.loss_checkpoint.mean().exp()),
        "kl_mean": float(comparison.divergence.mean()),
        "kl_p99": float(comparison.divergence.quantile(0.99)),
        "same_top": float(comparison.same_top.mean()),
        "logit_difference": float(comparison.difference.max()) if exact else None,
    }
