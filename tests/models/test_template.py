"""Prompts come from the template, targets never do; the end of a turn is what stops engines."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from cuvee.errors import DataError
from cuvee.models.checkpoint import load_tokenizer
from cuvee.models.random_model import Architecture
from cuvee.models.template import end_of_turn, render_prompt, target_text
from cuvee.models.tokens import IGNORED, count_targets, encode_example, text_ids

# As R1-Distill's: opens the reasoning for the model, strips it from past turns.
R1_STYLE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<|User|>' + message['content'] }}{% endif %}"
    "{% if message['role'] == 'assistant' %}"
    "{% set content = message['content'] %}"
    "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '<|Assistant|>' + content + '<|im_end|>' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|><think>\\n' }}{% endif %}"
)


@pytest.fixture
def tokenizer(checkpoint: Callable[[Architecture], Path]) -> PreTrainedTokenizerBase:
    return load_tokenizer(checkpoint("llama"))


def test_prompt_ends_where_the_model_begins_to_write(tokenizer: PreTrainedTokenizerBase) -> None:
    expected = "<|im_start|>user\nWhat is 2+2?<|im_end|>\n<|im_start|>assistant\n"
    assert render_prompt(tokenizer, "What is 2+2?") == expected


def test_chatml_renders_our_prompt_target_and_end_as_a_prefix(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    prompt = render_prompt(tokenizer, "q")
    target = target_text(prompt, "because", "4")
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": target}]
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    assert str(whole).startswith(prompt + target + end_of_turn(tokenizer))


def test_reasoning_survives_a_template_that_strips_it(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = R1_STYLE
    encoded = encode_example(tokenizer, "q", "the chain of thought", "4")
    learnt = [i for i in encoded.labels if i != IGNORED]
    text = tokenizer.decode(learnt, skip_special_tokens=False)
    assert text == "the chain of thought\n</think>\n\n4<|im_end|>"
    whole = tokenizer.decode(encoded.input_ids, skip_special_tokens=False)
    assert whole == "<|User|>q<|Assistant|><think>\n" + text


def test_opening_tag_is_left_out_where_the_prompt_has_it() -> None:
    rest = "r\n</think>\n\na"
    assert target_text("...assistant\n", "r", "a") == "<think>\n" + rest
    assert target_text("...<think>\n", "r", "a") == rest
    assert target_text("...<think>", "r", "a") == "\n" + rest


def test_loss_covers_the_target_and_its_end_and_nothing_of_the_prompt(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    encoded = encode_example(tokenizer, "q", "r", "a")
    prompt = text_ids(tokenizer, render_prompt(tokenizer, "q"))
    assert len(encoded.input_ids) == len(encoded.labels)
    assert encoded.input_ids[: len(prompt)] == prompt
    assert encoded.labels[: len(prompt)] == [IGNORED] * len(prompt)
    assert encoded.labels[len(prompt) :] == encoded.input_ids[len(prompt) :]
    assert encoded.labels[-1] == tokenizer.eos_token_id
    assert count_targets(tokenizer, [("q", "r", "a")]) == [len(encoded.labels) - len(prompt)]


def test_no_beginning_of_sequence_is_added_twice(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.add_bos_token = True
    tokenizer.chat_template = "{{ bos_token }}" + R1_STYLE
    ids = encode_example(tokenizer, "q", "r", "a").input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(ids[0]) == 1


def test_an_eos_that_the_template_does_not_write_is_refused(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    tokenizer.eos_token = "<|endoftext|>"
    with pytest.raises(DataError, match=r"<\|im_end\|>.*eos_token is '<\|endoftext\|>'"):
        end_of_turn(tokenizer)


def test_eos_is_trusted_where_the_template_shows_no_assistant_turn(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] != 'user' %}{{ raise_exception('no') }}{% endif %}"
        "{{ m['content'] }}{% endfor %}"
    )
    assert end_of_turn(tokenizer) == "<|im_end|>"


def test_a_tokenizer_without_eos_or_template_is_refused(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    tokenizer.chat_template = None
    with pytest.raises(DataError, match="no chat template"):
        render_prompt(tokenizer, "q")
    tokenizer.eos_token = None
    with pytest.raises(DataError, match="no eos_token"):
        end_of_turn(tokenizer)
