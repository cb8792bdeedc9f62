"""Token ids and labels of an example: what training sees is what serving will see.

An engine tokenises the rendered prompt by itself and then generates, so prompt and target
are tokenised apart and joined. The template's text already holds the beginning-of-sequence
token where the model wants one; none is added. Not here: packing, padding, dropping what is
too long.
"""

import dataclasses
from collections.abc import Sequence

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
    rendered = render_prompt(tokenizer, prompt)
    before = text_ids(tokenizer, rendered)
    target = _target_ids(tokenizer, rendered, reasoning, answer)
    return Encoded(input_ids=before + target, labels=[IGNORED] * len(before) + target)


def count_targets(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[tuple[str, str, str]]
) -> list[int]:
    """Return how many tokens of each (prompt, reasoning, answer) are trained.

    Those of reasoning, answer, tags and end of turn. A fast tokenizer shares the examples out
    over all cores. Raises DataError as `encode_example` does.
    """
    if not examples:
        return []
    end = end_of_turn(tokenizer)
    targets = [
        target_text(render_prompt(tokenizer, prompt), reasoning, answer) + end
        for prompt, reasoning, answer in examples
    ]
    if not tokenizer.is_fast:
        return [len(text_ids(tokenizer, target)) for target in targets]
    backend = tokenizer.backend_tokenizer  # its ids are never made into Python's, which would cost
    backend.no_truncation()
    backend.no_padding()
    return [len(found) for found in backend.encode_batch_fast(targets, add_special_tokens=False)]


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the ids of a text as it stands; special tokens written in it count as such."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _target_ids(
    tokenizer: PreTrainedTokenizerBase, rendered: str, reasoning: str, answer: str
) -> list[int]:
    target = target_text(rendered, reasoning, answer) + end_of_turn(tokenizer)
    return text_ids(tokenizer, target)
