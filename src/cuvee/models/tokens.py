"""Token ids and labels of an example: what training sees is what serving will see.

An engine tokenises the rendered prompt by itself and then generates, so prompt and target
are tokenised apart and joined. The template's text already holds the beginning-of-sequence
token where the model wants one; none is added. Text that reads as a control token becomes
that token, in training as in every engine's chat: `control_texts` finds it. Not here:
packing, padding, dropping what is too long.
"""

import dataclasses
from collections.abc import Sequence

from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

from cuvee.models.template import end_of_turn, render_prompt, target_text

IGNORED = -100
"""The label of tokens that the loss leaves out (torch's `ignore_index`)."""


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Token ids of prompt + target + end of turn, and labels of the same length."""

    input_ids: list[int]
    labels: list[int]
    """`IGNORED` on the prompt; the token ids on the target and the end of the turn."""


def encode_example(
    tokenizer: PreTrainedTokenizerBase, prompt: str, reasoning: str, answer: str
) -> Encoded:
    """Return ids and labels of one example; the end-of-turn token is inside the loss.

    Raises DataError as `render_prompt` and `end_of_turn` do.
    """
    return encode_examples(tokenizer, [(prompt, reasoning, answer)])[0]


def encode_examples(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[tuple[str, str, str]]
) -> list[Encoded]:
    """Return ids and labels of each (prompt, reasoning, answer), in their order.

    A fast tokenizer shares them out over all cores. Their texts and ids are in memory
    together: give it some hundreds at a time. Raises DataError as `encode_example` does.
    """
    prompts, targets = _texts(tokenizer, examples)
    ids = [_batch_ids(tokenizer, texts) for texts in (prompts, targets)]
    return [
        Encoded(input_ids=before + target, labels=[IGNORED] * len(before) + target)
        for before, target in zip(*ids, strict=True)
    ]


def count_targets(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[tuple[str, str, str]]
) -> list[int]:
    """Return how many tokens of each (prompt, reasoning, answer) are trained.

    Those of reasoning, answer, tags and end of turn. A fast tokenizer shares the examples out
    over all cores. Raises DataError as `encode_example` does.
    """
    _, targets = _texts(tokenizer, examples)
    if not tokenizer.is_fast:
        return [len(text_ids(tokenizer, target)) for target in targets]
    # Ids are never made into Python's, which would cost.
    return [len(found) for found in _encodings(tokenizer, targets)]


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the ids of a text as it stands; special tokens written in it count as such."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def control_texts(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    """Return what in a message's or target's text is read as control tokens, as it appears.

    Control tokens are the tokenizer's special ones: `<|im_end|>` in a question ends the
    user's turn. Training and engines read it alike, so it is no difference between them, but
    hardly ever what the text's author meant.
    """
    special = set(tokenizer.all_special_ids)
    special |= {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    found = [number for number in text_ids(tokenizer, text) if number in special]
    return [str(token) for token in tokenizer.convert_ids_to_tokens(found)]


def _texts(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[tuple[str, str, str]]
) -> tuple[list[str], list[str]]:
    """Return rendered prompts, and the targets with the end of the turn."""
    if not examples:
        return [], []
    end = end_of_turn(tokenizer)
    prompts = [render_prompt(tokenizer, prompt) for prompt, _, _ in examples]
    targets = [
        target_text(rendered, reasoning, answer) + end
        for rendered, (_, reasoning, answer) in zip(prompts, examples, strict=True)
    ]
    return prompts, targets


def _batch_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    if not tokenizer.is_fast:
        return [text_ids(tokenizer, text) for text in texts]
    return [found.ids for found in _encodings(tokenizer, texts)]


def _encodings(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Encoding]:
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return list(backend.encode_batch_fast(texts, add_special_tokens=False))
