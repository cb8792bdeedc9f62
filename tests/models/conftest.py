"""Fixtures: random two-layer checkpoints of each architecture, and an engine for one."""

import json
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import trl
from safetensors.torch import load_file, save_file

from cuvee.models.checkpoint import load_tokenizer
from cuvee.models.engines import Engine, serve
from cuvee.models.gguf_write import write_gguf
from cuvee.models.random_model import Architecture, write_random_model
from cuvee.recipe import Serve

torch.set_num_threads(2)

SMALL = Serve(slots=2, context=512, threads=2, start_timeout=60)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Architecture], Path]:
    """Return the folder of a random model of an architecture, made once."""
    root = tmp_path_factory.mktemp("checkpoints")

    def folder(architecture: Architecture) -> Path:
        path = root / architecture
        if not path.is_dir():
            write_random_model(path, architecture=architecture)
        return path

    return folder


@pytest.fixture(scope="session")
def engine(
    checkpoint: Callable[[Architecture], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """Serve the random llama in float32."""
    folder = tmp_path_factory.mktemp("engine")
    file = folder / "llama.gguf"
    write_gguf(checkpoint("llama"), file, quantization="F32")
    with serve(SMALL, str(file), name="llama", folder=folder) as running:
        yield running


@pytest.fixture
def small() -> Serve:
    """Say how the tests serve."""
    return SMALL


@pytest.fixture
def post() -> Callable[[Engine, str, dict[str, Any]], Any]:
    """POST to the engine's root; return its JSON."""
    return _post


def _post(engine: Engine, path: str, body: dict[str, Any]) -> Any:
    url = engine.url.removesuffix("/v1") + path
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


CONTROL = [
    *("<｜User｜>", "<｜Assistant｜>", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|eot_id|>", "<s>", "</s>", "[INST]", "[/INST]"),
]
TRL = Path(trl.__file__).parent / "chat_templates"
"""TRL knows models by their published templates, so it has them to the byte."""
OURS = Path(__file__).parent / "templates"
DEEPSEEK = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>")
LLAMA = ("<|begin_of_text|>", "<|eot_id|>")
FAMILIES: dict[str, tuple[Path, str | None, str]] = {
    "r1_distill": (TRL / "deepseek_r1_distill.jinja", *DEEPSEEK),
    "deepseek_v3": (TRL / "deepseekv3.jinja", *DEEPSEEK),
    "qwen2_5_base": (TRL / "qwen2_5.jinja", None, "<|endoftext|>"),
    "qwen2_5": (TRL / "qwen2_5.jinja", None, "<|im_end|>"),
    "qwen3": (TRL / "qwen3.jinja", None, "<|im_end|>"),
    "qwen3_instruct_2507": (TRL / "qwen3_instruct_2507.jinja", None, "<|im_end|>"),
    "qwen3_thinking_2507": (OURS / "qwen3_thinking_2507.jinja", None, "<|im_end|>"),
    "qwen3_5_nothink": (TRL / "qwen3_5_nothink.jinja", None, "<|im_end|>"),
    "qwen3_8": (TRL / "qwen3_8.jinja", None, "<|im_end|>"),
    "qwq": (OURS / "qwq.jinja", None, "<|im_end|>"),
    "llama3": (TRL / "llama3.jinja", LLAMA[0], "<|end_of_text|>"),
    "llama3_1": (TRL / "llama3_1.jinja", *LLAMA),
    "llama3_2": (TRL / "llama3_2.jinja", *LLAMA),
    "mistral": (OURS / "mistral.jinja", "<s>", "</s>"),
    "mistral_small": (OURS / "mistral_small.jinja", "<s>", "</s>"),
    "chatml_unprompted": (OURS / "chatml_unprompted.jinja", None, "<|im_end|>"),
}
"""Name -> published template, BOS (which the tokenizer adds by itself) and eos_token."""


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a random llama with a family's template, whose vocabulary has all their tokens."""
    root = tmp_path_factory.mktemp("families")
    base = root / "base"
    write_random_model(base)
    tokenizer = load_tokenizer(base)
    tokenizer.add_tokens(CONTROL, special_tokens=True)
    weights = load_file(base / "model.safetensors")
    rows = weights["model.embed_tokens.weight"]
    more = torch.randn(len(tokenizer) - len(rows), rows.shape[1]) / 5
    weights["model.embed_tokens.weight"] = torch.cat([rows, more])
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"vocab_size": len(tokenizer)}))

    def folder(name: str) -> Path:
        path = root / name
        if not path.is_dir():
            template, bos, eos = FAMILIES[name]
            shutil.copytree(base, path)
            (path / "chat_template.jinja").unlink()
            named = load_tokenizer(base)
            named.add_tokens(CONTROL, special_tokens=True)
            named.chat_template = template.read_text(encoding="utf-8")
            named.eos_token, named.bos_token = eos, bos
            named.add_bos_token = bos is not None
            named.save_pretrained(path)
        return path

    return folder


@pytest.fixture(scope="module", params=FAMILIES)
def published(request: pytest.FixtureRequest, family: Callable[[str], Path]) -> Path:
    """Return each family's folder in turn, as published."""
    return family(request.param)
