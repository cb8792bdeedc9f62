"""Chat templates that break, mended as text: each function returns a template's new text.

They change as little as can be, and by what a template does, not by whose it is. Whether one
is needed, and whether it helped, `cuvee.models.template.adapt` finds out by rendering.
"""

import datetime
import json
import re

PINNED_DAY = datetime.date(2024, 7, 26)
"""The day a template is told that asks for today's: what Llama 3's own falls back to."""

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA_3 = (
    "{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{{ message['content'] + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
    "{% endif %}"
)
DEEPSEEK = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '<｜Assistant｜>' + message['content'] + '<｜end▁of▁sentence｜>' }}"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"
)
FORMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ChatML": (CHATML, ("<|im_start|>", "<|im_end|>")),
    "Llama 3's": (LLAMA_3, ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")),
    "DeepSeek's": (DEEPSEEK, ("<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>")),
}
"""Name -> template and the tokens it is written with, for a base that has no template."""

_TODAY = re.compile(r"""strftime_now\(\s*(['"])([^'"{}]{1,40})\1\s*\)""")
_DATE_STRING = re.compile(r"\bdate_string\b")
_LEFT_OUT = re.compile(
    r"""(?P<reply>[A-Za-z_][\w.]{0,80}(?:\[['"]\w{1,40}['"]\]){0,3})"""
    r"""\.split\((?P<quote>['"])</think>(?P=quote)\)\[-1\](?:\.l?strip\((?:'\\n'|"\\n")?\))?"""
)


def template_of_vocabulary(vocabulary: dict[str, int], *, adds_bos: bool) -> tuple[str, str] | None:
    """Return (name, template) of the first form whose tokens are all in `vocabulary`; or None.

    `adds_bos`: whether the tokenizer begins a text with BOS by itself; then the template
    writes it, since rendered text is tokenised without adding any.
    """
    for name, (template, tokens) in FORMS.items():
        if all(token in vocabulary for token in tokens):
            return name, ("{{ bos_token }}" if adds_bos else "") + template
    return None


def pin_dates(template: str) -> str:
    """Return the template with `PINNED_DAY` wherever it would write the day of rendering.

    Those are calls of `strftime_now`, and `date_string`, which llama.cpp sets to today and
    transformers does not set at all.
    """
    pinned = _TODAY.sub(lambda call: json.dumps(PINNED_DAY.strftime(call[2])), template)
    if not _DATE_STRING.search(pinned):
        return pinned
    first = f'{{%- set date_string = "{PINNED_DAY:%d %b %Y}" %}}'
    return pinned if pinned.startswith(first) else first + pinned


def write_no_bos(template: str) -> str:
    """Return the template with an empty `bos_token`, for a tokenizer that has none.

    transformers then writes nothing for it, llama.cpp some ordinary token of its vocabulary.
    """
    first = "{%- set bos_token = '' %}"
    if "bos_token" not in template or template.startswith(first):
        return template
    return first + template


def open_reasoning(template: str) -> str:
    """Return the template with thinking switched on unless a caller says otherwise.

    By `enable_thinking`, as Qwen's templates call it; llama.cpp sets it, transformers does not.
    """
    first = "{%- if enable_thinking is not defined %}{%- set enable_thinking = true %}{%- endif %}"
    return first + template


def asks_for_today(template: str) -> bool:
    """Say whether a pinned template still calls `strftime_now`, in a way unknown here."""
    return "strftime_now(" in template


def append_header(template: str, header: str) -> str:
    """Return the template with `header` written at its end where a reply is asked for."""
    literal = json.dumps(header, ensure_ascii=False)
    ending = f"{{% if add_generation_prompt %}}{{{{ {literal} }}}}{{% endif %}}"
    return template.removesuffix("\n") + ending


def keep_last_reasoning(template: str) -> str:
    """Return the template with the reasoning left in a reply that ends the conversation.

    `x.split('</think>')[-1]` becomes that of all turns but the last; a last one whose opening
    tag stood in the prompt, so that the server's answer lacks it, gets it again.
    """

    def kept(found: re.Match[str]) -> str:
        reply = found["reply"]
        opened = f"('<think>\\n' if '</think>' in {reply} and '<think>' not in {reply} else '')"
        return f"(({opened} + {reply}) if loop.last else {found[0]})"

    return _LEFT_OUT.sub(kept, template)
