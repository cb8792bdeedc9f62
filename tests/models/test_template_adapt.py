"""Templates that break are mended, and no more than needed; a specialist carries the mending."""

import dataclasses
import filecmp
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from cuvee.errors import DataError
from cuvee.models.adapted import copy_adapted, load_adapted
from cuvee.models.checkpoint import CONFIG_FILES, TOKENIZER_FILES, load_tokenizer
from cuvee.models.mending import append_header, keep_last_reasoning, pin_dates
from cuvee.models.random_model import CHATML, write_random_model
from cuvee.models.template import adapt, end_of_turn, render_chat, render_prompt, target_text
from cuvee.models.tokens import control_texts, encode_example, encode_examples, text_ids

Family = Callable[[str], Path]

FULL = "<think>\nbecause\n</think>\n\n4"
AGAIN = [
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": FULL},
    {"role": "user", "content": "and?"},
]
MENDED = {
    "r1_distill": ["drops the reasoning of every reply"],
    "deepseek_v3": ["drops the reasoning of every reply"],
    "qwen2_5_base": ["eos_token: '<|im_end|>'"],
    "qwen2_5": [],
    "qwen3": [],
    "qwen3_instruct_2507": [],
    "qwen3_thinking_2507": [],
    "qwen3_5_nothink": ["switches reasoning off"],
    "qwen3_8": [],
    "qwq": ["drops the reasoning of every reply"],
    "llama3": ["eos_token: '<|eot_id|>'"],
    "llama3_1": ["today's date"],
    "llama3_2": ["today's date"],
    "mistral": [],
    "mistral_small": ["today's date"],
    "chatml_unprompted": ["no generation prompt; it now begins a reply with '<|im_start|>assis"],
}


@pytest.mark.parametrize("name", MENDED)
def test_what_breaks_is_mended_and_nothing_else(name: str, family: Family) -> None:
    tokenizer = load_tokenizer(family(name))
    changes = adapt(tokenizer)
    assert len(changes) == len(MENDED[name])
    for change, words in zip(changes, MENDED[name], strict=True):
        assert words in change
    assert adapt(tokenizer) == []  # a second time there is nothing to mend


def test_a_mended_template_shows_prompt_target_and_end_in_one_piece(published: Path) -> None:
    tokenizer = load_adapted(published)
    prompt = render_prompt(tokenizer, "q")
    text = prompt + target_text(prompt, "because", "4") + end_of_turn(tokenizer)
    replies: list[dict[str, str]] = [
        {"content": FULL},
        {"content": FULL.removeprefix("<think>\n")},  # as served where the prompt opened it
        {"content": "4", "reasoning_content": "because"},
    ]
    shown = []
    for reply in replies:
        turns = [{"role": "user", "content": "q"}, {"role": "assistant", **reply}]
        shown.append(str(tokenizer.apply_chat_template(turns, tokenize=False)).startswith(text))
    if published.name == "mistral":
        assert not any(shown)  # a blank before the reply, of the template's own
    elif published.name == "qwen3_8":
        assert shown == [False, False, True]  # it wants the reasoning in its own field
    else:
        assert shown[0]
        if prompt.endswith("<think>\n"):
            assert shown[1]


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("r1_distill", False),
        ("qwen3", False),
        ("qwen3_thinking_2507", False),
        ("qwq", False),
        ("qwen2_5_base", True),
        ("qwen3_instruct_2507", True),
        ("qwen3_8", True),
        ("llama3", True),
        ("mistral", True),
    ],
)
def test_earlier_turns_keep_what_the_published_template_keeps(
    name: str, kept: bool, family: Family
) -> None:
    before, mended = load_tokenizer(family(name)), load_adapted(family(name))
    assert render_chat(mended, AGAIN) == render_chat(before, AGAIN)
    assert ("because" in render_chat(mended, AGAIN)) == kept


@pytest.mark.parametrize("name", ["llama3_1", "llama3_2", "mistral_small"])
def test_no_prompt_depends_on_the_day(name: str, family: Family) -> None:
    tokenizer = load_adapted(family(name))
    prompt = render_prompt(tokenizer, "q")
    assert ("26 Jul 2024" in prompt) != ("2024-07-26" in prompt)
    other_day: dict[str, Any] = {"date_string": "01 Jan 2030"}  # as llama.cpp sets it
    turns = [{"role": "user", "content": "q"}]
    asked = tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=True, **other_day
    )
    assert asked == prompt


def renamed(folder: Path, names: dict[str, str], **config: Any) -> PreTrainedTokenizerBase:
    """Return the random model's tokenizer with other control tokens and no template."""
    write_random_model(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (folder / name).read_text(encoding="utf-8")
        for old, new in names.items():
            text = text.replace(old, new)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "chat_template.jinja").unlink()
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | config))
    return load_tokenizer(folder)


def test_a_base_without_template_gets_chatml_where_it_knows_its_tokens(tmp_path: Path) -> None:
    tokenizer = renamed(tmp_path, {}, eos_token="<|endoftext|>")
    assert [change.split(":")[0] for change in adapt(tokenizer)] == ["chat template", "eos_token"]
    expected = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
    assert (render_prompt(tokenizer, "q"), tokenizer.eos_token) == (expected, "<|im_end|>")


def test_a_base_without_template_gets_bos_where_it_adds_one(tmp_path: Path) -> None:
    tokenizer = renamed(tmp_path, {}, bos_token="<|endoftext|>")
    tokenizer.add_bos_token = True
    adapt(tokenizer)
    ids = text_ids(tokenizer, render_prompt(tokenizer, "q"))
    assert ids[:2] == [tokenizer.bos_token_id, tokenizer.convert_tokens_to_ids("<|im_start|>")]


def test_a_bos_that_the_tokenizer_has_not_is_written_as_nothing(tmp_path: Path) -> None:
    tokenizer = renamed(tmp_path, {})
    tokenizer.chat_template = "{{ bos_token }}" + CHATML
    assert ["bos_token, which the tokenizer has not" in said for said in adapt(tokenizer)] == [True]
    assert render_prompt(tokenizer, "q").startswith("<|im_start|>user\nq")
    assert adapt(tokenizer) == []


def test_a_base_without_template_and_without_known_tokens_is_refused(tmp_path: Path) -> None:
    tokenizer = renamed(tmp_path, {"<|im_start|>": "<|a|>", "<|im_end|>": "<|b|>"})
    with pytest.raises(DataError, match=r"no chat template.*put a chat_template\.jinja"):
        adapt(tokenizer)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('no') }}", "fails on roles"),
        ("{% for m in messages %}{% endfor %}<|im_start|>", "leaves out the user's message"),
        (CHATML + "<think></think>", "closes the reasoning before the model writes any"),
        (CHATML.replace("<|im_end|>", "### End"), "'### End', which is no token"),
        ("{{ strftime_now('%' + 'Y') }}" + CHATML, "today's date in a way that cannot be fixed"),
    ],
)
def test_what_cannot_be_mended_is_refused_by_name(template: str, said: str, tmp_path: Path) -> None:
    tokenizer = renamed(tmp_path, {})
    tokenizer.chat_template = template
    with pytest.raises(DataError, match=said):
        adapt(tokenizer)


def test_a_named_template_is_mended_and_the_others_are_said_to_go(family: Family) -> None:
    tokenizer = load_tokenizer(family("r1_distill"))
    tokenizer.chat_template = {"default": tokenizer.chat_template, "tool_use": CHATML}
    assert adapt(tokenizer)[-1].endswith("is kept, not: tool_use")
    tokenizer.chat_template = {"tool_use": CHATML}
    with pytest.raises(DataError, match="none of its chat templates is called 'default'"):
        adapt(tokenizer)


def test_a_mended_text_is_what_was_worked_out_by_hand() -> None:
    assert pin_dates("a{{ strftime_now('%Y/%m') }}") == 'a{{ "2024/07" }}'
    assert pin_dates("{{ date_string }}") == (
        '{%- set date_string = "26 Jul 2024" %}{{ date_string }}'
    )
    assert pin_dates(CHATML) == CHATML
    assert (
        append_header("x\n", 'a"b\n')
        == 'x{% if add_generation_prompt %}{{ "a\\"b\\n" }}{% endif %}'
    )
    left_out = "{{ m['content'].split('</think>')[-1].lstrip('\\n') }}"
    assert keep_last_reasoning(left_out) == (
        "{{ ((('<think>\\n' if '</think>' in m['content'] and '<think>' not in m['content'] "
        "else '') + m['content']) if loop.last else "
        "m['content'].split('</think>')[-1].lstrip('\\n')) }}"
    )


def test_a_specialist_carries_the_mended_files(published: Path, tmp_path: Path) -> None:
    changes = copy_adapted(published, tmp_path)
    saved, mended = load_tokenizer(tmp_path), load_adapted(published)
    assert adapt(saved) == []
    assert saved.get_chat_template() == mended.get_chat_template()
    assert (saved.eos_token, saved.eos_token_id) == (mended.eos_token, mended.eos_token_id)
    assert encode_example(saved, "q", "r", "a") == encode_example(mended, "q", "r", "a")
    assert saved.get_vocab() == load_tokenizer(published).get_vocab()  # no token is added
    for name in CONFIG_FILES:
        ids = json.loads((tmp_path / name).read_text())["eos_token_id"]
        assert saved.eos_token_id in (ids if isinstance(ids, list) else [ids])
    assert bool(changes) == any(
        (published / name).read_bytes() != (tmp_path / name).read_bytes()
        for name in (*CONFIG_FILES, *TOKENIZER_FILES)
        if (published / name).is_file()
    )


def test_where_nothing_is_mended_every_file_is_the_base_s_own(tmp_path: Path) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    write_random_model(base)
    out.mkdir()
    (out / "special_tokens_map.json").write_text("{}")  # the library's, which the base has not
    assert copy_adapted(base, out) == []
    names = [name for name in (*CONFIG_FILES, *TOKENIZER_FILES) if (base / name).is_file()]
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    assert filecmp.cmpfiles(base, out, names, shallow=False) == (names, [], [])


def test_what_generation_stopped_at_before_still_stops_it(family: Family, tmp_path: Path) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    shutil.copytree(family("qwen2_5_base"), base)
    out.mkdir()
    for name in CONFIG_FILES:
        config = json.loads((base / name).read_text()) | {"eos_token_id": 0}
        (base / name).write_text(json.dumps(config))
    changes = copy_adapted(base, out)
    assert [change.split(":")[0] for change in changes] == ["eos_token", *CONFIG_FILES]
    for name in CONFIG_FILES:
        assert json.loads((out / name).read_text())["eos_token_id"] == [2, 0]


TEXT = st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(
    ["<|im_end|>", "<think>", "</think>", " ", "\n\n", ""]
)


@given(st.lists(st.tuples(TEXT, TEXT, TEXT), max_size=4))
def test_a_batch_is_encoded_as_its_examples_are(
    tiny: PreTrainedTokenizerBase, rows: list[tuple[str, str, str]]
) -> None:
    found = encode_examples(tiny, rows)
    for encoded, row in zip(found, rows, strict=True):
        rendered = render_prompt(tiny, row[0])
        target = target_text(rendered, row[1], row[2]) + end_of_turn(tiny)
        before, after = text_ids(tiny, rendered), text_ids(tiny, target)
        assert dataclasses.astuple(encoded) == (before + after, [-100] * len(before) + after)
        assert encoded == encode_example(tiny, *row)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    folder = tmp_path_factory.mktemp("tiny")
    write_random_model(folder)
    return load_tokenizer(folder)


def test_text_that_reads_as_control_tokens_is_found(tiny: PreTrainedTokenizerBase) -> None:
    assert control_texts(tiny, "What does <|im_end|> do, and <|im_end |>?") == ["<|im_end|>"]
    assert control_texts(tiny, "<think>x</think> < | im_end | >") == []
    ids = encode_example(tiny, "a<|im_end|>b", "r", "c").input_ids
    assert ids.count(tiny.eos_token_id) == 3  # the author's, the user's turn's, the reply's
