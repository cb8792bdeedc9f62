"""Text of prompts and targets: what a model reads, and what it learns to write.

The prompt, earlier turns included, is rendered by the model's own chat template. The target
never is: templates rewrite replies (R1's own drops everything up to `</think>`), so a target
rendered by one would silently lose its reasoning. `adapt` mends templates that break, before
anything is rendered; all that trains or exports a model renders with the mended one, which
the specialist carries. Not here: token ids (`cuvee.models.tokens`).

transformers and llama.cpp render a mended template to the same bytes. What remains is each
engine's own (all of it is in tests/models/test_template_parity.py):

- `trim` and `strip()` take blanks off by Unicode in Python, by ASCII in llama.cpp. A message
  that begins or ends with U+3000, U+00A0 or the like keeps them when llama.cpp serves it, if
  the template trims (Llama 3, Qwen3.5 and later).
- A system message that the template refuses (Mistral's first ones) is an error in
  transformers; llama.cpp puts it before the question.
- A conversation that ends with a reply is one to go on with for llama.cpp's server: it leaves
  the reply out of the prompt (without `--no-prefill-assistant`).
- BOS: llama.cpp's server takes off the text the one that it adds to the ids itself.

Text in a message that reads as a control token (`<|im_end|>` in a question) becomes that
token in both, in training as in serving (`cuvee.models.tokens.control_texts` finds it).
"""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from cuvee.errors import DataError
from cuvee.models.mending import (
    PINNED_DAY,
    append_header,
    asks_for_today,
    keep_last_reasoning,
    open_reasoning,
    pin_dates,
    template_of_vocabulary,
    write_no_bos,
)
from cuvee.models.rendering import (
    QUESTION,
    REPLY,
    Turn,
    adds_bos,
    render,
    rendered_reply,
    written_end,
)

OPEN = "<think>"
CLOSE = "</think>"
_THOUGHT = "cuvee thinks about it"


def render_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """Return the text a model is given for one user message, up to where it begins to write.

    Raises DataError where the tokenizer has no chat template or its template fails.
    """
    return render_chat(tokenizer, [{"role": "user", "content": prompt}])


def render_chat(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn]) -> str:
    """Return the text a model is given for a conversation, up to where it begins to write.

    `turns` ends with a user's message. Raises DataError as `render_prompt` does.
    """
    return render(tokenizer, turns, add_generation_prompt=True)


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
    written = written_end(tokenizer)
    if written and not written.startswith(end):
        raise DataError(
            f"tokenizer {tokenizer.name_or_path}: its chat template ends an assistant turn with "
            f"{written[:40]!r}, but eos_token is {end!r}; set eos_token to what the template writes"
        )
    return str(end)


def adapt(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Mend `tokenizer`'s chat template and eos_token in place; return what changed, in words.

    Mended are: no template at all (ChatML, Llama 3's or DeepSeek's form, whichever has its
    tokens in the vocabulary), the day of rendering in the prompt, a bos_token that the
    tokenizer has not, a template that writes no generation prompt, one that ends it by
    closing the reasoning (Qwen3.5 without thinking), one that drops the reasoning of a reply
    that ends the conversation, and an eos_token that the template does not end a turn with.
    A second call changes nothing.

    What an earlier turn keeps of its reasoning stays as the template has it (R1 and Qwen3:
    nothing, as those models were made for): it is part of the prompt, rendered by the same
    template in training and in serving. Raises DataError, with the way out, where a template
    fails or leaves out the question, or where nothing can be found to end a turn with.
    """
    given = tokenizer.chat_template
    changes = [
        *_give_template(tokenizer),
        *_pin_dates(tokenizer),
        *_write_no_bos(tokenizer),
        *_give_generation_prompt(tokenizer),
        *_open_reasoning(tokenizer),
        *_keep_reasoning(tokenizer),
        *_agree_on_end(tokenizer),
    ]
    if isinstance(given, dict) and tokenizer.chat_template is not given:
        others = ", ".join(name for name in given if name != "default")
        changes.append(f"chat template: only the mended 'default' is kept, not: {others}")
    if QUESTION not in render_prompt(tokenizer, QUESTION):
        raise DataError(
            f"tokenizer {tokenizer.name_or_path}: its chat template leaves out the user's "
            "message; give the base a chat_template.jinja that writes it"
        )
    end_of_turn(tokenizer)
    return changes


def _give_template(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    if isinstance(tokenizer.chat_template, dict):
        if "default" not in tokenizer.chat_template:
            raise DataError(
                f"tokenizer {tokenizer.name_or_path}: none of its chat templates is called "
                f"'default': {', '.join(tokenizer.chat_template)}"
            )
        return []
    if tokenizer.chat_template:
        return []
    found = template_of_vocabulary(tokenizer.get_vocab(), adds_bos=adds_bos(tokenizer))
    if found is None:
        raise DataError(
            f"tokenizer {tokenizer.name_or_path}: no chat template, and the vocabulary has the "
            "tokens of no form known here (ChatML, Llama 3, DeepSeek); put a chat_template.jinja "
            "into a copy of the base's folder"
        )
    tokenizer.chat_template = found[1]
    return [f"chat template: there is none; {found[0]} form is used, whose tokens are there"]


def _pin_dates(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    template = tokenizer.get_chat_template()
    pinned = pin_dates(template)
    if asks_for_today(pinned):
        raise DataError(
            f"tokenizer {tokenizer.name_or_path}: its chat template writes today's date in a way "
            "that cannot be fixed to one day, so what is trained today is not served tomorrow; "
            "write a date for strftime_now(...) in its chat_template.jinja"
        )
    if pinned == template:
        return []
    tokenizer.chat_template = pinned
    day = f"{PINNED_DAY:%d %b %Y}"
    return [f"chat template: it writes today's date into each prompt; fixed at {day}"]


def _write_no_bos(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    template = tokenizer.get_chat_template()
    if tokenizer.bos_token is not None or (mended := write_no_bos(template)) == template:
        return []
    tokenizer.chat_template = mended
    return ["chat template: it writes bos_token, which the tokenizer has not; now it is empty"]


def _give_generation_prompt(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    asked = [{"role": "user", "content": QUESTION}]
    without = render(tokenizer, asked, add_generation_prompt=False)
    if render(tokenizer, asked, add_generation_prompt=True) != without:
        return []
    whole = rendered_reply(tokenizer, {"content": REPLY})
    if not whole.startswith(without) or REPLY not in whole:
        return []
    header = whole.removeprefix(without).partition(REPLY)[0].partition(OPEN)[0]
    if not header.strip():  # Mistral's: the reply follows the question's closing tag
        return []
    tokenizer.chat_template = append_header(tokenizer.get_chat_template(), header)
    if render_prompt(tokenizer, QUESTION) != without + header:
        raise DataError(
            f"tokenizer {tokenizer.name_or_path}: its chat template writes no generation prompt, "
            f"and {header!r} cannot be appended to it; write it under `if add_generation_prompt`"
        )
    return [f"chat template: no generation prompt; it now begins a reply with {header!r}"]


def _open_reasoning(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    if not render_prompt(tokenizer, QUESTION).rstrip().endswith(CLOSE):
        return []
    tokenizer.chat_template = open_reasoning(tokenizer.get_chat_template())
    if render_prompt(tokenizer, QUESTION).rstrip().endswith(CLOSE):
        raise DataError(
            f"tokenizer {tokenizer.name_or_path}: its chat template closes the reasoning before "
            f"the model writes any ({CLOSE} ends the prompt), and enable_thinking does not change "
            "that; write a generation prompt without it in its chat_template.jinja"
        )
    return [
        "chat template: it switches reasoning off; now it is on unless enable_thinking is false"
    ]


def _keep_reasoning(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    if _shows_reasoning(tokenizer):
        return []
    template = tokenizer.chat_template
    before = _past(tokenizer)
    tokenizer.chat_template = keep_last_reasoning(tokenizer.get_chat_template())
    if not _shows_reasoning(tokenizer) or _past(tokenizer) != before:
        tokenizer.chat_template = template  # harmless here: no target is rendered by it
        return []
    return [
        "chat template: it drops the reasoning of every reply; now it keeps that of a reply that "
        "ends the conversation, and still drops that of earlier turns"
    ]


def _agree_on_end(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    end, written = tokenizer.eos_token, written_end(tokenizer)
    if not written or (end and written.startswith(end)):
        return []
    known = [token for token in tokenizer.get_added_vocab() if written.startswith(token)]
    if not known:
        raise DataError(
            f"tokenizer {tokenizer.name_or_path}: its chat template ends a turn with "
            f"{written[:40]!r}, which is no token of the vocabulary, and eos_token is {end!r}: "
            "no engine would stop there; write the eos_token there in its chat_template.jinja"
        )
    tokenizer.eos_token = max(known, key=len)
    return [
        f"eos_token: {tokenizer.eos_token!r}, with which the chat template ends a turn, instead "
        f"of {end!r}, so that engines stop there"
    ]


def _shows_reasoning(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Say whether prompt and target are what the template makes of the whole conversation.

    The reply is given as one text, or (Qwen3.8 and later) with its reasoning in a field.
    """
    prompt = render_prompt(tokenizer, QUESTION)
    target = target_text(prompt, _THOUGHT, REPLY)
    forms = [
        {"content": target_text("", _THOUGHT, REPLY)},
        {"content": REPLY, "reasoning_content": _THOUGHT},
    ]
    return any(rendered_reply(tokenizer, form).startswith(prompt + target) for form in forms)


def _past(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return how a reply with reasoning looks when the conversation goes on; "" if refused."""
    turns = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": target_text("", _THOUGHT, REPLY)},
        {"role": "user", "content": QUESTION},
    ]
    try:
        return render_chat(tokenizer, turns)
    except DataError:
        return ""
