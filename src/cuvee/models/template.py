"""Text of prompts and targets: what a model reads, and what it learns to write.

The prompt is rendered by the model's own chat template. The target never is: templates
rewrite assistant turns (R1's own drops everything up to `</think>`), so a target rendered by
one would silently lose its reasoning. Not here: token ids (`cuvee.models.tokens`).
"""

from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from cuvee.errors import DataError

OPEN = "<think>"
CLOSE = "</think>"
_MARKER = "cuvee marks the end of a turn"


def render_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """Return the text a model is given for one user message, up to where it begins to write.

    Raises DataError where the tokenizer has no chat template or its template fails.
    """
    return _render(tokenizer, [{"role": "user", "content": prompt}], add_generation_prompt=True)


def target_text(rendered_prompt: str, reasoning: str, answer: str) -> str:
    r"""Return what the model is to write: `<think>\nreasoning\n</think>\n\nanswer`.

    What the rendered prompt already opened is left out. The end of the turn is not part of
    it (`end_of_turn`). Whitespace around reasoning and answer is dropped.
    """
    opening = f"{OPEN}\n"
    if rendered_prompt.endswith(OPEN):
        opening = "\n"
    elif rendered_prompt.rstrip().endswith(OPEN):
        opening = ""
    return f"{opening}{reasoning.strip()}\n{CLOSE}\n\n{answer.strip()}"


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the token text that ends an assistant turn, on which engines stop.

    It is the tokenizer's `eos_token`, compared with what the template writes after an
    assistant's message. Raises DataError where there is none, or where they differ: a model
    trained to end its turn with another token than the engine waits for never stops.
    """
    end = tokenizer.eos_token
    if not end:
        raise DataError(f"tokenizer {tokenizer.name_or_path}: no eos_token; set one")
    written = _written_end(tokenizer)
    if written and not written.startswith(end):
        raise DataError(
            f"tokenizer {tokenizer.name_or_path}: its chat template ends an assistant turn with "
            f"{written[:40]!r}, but eos_token is {end!r}; set eos_token to what the template writes"
        )
    return str(end)


def _written_end(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what the template writes after an assistant's message; "" where unseen."""
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _MARKER}]
    try:
        rendered = _render(tokenizer, turns, add_generation_prompt=False)
    except DataError:
        return ""
    return rendered.partition(_MARKER)[2].strip()


def _render(
    tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], *, add_generation_prompt: bool
) -> str:
    if not tokenizer.chat_template:
        raise DataError(f"tokenizer {tokenizer.name_or_path}: no chat template")
    try:
        text: Any = tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except TemplateError as error:
        raise DataError(
            f"tokenizer {tokenizer.name_or_path}: its chat template fails on roles "
            f"{[turn['role'] for turn in turns]}: {error}"
        ) from error
    return str(text)
