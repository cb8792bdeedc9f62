"""Examples as token ids and labels, many at once: the rows as they will be trained.

Rows in: `Example`. Out: `Batch`, its rows one behind the other in flat arrays. The same ids as
`cuvee.models.tokens.encode_example` gives one by one, from the fast tokenizer's own batches,
which use all cores. Not here: whether the rows are right (`checks`).
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from cuvee.errors import DataError
from cuvee.models.template import render_prompt, target_text
from cuvee.models.tokens import IGNORED
from cuvee.records import Example

BATCH_ROWS = 1024
BATCH_CHARACTERS = 1 << 21
"""Rows and characters tokenised at once: the tokenizer holds some hundred bytes a token."""

Ints = NDArray[np.int32]


@dataclasses.dataclass(frozen=True)
class Batch:
    """Examples and their tokens; row i is `ids[starts[i]:starts[i + 1]]`, and so its labels."""

    examples: list[Example]
    prompts: list[str]
    """As text, up to where the model begins to write."""
    prompt_ids: Ints
    """Of all `prompts`, one behind the other: what an engine will read."""
    prompt_lengths: NDArray[np.int64]
    ids: Ints
    """Prompt, target and end of turn of every row."""
    labels: Ints
    """`IGNORED` on the prompt, the ids elsewhere."""
    starts: NDArray[np.int64]
    """One more than there are rows."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Return the tokens of each row."""
        return np.diff(self.starts)

    @property
    def in_prompt(self) -> NDArray[np.bool_]:
        """Return for each token whether it stands among the first `prompt_lengths` of its row."""
        places = np.arange(len(self.ids)) - np.repeat(self.starts[:-1], self.lengths)
        return places < np.repeat(self.prompt_lengths, self.lengths)

    def only(self, rows: NDArray[np.bool_]) -> "Batch":
        """Return the batch of some of its rows."""
        if rows.all():
            return self
        chosen = [number for number, wanted in enumerate(rows) if wanted]
        tokens = np.repeat(rows, self.lengths)
        return Batch(
            examples=[self.examples[number] for number in chosen],
            prompts=[self.prompts[number] for number in chosen],
            prompt_ids=self.prompt_ids[np.repeat(rows, self.prompt_lengths)],
            prompt_lengths=self.prompt_lengths[rows],
            ids=self.ids[tokens],
            labels=self.labels[tokens],
            starts=starts_of(self.lengths[rows]),
        )


def in_batches(examples: Iterable[Example]) -> Iterator[list[Example]]:
    """Yield examples in lists of at most `BATCH_ROWS`, fewer where their texts are long."""
    batch: list[Example] = []
    characters = 0
    for example in examples:
        batch.append(example)
        characters += len(example.prompt) + len(example.reasoning) + len(example.answer)
        if len(batch) == BATCH_ROWS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def encode(examples: list[Example], tokenizer: PreTrainedTokenizerBase, *, end: str) -> Batch:
    """Return the rows of some examples; `end` is what ends a turn (`end_of_turn`).

    Raises DataError where the tokenizer is no fast one or cannot render a chat.
    """
    distinct = list(dict.fromkeys(example.prompt for example in examples))
    rendered = [render_prompt(tokenizer, prompt) for prompt in distinct]
    known = dict(zip(distinct, zip(rendered, _ids(tokenizer, rendered), strict=True), strict=True))
    prompts, before = zip(*(known[example.prompt] for example in examples), strict=True)
    after = _ids(
        tokenizer,
        [
            target_text(prompt, example.reasoning, example.answer) + end
            for prompt, example in zip(prompts, examples, strict=True)
        ],
    )
    pieces = [piece for pair in zip(before, after, strict=True) for piece in pair]
    sizes = np.array([len(piece) for piece in pieces], dtype=np.int64)
    ids = np.concatenate(pieces)
    is_prompt = np.repeat(np.arange(len(pieces)) % 2 == 0, sizes)
    return Batch(
        examples=examples,
        prompts=list(prompts),
        prompt_ids=np.concatenate(before),
        prompt_lengths=sizes[::2],
        ids=ids,
        labels=np.where(is_prompt, np.int32(IGNORED), ids),
        starts=starts_of(sizes[::2] + sizes[1::2]),
    )


def decoded(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Ints]) -> list[str]:
    """Return the text of each row of ids, special tokens included."""
    backend = _backend(tokenizer)
    found: list[str] = backend.decode_batch(
        [row.tolist() for row in rows], skip_special_tokens=False
    )
    return found


def starts_of(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each row begins in a flat array, and where the last one ends."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])


def _ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Ints]:
    backend = _backend(tokenizer)
    found = backend.encode_batch_fast(texts, add_special_tokens=False)
    return [np.array(encoding.ids, dtype=np.int32) for encoding in found]


def _backend(tokenizer: PreTrainedTokenizerBase) -> Any:
    if not tokenizer.is_fast:
        raise DataError(
            f"tokenizer {tokenizer.name_or_path}: not a fast one (tokenizer.json); save it as one"
        )
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return backend
