"""Trained = served: transformers and llama.cpp make the same bytes of the same conversation.

Each family's template is mended, saved with a specialist, exported and served. Compared are
the text of `/apply-template` with `render_chat`'s, the ids of both, and where generation
ends. What differs by the engines' nature has tests of its own at the end: blanks that only
Python takes for blanks, a system message that the template refuses, a conversation that ends
with a reply. And BOS: llama.cpp's server takes off the text the one that it adds to the ids.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import xllamacpp
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from cuvee.errors import DataError
from cuvee.models.adapted import copy_adapted, load_adapted
from cuvee.models.checkpoint import load_tokenizer, weight_files
from cuvee.models.engines import Engine
from cuvee.models.gguf_write import write_gguf
from cuvee.models.llama_server import parameters
from cuvee.models.rendering import adds_bos
from cuvee.models.template import render_chat, render_prompt
from cuvee.models.tokens import text_ids

Post = Callable[[Engine, str, dict[str, Any]], Any]
Turns = list[dict[str, str]]

FULL = "<think>\nbecause\n</think>\n\n4"
TEXTS = [
    "What is 2+2?",
    " \n both ends \t\n\n ",
    "",
    "证明：若 a² + b² = c²，则…… e\u0301 é \u200b\ufeff",
    "🍷👩‍👩‍👧 “quotes” \\n \\boxed{\\frac{1}{2}} $x_1^{2}$",
    "def f(xs):\r\n    return [x**2 for x in xs if x >= 10]  # don't\n",
    "{{ messages }} {% raw %} {# no #} '\"\\ </s> &amp; <b>",
    "end<|im_end|>\n<|im_start|>assistant\n<think>\nfaked<|eot_id|><｜end▁of▁sentence｜>",
    "<think>the user thinks</think> aloud <think>",
    "<tool_call>{}</tool_call> [INST]",
]
TRIMMING = ("llama3", "llama3_1", "llama3_2", "qwen3_5_nothink", "qwen3_8")
"""Families whose templates take blanks off the ends of messages."""
REFUSING = ("mistral",)
"""Families whose templates refuse a system message."""


def question(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def reply(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


SEVERAL: list[Turns] = [
    [question("q"), reply(FULL), question("and?")],
    [question("q"), reply(FULL.removeprefix("<think>\n")), question("and?")],
    [question(" q "), reply(" plain \n"), question("证明 🍷"), reply(FULL), question(" x ")],
    [question("<|im_end|>"), reply("<|im_end|></think>"), question("<think>")],
]
WITHOUT_SYSTEM = [*([question(text)] for text in TEXTS), *SEVERAL]
WITH_SYSTEM = [
    [system(text), *turns]
    for text in ("Be brief.", " \n 简短 🍷 <|im_end|> \n")
    for turns in (WITHOUT_SYSTEM[1], WITHOUT_SYSTEM[7], SEVERAL[0])
]


@dataclasses.dataclass(frozen=True)
class Served:
    """A family's specialist, as it is trained and as llama.cpp serves it."""

    family: str
    tokenizer: PreTrainedTokenizerBase
    """The base's, mended: what training renders with."""
    saved: PreTrainedTokenizerBase
    """The specialist's, as its folder has it."""
    engine: Engine
    whole: Engine
    """The same without prefilled replies (`--no-prefill-assistant`)."""

    def conversations(self) -> list[Turns]:
        """Return those that the template does not refuse."""
        return [*WITHOUT_SYSTEM, *([] if self.family in REFUSING else WITH_SYSTEM)]

    def text(self, post: Post, turns: Turns) -> str:
        """Return what llama.cpp makes of a conversation, with the BOS it adds later."""
        said = post(self.engine, "/apply-template", {"messages": turns})["prompt"]
        return f"{self.tokenizer.bos_token}{said}" if adds_bos(self.tokenizer) else said


@pytest.fixture(scope="module")
def served(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve each family's specialist in turn."""
    folder = tmp_path_factory.mktemp(published.name)
    copy_adapted(published, folder)
    for file in weight_files(published):
        (folder / file.name).symlink_to(file)
    write_gguf(folder, folder / "m.gguf", quantization="F32")
    config = {"model": str(folder / "m.gguf"), "name": "m", "slots": 1, "context": 512}
    as_run, unfilled = (parameters(config | {"threads": 1}) for _ in range(2))
    unfilled.prefill_assistant = False
    servers = [xllamacpp.Server(p) for p in (as_run, unfilled)]
    engines = [Engine(f"{server.listening_address}/v1", "m", 0) for server in servers]
    yield Served(published.name, load_adapted(published), load_tokenizer(folder), *engines)


def test_both_engines_read_the_same_bytes_and_tokens(served: Served, post: Post) -> None:
    for turns in served.conversations():
        ours, theirs = render_chat(served.tokenizer, turns), served.text(post, turns)
        assert theirs.encode() == ours.encode(), turns
        assert render_chat(served.saved, turns) == ours
        body = {"content": theirs, "add_special": False, "parse_special": True}
        ids = post(served.engine, "/tokenize", body)["tokens"]
        assert ids == text_ids(served.tokenizer, ours), turns


def test_a_chat_request_has_the_tokens_of_training(served: Served, post: Post) -> None:
    for text in TEXTS:
        body = {"messages": [question(text)], "max_tokens": 1}
        usage = post(served.engine, "/v1/chat/completions", body)["usage"]
        ids = text_ids(served.tokenizer, render_prompt(served.tokenizer, text))
        assert usage["prompt_tokens"] == len(ids), text


def test_a_whole_conversation_reads_alike(served: Served, post: Post) -> None:
    turns = [question("q"), reply("plain"), question("证明"), reply(FULL)]
    body = {"messages": turns, "add_generation_prompt": False}
    theirs = post(served.whole, "/apply-template", body)["prompt"]
    ours = str(served.tokenizer.apply_chat_template(turns, tokenize=False))
    assert ours.removeprefix(served.tokenizer.bos_token or "") == theirs.removeprefix(
        served.tokenizer.bos_token or ""
    )


def test_generation_ends_with_the_token_that_training_ends_a_turn_with(
    served: Served, post: Post
) -> None:
    body = {"prompt": "x", "n_predict": 2, "logit_bias": [[served.saved.eos_token_id, 100]]}
    found = post(served.engine, "/completion", body)
    assert (found["stop_type"], found["content"]) == ("eos", "")


ANY = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60)
BLANK = " \t\n\v\f\r"
"""What llama.cpp takes for blanks."""


def test_any_text_is_read_alike(served: Served, post: Post) -> None:
    @settings(max_examples=15, suppress_health_check=list(HealthCheck))
    @given(ANY, ANY, ANY)
    def check(said: str, asked: str, again: str) -> None:
        if served.family in TRIMMING:
            assume(all(text.strip() == text.strip(BLANK) for text in (said, asked, again)))
        turns = [question(asked), reply(FULL), question(again)]
        if served.family not in REFUSING:
            turns = [system(said), *turns]
        assert served.text(post, turns) == render_chat(served.tokenizer, turns)

    check()


def test_blanks_at_the_ends_that_only_unicode_knows_differ_where_the_template_trims(
    served: Served, post: Post
) -> None:
    for blank in (chr(number) for number in range(0x3001)):
        if not blank.isspace() or blank in BLANK:
            continue
        turns = [question(f"{blank}q{blank}")]
        ours, theirs = render_chat(served.tokenizer, turns), served.text(post, turns)
        assert (ours == theirs) == (served.family not in TRIMMING)
        assert f"{blank}q{blank}" in theirs


def test_a_refused_system_message_is_put_before_the_question_by_llama_cpp(
    served: Served, post: Post
) -> None:
    turns = [system("s"), question("q")]
    if served.family in REFUSING:
        with pytest.raises(DataError, match="Only user and assistant roles"):
            render_chat(served.tokenizer, turns)
        assert served.text(post, turns) == "<s>[INST] s\nq[/INST]"
    else:
        assert served.text(post, turns) == render_chat(served.tokenizer, turns)


def test_llama_cpp_goes_on_with_a_conversation_that_ends_with_a_reply(
    served: Served, post: Post
) -> None:
    turns = [question("q"), reply("so far")]
    theirs = served.text(post, turns)
    assert "so far" not in theirs
    assert "so far" in render_chat(served.tokenizer, turns)
    assert render_prompt(served.tokenizer, "q").startswith(theirs)
