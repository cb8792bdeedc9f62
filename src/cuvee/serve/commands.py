"""The commands that serve a released model, as text for its card.

Facts in, one command an engine out. Flags as in llama.cpp's tools/server/README.md, vLLM's
`serve` and Ollama's documentation; only cuvee's own and llama.cpp's server are run where
cuvee is tested. Not here: serving (`cuvee.serve.start`).
"""

import dataclasses
import json
import shlex
from typing import Any

from cuvee.serve.facts import ServingFacts

PORT = 8080


@dataclasses.dataclass(frozen=True)
class Command:
    """What to type, and what it is for."""

    title: str
    """`llama.cpp`, `vLLM`, ..."""
    text: str
    language: str = "bash"


@dataclasses.dataclass(frozen=True)
class Files:
    """What there is of a model to serve; for what is None no command is offered."""

    checkpoint: str | None = None
    """A folder or hub id."""
    gguf: str | None = None
    modelfile: str = "Modelfile"
    """Of `gguf`, for Ollama."""


def commands(
    facts: ServingFacts, files: Files, *, name: str, slots: int = 4, context: int | None = None
) -> tuple[Command, ...]:
    """Return the commands that serve a model and ask it, as its reader types them.

    `slots` are requests at once; `context` is in tokens a request, None: the model's own.
    """
    room = context or facts.context
    found = []
    if (gguf := files.gguf) is not None:
        found += [
            Command("llama.cpp", _llama(facts, gguf, name, slots=slots, context=room)),
            Command("Ollama", _ollama(name, files.modelfile)),
        ]
    if (folder := files.checkpoint) is not None:
        found.append(Command("vLLM", _vllm(facts, folder, name, slots=slots, context=room)))
    served = files.gguf or files.checkpoint
    if served is not None:
        own = f"cuvee serve {shlex.quote(served)} --slots {slots} --context {room} --port {PORT}"
        found.append(Command("cuvee", own))
    asked = curl(f"http://127.0.0.1:{PORT}/v1", name, facts=facts, token=None)
    return (*found, Command("One request", asked))


def notes(facts: ServingFacts) -> tuple[str, ...]:
    """Return what whoever serves the model should know, one sentence each."""
    sampling = facts.sampling
    found = [
        f"Recommended sampling: temperature {sampling.temperature:g}, top_p {sampling.top_p:g} "
        f"({sampling.source})."
    ]
    if facts.opens_reasoning:
        found.append(
            "The chat template begins the reply with `<think>` itself: a server that does not "
            "read reasoning apart returns no opening tag, only the closing `</think>`."
        )
    found.append(f"A reply ends with {', '.join(f'`{word}`' for word in facts.stop)}.")
    return tuple(found)


def curl(url: str, name: str, *, facts: ServingFacts, token: str | None) -> str:
    """Return a request for one answer to the API at `url`, which ends in `/v1`."""
    lines = [f"curl {url}/chat/completions"]
    if token is not None:
        lines.append(f"-H {shlex.quote(f'Authorization: Bearer {token}')}")
    lines.append("-H 'Content-Type: application/json'")
    body = json.dumps(_request(facts, name), ensure_ascii=False)
    return " \\\n  ".join([*lines, f"-d {shlex.quote(body)}"])


def _request(facts: ServingFacts, name: str) -> dict[str, Any]:
    message = {"role": "user", "content": "What is 17 * 23?"}
    return {"model": name, "messages": [message], **facts.sampling.request}


def _llama(facts: ServingFacts, gguf: str, name: str, *, slots: int, context: int) -> str:
    sampling = facts.sampling
    lines = [
        f"llama-server -m {shlex.quote(gguf)} --alias {shlex.quote(name)} --jinja",
        f"-c {slots * context} -np {slots} --port {PORT}",
        f"--temp {sampling.temperature:g} --top-p {sampling.top_p:g}",
    ]
    if sampling.top_k is not None:
        lines[-1] += f" --top-k {sampling.top_k:g}"
    if sampling.min_p is not None:
        lines[-1] += f" --min-p {sampling.min_p:g}"
    if facts.thinks:  # then reasoning is in message.reasoning_content
        lines.append("--reasoning-format deepseek")
    return " \\\n  ".join(lines)


def _vllm(facts: ServingFacts, checkpoint: str, name: str, *, slots: int, context: int) -> str:
    lines = [
        f"vllm serve {shlex.quote(checkpoint)} --served-model-name {shlex.quote(name)}",
        f"--max-model-len {context} --max-num-seqs {slots} --port {PORT}",
    ]
    if (parser := reasoning_parser(facts)) is not None:
        lines.append(f"--reasoning-parser {parser}")
    # Over what generation_config.json says, for requests that say nothing.
    given = json.dumps(facts.sampling.request)
    lines.append(f"--override-generation-config {shlex.quote(given)}")
    return " \\\n  ".join(lines)


def reasoning_parser(facts: ServingFacts) -> str | None:
    """Return vLLM's parser that reads the reasoning apart; None: none that would start.

    Its parsers want `<think>` and `</think>` as single tokens of the vocabulary, and take a
    reply without a closing tag for reasoning: only for templates that speak of them.
    """
    if not facts.think_tokens or not (facts.opens_reasoning or "think>" in facts.template):
        return None
    return "qwen3" if facts.architecture.startswith("qwen3") else "deepseek_r1"


def _ollama(name: str, modelfile: str) -> str:
    quoted = shlex.quote(name.lower())
    return f"ollama create {quoted} -f {shlex.quote(modelfile)}\nollama run {quoted}"
