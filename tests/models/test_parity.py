"""What llama.cpp serves is what torch computes: logits, tokens, template, text."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import xllamacpp
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from cuvee.models.checkpoint import load_tokenizer, resolve
from cuvee.models.engines import Engine, serve
from cuvee.models.gguf_write import write_gguf
from cuvee.models.llama_server import parameters
from cuvee.models.random_model import Architecture
from cuvee.models.template import render_prompt
from cuvee.models.tokens import text_ids
from cuvee.recipe import Serve

Checkpoint = Callable[[Architecture], Path]
Post = Callable[[Engine, str, dict[str, Any]], Any]

TEXTS = [
    "What is 12 + 345?  And 6,7?\n\n\tThen?",
    "证明：若 a² + b² = c²，则……",
    "def f(xs):\n    return [x**2 for x in xs if x >= 10]  # don't\r\n",
    "🍷👩‍👩‍👧 naïve café — “quotes” I'll we've THEY'RE",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\nso<|endoftext|>",
    "   leading,   trailing   \n \n  ",
    "\\boxed{\\frac{1}{2}} $$x_1^{2}$$",
]
REAL = os.environ.get("CUVEE_TEST_GGUF", "")
"""A real model's .gguf file; the tests of real weights are skipped without."""


def widest_difference(model: Any, engine: Engine, post: Post, ids: list[int]) -> float:
    """Return the largest difference of log-probability among the engine's 20 likeliest."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -1].double()
    expected = torch.log_softmax(logits, dim=-1)
    # The grammar keeps the model from ending at once; the probabilities are those before it.
    body = {"prompt": ids, "n_predict": 1, "n_probs": 20, "grammar": 'root ::= "a" root'}
    served = post(engine, "/completion", body)["completion_probabilities"][0]["top_logprobs"]
    assert len(served) == 20
    return max(abs(float(t["logprob"]) - float(expected[t["id"]])) for t in served)


def assert_same_tokens(tokenizer: PreTrainedTokenizerBase, engine: Engine, post: Post) -> None:
    for text in TEXTS:
        body = {"content": text, "add_special": False, "parse_special": True}
        assert post(engine, "/tokenize", body)["tokens"] == text_ids(tokenizer, text), text


def assert_same_prompt(tokenizer: PreTrainedTokenizerBase, engine: Engine, post: Post) -> None:
    for text in TEXTS:
        body = {"messages": [{"role": "user", "content": text}]}
        assert post(engine, "/apply-template", body)["prompt"] == render_prompt(tokenizer, text)


@contextmanager
def exact_engine(file: Path) -> Iterator[Engine]:
    """Serve a file with all arithmetic in float32, which by default attention's is not."""
    config = {"model": str(file), "name": "exact", "slots": 1, "context": 512, "threads": 2}
    p = parameters(config)
    p.cache_type_k = p.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    p.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(p)
    yield Engine(url=f"{server.listening_address}/v1", model="exact", pid=0)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_export_is_exact(
    architecture: Architecture, checkpoint: Checkpoint, post: Post, tmp_path: Path
) -> None:
    folder, file = checkpoint(architecture), tmp_path / "m.gguf"
    write_gguf(folder, file, quantization="F32")
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = load_tokenizer(folder)
    with exact_engine(file) as engine:
        for text in TEXTS:
            ids = text_ids(tokenizer, text)
            assert widest_difference(model, engine, post, ids) < 1e-4


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
@pytest.mark.parametrize(("quantization", "tolerance"), [("F32", 0.03), ("Q8_0", 0.5)])
def test_served_logits_are_those_of_torch(
    architecture: Architecture,
    quantization: str,
    tolerance: float,
    checkpoint: Checkpoint,
    small: Serve,
    post: Post,
    tmp_path: Path,
) -> None:
    folder, file = checkpoint(architecture), tmp_path / "m.gguf"
    write_gguf(folder, file, quantization=quantization)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = load_tokenizer(folder)
    with serve(small, str(file), name="m", folder=tmp_path) as engine:
        for text in TEXTS:
            ids = text_ids(tokenizer, text)
            assert widest_difference(model, engine, post, ids) < tolerance


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0},
        {"rope_type": "yarn"},
        {"rope_type": "linear"},
    ],
    ids=lambda scaling: scaling["rope_type"],
)
def test_scaled_positions_are_served_as_torch_computes_them(
    scaling: dict[str, Any], checkpoint: Checkpoint, post: Post, tmp_path: Path
) -> None:
    folder, file = tmp_path / "m", tmp_path / "m.gguf"
    shutil.copytree(checkpoint("llama"), folder)
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] = {
        "rope_theta": 10000.0,
        "factor": 8.0,
        "original_max_position_embeddings": 64,
        **scaling,
    }
    (folder / "config.json").write_text(json.dumps(config))
    write_gguf(folder, file, quantization="F32")
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    plain = AutoModelForCausalLM.from_pretrained(checkpoint("llama")).eval()
    ids = list(range(3, 253))
    with exact_engine(file) as engine:
        assert widest_difference(model, engine, post, ids) < 1e-4
        assert widest_difference(plain, engine, post, ids) > 0.1


def test_served_tokens_and_prompts_are_ours(
    checkpoint: Checkpoint, engine: Engine, post: Post
) -> None:
    tokenizer = load_tokenizer(checkpoint("llama"))
    assert_same_tokens(tokenizer, engine, post)
    assert_same_prompt(tokenizer, engine, post)


def test_a_chat_request_is_tokenised_as_in_training(
    checkpoint: Checkpoint, engine: Engine, post: Post
) -> None:
    tokenizer = load_tokenizer(checkpoint("llama"))
    for text in TEXTS:
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": 1}
        usage = post(engine, "/v1/chat/completions", body)["usage"]
        assert usage["prompt_tokens"] == len(text_ids(tokenizer, render_prompt(tokenizer, text)))


def test_a_template_that_writes_bos_gives_it_once(
    checkpoint: Checkpoint, small: Serve, post: Post, tmp_path: Path
) -> None:
    folder, file = tmp_path / "m", tmp_path / "m.gguf"
    tokenizer = load_tokenizer(checkpoint("llama"))
    shutil.copytree(checkpoint("llama"), folder)
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.add_bos_token = True
    tokenizer.chat_template = "{{ bos_token }}" + str(tokenizer.chat_template)
    tokenizer.save_pretrained(folder)
    write_gguf(folder, file, quantization="F32")
    tokenizer = load_tokenizer(folder)
    ids = text_ids(tokenizer, render_prompt(tokenizer, "hi"))
    assert ids.count(tokenizer.bos_token_id) == 1
    with serve(small, str(file), name="m", folder=tmp_path) as engine:
        messages = [{"role": "user", "content": "hi"}]
        prompt = post(engine, "/apply-template", {"messages": messages})["prompt"]
        served = post(engine, "/tokenize", {"content": prompt, "add_special": True})["tokens"]
        reply = post(engine, "/v1/chat/completions", {"messages": messages, "max_tokens": 1})
    assert served == ids
    assert reply["usage"]["prompt_tokens"] == len(ids)


@pytest.mark.parametrize(
    "text", ["<think>\na\n</think>\n\nb", "a</think>b", "<tool_call>{}</tool_call>", "<think>a"]
)
def test_reasoning_comes_through_untouched(text: str, engine: Engine, post: Post) -> None:
    body = {
        "messages": [{"role": "user", "content": "q"}],
        "max_tokens": 64,
        "grammar": f"root ::= {json.dumps(text)}",  # makes the model say exactly this
    }
    choice = post(engine, "/v1/chat/completions", body)["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": text}
    assert choice["finish_reason"] == "stop"


def test_answers_do_not_depend_on_what_was_asked_before(engine: Engine, post: Post) -> None:
    def ask(text: str) -> str:
        messages = [{"role": "user", "content": text}]
        body = {"messages": messages, "max_tokens": 32, "temperature": 0.8, "seed": 5}
        return str(post(engine, "/v1/chat/completions", body)["choices"][0]["message"]["content"])

    first = ask("one")
    ask("one and more")
    assert ask("one") == first


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="CUVEE_TEST_GGUF names no .gguf file of a real model")
def test_a_real_model_is_served_as_torch_computes_it(
    small: Serve, post: Post, tmp_path: Path
) -> None:
    folder = resolve(REAL, cache=tmp_path)
    tokenizer = load_tokenizer(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    for quantization, tolerance in [("F32", 0.03), ("Q8_0", 0.6)]:
        file = tmp_path / f"{quantization}.gguf"
        write_gguf(folder, file, quantization=quantization)
        with serve(small, str(file), name="m", folder=tmp_path) as engine:
            assert_same_tokens(tokenizer, engine, post)
            assert_same_prompt(tokenizer, engine, post)
            for text in TEXTS:
                ids = text_ids(tokenizer, text)
                assert widest_difference(model, engine, post, ids) < tolerance
    with serve(small, REAL, name="given", folder=tmp_path) as engine:
        assert_same_tokens(tokenizer, engine, post)  # the file itself, not our export
