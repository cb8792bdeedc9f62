"""Prompts of a known number of tokens, each a new one, for the server at hand.

A server with `/tokenize` (llama.cpp, vLLM and their like) gets token ids, so that a prompt
has exactly the tokens asked for, no cache has seen it, and the answer's length can be forced.
Any other gets a chat message of common words, as many as two short trials say that are needed:
what was really sent is the server's count. Not here: asking (`asking`).
"""

import dataclasses
import random
from collections.abc import Callable
from typing import Any, Literal

import aiohttp

from cuvee.errors import EngineError
from cuvee.serve.bench.asking import Answer, Place, ask

TEXT = (
    "The river had been low since spring, and the miller counted every turn of the wheel. "
    "Twelve sacks in the morning, nine before dusk; at that rate 147 would take a week. "
    "def turns(sacks, rate=12): return [n for n in range(sacks) if n % rate == 0]  "
    "His daughter drew the valley on the wall: the bridge, two mills, the road to the sea. "
    "Nobody asked why $x^2 + y^2 = z^2$ stood beside it, or who had taught her that."
)
"""Prose, numbers, code and mathematics: where token ids are drawn from."""
WORDS = """time year people way day man thing woman life child world school state family student
group country problem hand part place case week company system program question work government
number night point home water room mother area money story fact month lot right study book eye
job word business issue side kind head house service friend father power hour game line""".split()
"""Common words: one token each for most tokenizers."""
TASK = "Write a very long story in which each of these words appears, in this order."
FEW_WORDS, MORE_WORDS = 8, 72
"""Of the two trials that say how many tokens a word has."""


Kind = Literal["llama.cpp", "vllm", "chat"]

FORCED: dict[Kind, dict[str, Any]] = {
    "llama.cpp": {"temperature": 0, "ignore_eos": True, "cache_prompt": False},
    "vllm": {"temperature": 0, "ignore_eos": True},
    "chat": {},
}
"""What else a request says, by what the server understands: the answer is as long as asked for,
and nothing is reused. vLLM's cache of prefixes stays on, and never meets a prompt again."""


@dataclasses.dataclass(frozen=True)
class Server:
    """A server that was met."""

    place: Place
    kind: Kind
    """What it understands; `vllm` and `llama.cpp` mean their like too."""
    prompt: Callable[[int, random.Random], dict[str, Any]]
    """Tokens (>= 1) and a source of chance -> the fields of a request that hold the prompt."""

    @property
    def forces_length(self) -> bool:
        """Return whether an answer can be made as long as asked for."""
        return self.kind != "chat"

    async def ask(self, prompt: int, tokens: int, rng: random.Random) -> Answer:
        """Ask for `tokens` tokens after a new prompt of `prompt` tokens."""
        body = {**self.prompt(prompt, rng), "max_tokens": tokens, **FORCED[self.kind]}
        if self.kind == "vllm":
            body["min_tokens"] = tokens
        path = "completions" if self.forces_length else "chat/completions"
        return await ask(self.place, path, body)


async def meet(place: Place, rng: random.Random) -> Server:
    """Find out what a server understands, by a few short requests.

    Raises EngineError where it has no `/tokenize` and does not answer a short chat either.
    """
    found = await _tokenized(place)
    if found is None:
        return Server(place, "chat", await _words(place, rng))
    ids = found["tokens"]
    kind: Kind = "vllm" if "max_model_len" in found else "llama.cpp"
    return Server(place, kind, lambda tokens, rng: {"prompt": rng.choices(ids, k=tokens)})


async def _tokenized(place: Place) -> dict[str, Any] | None:
    """Return what `/tokenize` says of TEXT, or None where there is none."""
    url = place.url.removesuffix("/v1") + "/tokenize"
    body = {"model": place.model, "content": TEXT, "prompt": TEXT, "add_special_tokens": False}
    try:
        async with place.session.post(url, json=body, allow_redirects=False) as response:
            said = await response.json(content_type=None) if response.status == 200 else None
    except (TimeoutError, aiohttp.ClientError, ValueError):
        return None
    ids = said.get("tokens") if isinstance(said, dict) else None
    usable = isinstance(ids, list) and ids and all(type(i) is int for i in ids)
    return said if usable else None


async def _words(
    place: Place, rng: random.Random
) -> Callable[[int, random.Random], dict[str, Any]]:
    """Return what makes chat messages of so many tokens, by two trials of known words."""
    few = await _counted(place, FEW_WORDS, rng)
    more = await _counted(place, MORE_WORDS, rng)
    each = max((more - few) / (MORE_WORDS - FEW_WORDS), 0.1)
    frame = few - each * FEW_WORDS

    def prompt(tokens: int, rng: random.Random) -> dict[str, Any]:
        return _message(max(round((tokens - frame) / each), 1), rng)

    return prompt


async def _counted(place: Place, words: int, rng: random.Random) -> int:
    """Return how many tokens the server counts in a message of so many words."""
    answer = await ask(place, "chat/completions", {**_message(words, rng), "max_tokens": 8})
    if answer.failed:
        raise EngineError(f"{place.url}: no answer to a short question: {answer.failed}")
    return answer.prompt_tokens


def _message(words: int, rng: random.Random) -> dict[str, Any]:
    text = " ".join(rng.choices(WORDS, k=words))
    return {
        "messages": [{"role": "user", "content": f"{text}.\n{TASK}"}]
    }  # new from the first word
