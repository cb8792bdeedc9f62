"""Preflight: tokenise the examples as they will be trained, and prove what is learned.

Rows in: `Example`. Rows out: `Encoded` (ids and labels, none longer than `max_tokens`) and
`Findings`. TRL cuts longer rows without a word, so whatever is too long is dropped here,
by name. Every other violated check stops: a set that is wrong in one row is wrong in its
making. Not here: choosing examples (`cuvee.select`), training (`cuvee.train.sft`).
"""

import dataclasses
import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl.data_utils import pack_dataset

from cuvee.errors import TrainError
from cuvee.models.template import CLOSE, OPEN, end_of_turn, render_prompt
from cuvee.models.tokens import IGNORED, Encoded, encode_example, text_ids
from cuvee.recipe import Train
from cuvee.records import Example

PACKING = "bfd"
"""TRL's best-fit decreasing: rows stay whole, which it does for rows of at most `max_tokens`."""
SHOWN = 5
"""Row ids an error names."""


@dataclasses.dataclass(frozen=True)
class Findings:
    """What the preflight found; written as `preflight.json`."""

    examples: int
    kept: int
    dropped_too_long: list[str]
    """Ids of the examples longer than `max_tokens`."""
    answer_tokens_dropped: int
    """Tokens of reasoning and answer in those."""
    tokens: int
    """Of all kept rows, prompts included: what one epoch reads."""
    answer_tokens: int
    """Of those, the tokens inside the loss: reasoning, answer, tags and end of turn."""
    longest: int
    """Tokens of the longest kept row."""
    max_tokens: int
    without_reasoning: int
    """Kept rows whose reasoning is empty."""
    think_opened_by_prompt: bool
    """Whether the chat template opens `<think>` itself, so that the target does not."""
    end_of_turn: str
    rows: int
    """Rows training reads an epoch: packed rows where `packing`, else the kept rows."""
    packing_efficiency: float | None
    """tokens / (rows * max_tokens), in (0, 1]; None without packing."""
    steps_per_epoch: int
    steps: int
    """Optimizer steps in all."""


@dataclasses.dataclass(frozen=True)
class Checked:
    """One row with what the checks look at."""

    example: Example
    encoded: Encoded
    rendered: str
    """The prompt as text, up to where the model begins to write."""
    prompt_ids: list[int]
    target: str
    """The trained tokens as text, without the end of the turn."""
    end_id: int
    vocabulary: int


def preflight(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    *,
    train: Train,
    vocabulary: int,
    processes: int = 1,
) -> tuple[list[Encoded], Findings]:
    """Return the rows to train on, in the order of `examples`, and what was found.

    `vocabulary` is the number of rows of the model's embedding, `processes` how many share
    a batch. Raises TrainError where nothing is left to train on, or naming check and row
    ids where a row breaks one; DataError where the tokenizer cannot render a chat.
    """
    if not examples:
        raise TrainError(
            "the training set is empty: no example was selected; see what `select` dropped "
            "and why (04_examples/dropped), then loosen its filters or ask for more samples"
        )
    encoded = [encode_example(tokenizer, e.prompt, e.reasoning, e.answer) for e in examples]
    fits = [len(row.input_ids) <= train.max_tokens for row in encoded]
    kept = [row for row, fit in zip(encoded, fits, strict=True) if fit]
    if not kept:
        shortest = min(len(row.input_ids) for row in encoded)
        raise TrainError(
            f"all {len(examples)} examples are longer than train.max_tokens = {train.max_tokens} "
            f"(the shortest has {shortest} tokens): raise train.max_tokens"
        )
    chosen = [example for example, fit in zip(examples, fits, strict=True) if fit]
    _check_rows(chosen, kept, tokenizer, vocabulary=vocabulary)
    long = [(e.id, row) for e, row, fit in zip(examples, encoded, fits, strict=True) if not fit]
    rows = packed_rows(kept, train.max_tokens) if train.packing else len(kept)
    tokens = sum(len(row.input_ids) for row in kept)
    per_epoch = _steps_per_epoch(rows, train, processes)
    return kept, Findings(
        examples=len(examples),
        kept=len(kept),
        dropped_too_long=[name for name, _ in long],
        answer_tokens_dropped=sum(trained_tokens(row) for _, row in long),
        tokens=tokens,
        answer_tokens=sum(trained_tokens(row) for row in kept),
        longest=max(len(row.input_ids) for row in kept),
        max_tokens=train.max_tokens,
        without_reasoning=sum(not e.reasoning.strip() for e in chosen),
        think_opened_by_prompt=_opens(render_prompt(tokenizer, chosen[0].prompt)),
        end_of_turn=end_of_turn(tokenizer),
        rows=rows,
        packing_efficiency=tokens / (rows * train.max_tokens) if train.packing else None,
        steps_per_epoch=per_epoch,
        steps=math.ceil(train.epochs * per_epoch),
    )


def trained_tokens(row: Encoded) -> int:
    """Return how many tokens of a row are inside the loss."""
    return sum(label != IGNORED for label in row.labels)


def dataset(rows: Sequence[Encoded]) -> Dataset:
    """Return rows as what TRL takes as it is: columns `input_ids` and `labels`, no text."""
    return Dataset.from_dict(
        {"input_ids": [r.input_ids for r in rows], "labels": [r.labels for r in rows]}
    )


def packed_rows(rows: Sequence[Encoded], max_tokens: int) -> int:
    """Return how many packed rows of `max_tokens` tokens TRL makes of `rows`."""
    return len(pack_dataset(dataset(rows), max_tokens, PACKING))


def _steps_per_epoch(rows: int, train: Train, processes: int) -> int:
    """Return optimizer steps an epoch; the last one takes what is left."""
    batches = math.ceil(rows / (train.micro_batch * processes))
    return math.ceil(batches * train.micro_batch * processes / train.batch_size)


def _opens(rendered: str) -> bool:
    return rendered.rstrip().endswith(OPEN)


def _check_rows(
    examples: Sequence[Example],
    rows: Sequence[Encoded],
    tokenizer: PreTrainedTokenizerBase,
    *,
    vocabulary: int,
) -> None:
    """Raise TrainError with every check that some row breaks, and the rows."""
    end_id = tokenizer.convert_tokens_to_ids(end_of_turn(tokenizer))
    broken: dict[str, list[str]] = {}
    for example, encoded in zip(examples, rows, strict=True):
        checked = _checked(example, encoded, tokenizer, end_id=end_id, vocabulary=vocabulary)
        for name, holds in CHECKS.items():
            if not holds(checked):
                broken.setdefault(name, []).append(example.id)
    if broken:
        lines = [f"  {name}: {_named(ids)}" for name, ids in broken.items()]
        raise TrainError(
            "these rows would not be learned as they are written; correct or drop them:\n"
            + "\n".join(lines)
        )


def _checked(
    example: Example,
    encoded: Encoded,
    tokenizer: PreTrainedTokenizerBase,
    *,
    end_id: int,
    vocabulary: int,
) -> Checked:
    rendered = render_prompt(tokenizer, example.prompt)
    trained = [label for label in encoded.labels if label != IGNORED]
    inside = trained[:-1] if trained[-1:] == [end_id] else trained
    return Checked(
        example=example,
        encoded=encoded,
        rendered=rendered,
        prompt_ids=text_ids(tokenizer, rendered),
        target=str(tokenizer.decode(inside, clean_up_tokenization_spaces=False)),
        end_id=end_id,
        vocabulary=vocabulary,
    )


def _named(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return f"{len(ids)} rows: {', '.join(ids[:SHOWN])}{more}"


def _prompt_is_prefix(row: Checked) -> bool:
    return row.encoded.input_ids[: len(row.prompt_ids)] == row.prompt_ids


def _prompt_outside_loss(row: Checked) -> bool:
    return all(label == IGNORED for label in row.encoded.labels[: len(row.prompt_ids)])


def _target_inside_loss(row: Checked) -> bool:
    start = len(row.prompt_ids)
    return row.encoded.labels[start:] == row.encoded.input_ids[start:]


def _end_is_last(row: Checked) -> bool:
    trained = [label for label in row.encoded.labels if label != IGNORED]
    return trained[-1:] == [row.end_id] and trained.count(row.end_id) == 1


def _tags_once(row: Checked) -> bool:
    text = (OPEN if _opens(row.rendered) else "") + row.target
    once = text.count(OPEN) == 1 and text.count(CLOSE) == 1
    return once and text.index(OPEN) < text.index(CLOSE)


def _texts_present(row: Checked) -> bool:
    # Some tokenizers normalise Unicode (Qwen2: NFC): the same characters, other code points.
    reasoning, closed, answer = _composed(row.target).partition(CLOSE)
    return (
        closed != ""
        and _composed(row.example.reasoning.strip()) in reasoning
        and _composed(row.example.answer.strip()) in answer
    )


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _ids_in_vocabulary(row: Checked) -> bool:
    return all(0 <= token < row.vocabulary for token in row.encoded.input_ids)


CHECKS: Mapping[str, Callable[[Checked], bool]] = {
    "the prompt's tokens are not the beginning of the row": _prompt_is_prefix,
    "a token of the prompt is inside the loss": _prompt_outside_loss,
    "a token of the target is outside the loss": _target_inside_loss,
    "the end of the turn is not the last trained token, and that alone": _end_is_last,
    "<think> and </think> do not stand once each, in order": _tags_once,
    "reasoning or answer is not in the trained tokens as written": _texts_present,
    "a token id is outside the model's vocabulary": _ids_in_vocabulary,
}
"""What a row that breaks it is told, and the check; each must hold for every row."""
