"""A tokenizer's chat template applied, and looked at through a question and its reply.

Not here: what of it is a prompt, a target or an end (`cuvee.models.template`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from cuvee.errors import DataError

QUESTION = "cuvee asks a question"
REPLY = "cuvee marks the end of a turn"
"""What no template holds, so that it is found in what one makes of it."""

Turn = Mapping[str, str]
"""A message: `role` (system, user or assistant) and `content`."""


def render(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], *, add_generation_prompt: bool
) -> str:
    """Return what the template makes of turns; with the generation prompt, it asks for a reply.

    Raises DataError where there is no template or it fails.
    """
    if not tokenizer.chat_template:
        raise DataError(f"tokenizer {tokenizer.name_or_path}: no chat template")
    try:
        text: Any = tokenizer.apply_chat_template(
            [dict(turn) for turn in turns],
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )
    except TemplateError as error:
        raise DataError(
            f"tokenizer {tokenizer.name_or_path}: its chat template fails on roles "
            f"{[turn['role'] for turn in turns]}: {error}"
        ) from error
    return str(text)


def written_end(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what the template writes after an assistant's message; "" where unseen."""
    return rendered_reply(tokenizer, {"content": REPLY}).partition(REPLY)[2].strip()


def rendered_reply(tokenizer: PreTrainedTokenizerBase, reply: Mapping[str, str]) -> str:
    """Return a question and its reply as the template has them; "" where it refuses."""
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", **reply}]
    try:
        return render(tokenizer, turns, add_generation_prompt=False)
    except DataError:
        return ""


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the tokenizer begins a text with BOS by itself, where it is asked to."""
    first = tokenizer("a")["input_ids"][:1]
    return tokenizer.bos_token is not None and first == [tokenizer.bos_token_id]
