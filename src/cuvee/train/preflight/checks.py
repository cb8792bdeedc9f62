"""The checks of each row: whether the tokens teach what the example says, and nothing else.

A `Batch` in; out, for every check, which of its rows break it. Tokens are compared as arrays;
the trained tokens are turned back into text, which must hold the reasoning and the answer.
Not here: checks of the whole set, and of the tokenizer against the model (`agreement`).
"""

import dataclasses
import unicodedata
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from cuvee.models.template import CLOSE, OPEN, render_prompt
from cuvee.models.tokens import IGNORED
from cuvee.records import Example
from cuvee.train.preflight.encode import Batch, Ints, decoded
from cuvee.train.preflight.findings import Level

Rows = NDArray[np.bool_]

ROW_CHECKS: Mapping[str, tuple[Level, str]] = {
    "prompt_not_prefix": (
        "error",
        "the prompt's tokens are not the beginning of the row: what an engine will read is not "
        "what is trained; look for a tokenizer that was changed",
    ),
    "prompt_in_loss": ("error", "a token of the prompt is inside the loss"),
    "target_outside_loss": ("error", "a token of the target is outside the loss"),
    "end_of_turn": (
        "error",
        "the end of the turn is not the last trained token, and that alone: take its text out of "
        "the reasoning and the answer, or drop the rows",
    ),
    "think_tags": (
        "error",
        "<think> and </think> do not stand once each, in order: take tags out of the reasoning "
        "and the answer, or drop the rows",
    ),
    "text_changed": (
        "error",
        "reasoning or answer is not in the trained tokens as written: this tokenizer loses or "
        "changes text; train a base whose tokenizer keeps it, or drop the rows",
    ),
    "outside_vocabulary": (
        "error",
        "a token id is outside the model's vocabulary: the tokenizer is not the model's own, or "
        "tokens were added to it; use the base's own",
    ),
    "without_reasoning": (
        "warning",
        "the reasoning is empty: the specialist learns to answer these without thinking; drop "
        "them where it should think",
    ),
    "prompt_rewritten": (
        "warning",
        "the prompt is not in the row's tokens as written: the chat template or the tokenizer "
        "changes it, in training and in serving alike",
    ),
    "special_in_text": (
        "warning",
        "a special token stands inside reasoning or answer: the specialist learns to write it "
        "there; take its text out, or drop the rows",
    ),
    "special_in_prompt": (
        "warning",
        "the prompt's text holds a special token, which the model reads as one and not as text",
    ),
    "unknown_tokens": (
        "warning",
        "the tokenizer has no token for some of the text and writes its unknown token instead",
    ),
}
"""Name of each check -> its level, and what is said of the rows that break it."""


@dataclasses.dataclass(frozen=True)
class Frame:
    """What the checks know of tokenizer and model."""

    end_id: int
    """Of the end of the turn."""
    vocabulary: int
    """Rows of the model's embedding."""
    special: Rows
    """By token id, whether it is a special token; <think> and </think> never count."""
    special_in_prompt: int
    """How many the chat template itself writes around one user message."""
    unknown_id: int
    """-1 where there is none."""


def frame_of(tokenizer: PreTrainedTokenizerBase, *, end: str, vocabulary: int) -> Frame:
    """Return the frame of a tokenizer and a model of so many ids. Raises DataError."""
    added = tokenizer.added_tokens_decoder
    numbers = [
        number
        for number, token in added.items()
        if token.special and token.content not in (OPEN, CLOSE)
    ]
    special = np.zeros(max([len(tokenizer), vocabulary, *added]) + 1, dtype=np.bool_)
    special[numbers] = True
    plain = tokenizer(render_prompt(tokenizer, "?"), add_special_tokens=False)["input_ids"]
    end_id = int(tokenizer.convert_tokens_to_ids(end))
    unknown = tokenizer.unk_token_id
    # GPT-2's tokenizer calls its only special token the unknown one as well.
    reserved = {
        None,
        end_id,
        tokenizer.eos_token_id,
        tokenizer.bos_token_id,
        tokenizer.pad_token_id,
    }
    return Frame(
        end_id=end_id,
        vocabulary=vocabulary,
        special=special,
        special_in_prompt=int(special[plain].sum()),
        unknown_id=-1 if unknown in reserved else unknown,
    )


def opens(prompt: str) -> bool:
    """Return whether a rendered prompt opens `<think>` itself."""
    return prompt.rstrip().endswith(OPEN)


def broken_rows(batch: Batch, tokenizer: PreTrainedTokenizerBase, frame: Frame) -> dict[str, Rows]:
    """Return for every name of `ROW_CHECKS` which rows of the batch break it."""
    return _by_tokens(batch, frame) | _by_text(batch, tokenizer, frame)


def _by_tokens(batch: Batch, frame: Frame) -> dict[str, Rows]:
    ids, labels, in_prompt = batch.ids, batch.labels, batch.in_prompt
    trained = labels != IGNORED
    ends = trained & (labels == frame.end_id)
    last = batch.starts[1:] - 1
    known = np.clip(ids, 0, len(frame.special) - 1)
    special = frame.special[known]
    differs = np.zeros(len(ids), dtype=np.bool_)
    differs[in_prompt] = ids[in_prompt] != batch.prompt_ids
    return {
        "prompt_not_prefix": _count(differs, batch) > 0,
        "prompt_in_loss": _count(in_prompt & trained, batch) > 0,
        "target_outside_loss": _count(~in_prompt & (labels != ids), batch) > 0,
        "end_of_turn": ~ends[last] | (_count(ends, batch) != 1),
        "outside_vocabulary": _count((ids < 0) | (ids >= frame.vocabulary), batch) > 0,
        "special_in_text": _count(special & trained & ~ends, batch) > 0,
        "special_in_prompt": _count(special & in_prompt, batch) != frame.special_in_prompt,
        "unknown_tokens": _count(ids == frame.unknown_id, batch) > 0,
    }


def _by_text(batch: Batch, tokenizer: PreTrainedTokenizerBase, frame: Frame) -> dict[str, Rows]:
    examples = batch.examples
    prompts = decoded(tokenizer, np.split(batch.ids, _inner_edges(batch))[::2])
    targets = decoded(tokenizer, _trained_text_ids(batch, frame))
    opened = [OPEN if opens(prompt) else "" for prompt in batch.prompts]
    return {
        "think_tags": _rows(
            not _tags_once(begun + target) for begun, target in zip(opened, targets, strict=True)
        ),
        "text_changed": _rows(
            not _texts_present(target, example)
            for target, example in zip(targets, examples, strict=True)
        ),
        "without_reasoning": _rows(not example.reasoning.strip() for example in examples),
        "prompt_rewritten": _rows(
            not _holds(prompt, example.prompt.strip())
            for prompt, example in zip(prompts, examples, strict=True)
        ),
    }


def _inner_edges(batch: Batch) -> NDArray[np.int64]:
    """Return where each prompt ends and each row but the last ends, in order."""
    ends = np.stack([batch.starts[:-1] + batch.prompt_lengths, batch.starts[1:]], axis=1)
    return ends.ravel()[:-1]


def _trained_text_ids(batch: Batch, frame: Frame) -> list[Ints]:
    """Return the trained tokens of each row, without the end of the turn."""
    rows = np.split(batch.labels, batch.starts[1:-1])
    trained = [row[row != IGNORED] for row in rows]
    return [row[:-1] if row[-1:] == frame.end_id else row for row in trained]


def _count(tokens: Rows, batch: Batch) -> NDArray[np.int64]:
    """Return how many tokens of each row are marked; no row is empty."""
    counts: NDArray[np.int64] = np.add.reduceat(tokens, batch.starts[:-1], dtype=np.int64)
    return counts


def _rows(broken: Iterable[bool]) -> Rows:
    return np.fromiter(broken, dtype=np.bool_)


def _tags_once(text: str) -> bool:
    once = text.count(OPEN) == 1 and text.count(CLOSE) == 1
    return once and text.index(OPEN) < text.index(CLOSE)


def _texts_present(target: str, example: Example) -> bool:
    reasoning, closed, answer = target.partition(CLOSE)
    return (
        closed != ""
        and _holds(reasoning, example.reasoning.strip())
        and _holds(answer, example.answer.strip())
    )


def _holds(text: str, part: str) -> bool:
    # Some tokenizers normalise Unicode (Qwen2: NFC): the same characters, other code points.
    return part in text or _composed(part) in _composed(text)


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)
