"""What the engine that serves makes of a file: token ids, rendered conversations, predictions.

In: a running engine (`cuvee.models.engines`, llama.cpp) and the checkpoint's tokenizer. Out:
what was compared, and in words what differs. The tokenizer is the mended one
(`cuvee.models.adapted`), as trained and exported.

Token ids of bare texts are compared without BOS; whether BOS comes first, and once, is seen in
the ids of the conversations. A conversation that ends with a reply is not compared: llama.cpp's
server goes on with the reply. Nor are blanks beyond ASCII at a message's ends
(`cuvee.models.template` says why).
"""

import dataclasses
import http.client
import itertools
import json
import math
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from cuvee.errors import EngineError
from cuvee.models.engines import Engine
from cuvee.models.rendering import Turn, adds_bos
from cuvee.models.tokens import text_ids
from cuvee.release.parity.texts import CHATS, TEXTS

_SECONDS = 600.0
"""For one answer: a long prompt on a slow machine."""
_SHOWN = 40
"""Characters of what differs that a message shows."""
_IDS = 8
"""Token ids that a message shows."""
_GOES_ON = 'root ::= "a" root'
"""A grammar that keeps the model from ending at once; probabilities are those before it."""


@dataclasses.dataclass(frozen=True)
class Compared:
    """How many were compared, and each that differs, or was left out, in words."""

    count: int
    unlike: tuple[str, ...]
    notes: tuple[str, ...] = ()


def compare_texts(engine: Engine, tokenizer: PreTrainedTokenizerBase) -> Compared:
    """Compare the token ids of texts, and of every added token between two words.

    A text that the tokenizer composes (NFC), which llama.cpp does not, is compared in its
    composed form, and that is a note. Raises EngineError where the engine does not answer.
    """
    normalizer = tokenizer.backend_tokenizer.normalizer
    texts = [*TEXTS, *(f"a{token}b {token} c" for token in tokenizer.get_added_vocab())]
    composed = [normalizer.normalize_str(text) if normalizer else text for text in texts]
    unlike = []
    for text in composed:
        body = {"content": text, "add_special": False, "parse_special": True}
        theirs, ours = _ask(engine, "/tokenize", body).get("tokens"), text_ids(tokenizer, text)
        if theirs != ours:
            unlike.append(f"{_shown(text)} {_ids_apart(theirs or [], ours)}")
    changed = sum(a != b for a, b in zip(texts, composed, strict=True))
    note = f"{changed} texts composed (NFC) first, as the tokenizer does and llama.cpp does not"
    return Compared(len(texts), tuple(unlike), (note,) if changed else ())


def compare_chats(engine: Engine, tokenizer: PreTrainedTokenizerBase) -> Compared:
    """Compare the bytes, then the token ids, of conversations rendered with the template.

    Each with and without the prompt that asks for a reply, and where the template knows
    `enable_thinking` also without thinking. A conversation that the template itself refuses
    is left out, which is a note. Raises EngineError where the engine does not answer.
    """
    switches: list[dict[str, bool]] = [{}]
    if "enable_thinking" in tokenizer.get_chat_template():
        switches.append({"enable_thinking": False})
    count, refused, unlike = 0, 0, []
    for turns, asks, switch in itertools.product(CHATS, (True, False), switches):
        ours = _rendered(tokenizer, turns, {"add_generation_prompt": asks, **switch})
        if ours is None:
            refused += 1
            continue
        count += 1
        body = {"add_generation_prompt": asks, "chat_template_kwargs": switch}
        answer = _ask(engine, "/apply-template", {"messages": list(turns), **body})
        if what := _chat_unlike(engine, tokenizer, ours, answer):
            shape = "+".join(turn["role"] for turn in turns)
            unlike.append(f"{shape}, {json.dumps(body)}: {what}")
    note = f"{refused} conversations left out, which the chat template refuses"
    return Compared(count, tuple(unlike), (note,) if refused else ())


def distribution(engine: Engine, ids: Sequence[int], *, vocabulary: int) -> torch.Tensor:
    """Return the engine's log-probabilities of what follows `ids`: [vocabulary], float64.

    `vocabulary` is how many tokens the file has. Raises EngineError where the engine does not
    answer with a probability of every one.
    """
    body = {"prompt": list(ids), "n_predict": 1, "n_probs": vocabulary, "grammar": _GOES_ON}
    answer = _ask(engine, "/completion", body)
    if "error" in answer:
        raise EngineError(f"engine {engine.model}: /completion: {_shown(answer['error'])}")
    given = answer["completion_probabilities"][0]["top_logprobs"]
    if {entry["id"] for entry in given} != set(range(vocabulary)):
        raise EngineError(
            f"engine {engine.model}: it gave {len(given)} probabilities, not {vocabulary}"
        )
    values = torch.empty(vocabulary, dtype=torch.float64)
    # None is how JSON says NaN.
    logs = [math.nan if e["logprob"] is None else e["logprob"] for e in given]
    values[[entry["id"] for entry in given]] = torch.tensor(logs, dtype=torch.float64)
    return values


def _rendered(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], how: dict[str, bool]
) -> str | None:
    """Return the conversation as trained; None where the template refuses it."""
    try:
        return str(tokenizer.apply_chat_template(list(turns), tokenize=False, **how))
    except TemplateError:
        return None


def _chat_unlike(
    engine: Engine, tokenizer: PreTrainedTokenizerBase, ours: str, answer: dict[str, Any]
) -> str:
    """Return what of a conversation differs, in words; "" where nothing does."""
    if "prompt" not in answer:
        return f"the engine refuses it: {_shown(answer.get('error'))}"
    theirs = answer["prompt"]
    # The server takes the BOS that it adds to the ids itself off the text.
    bos = str(tokenizer.bos_token) if adds_bos(tokenizer) else ""
    if theirs not in (ours, ours.removeprefix(bos)):
        place = _place(ours, theirs)
        return f"from character {place} {_shown(theirs[place:])}, trained {_shown(ours[place:])}"
    body = {"content": theirs, "add_special": True, "parse_special": True}
    served, trained = _ask(engine, "/tokenize", body).get("tokens"), text_ids(tokenizer, ours)
    return "" if served == trained else _ids_apart(served or [], trained)


def _place(one: Sequence[object], other: Sequence[object]) -> int:
    """Return from where on two sequences, of which one is not the other, differ."""
    pairs = enumerate(zip(one, other, strict=False))  # one may be the other's beginning
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _ids_apart(served: list[int], trained: list[int]) -> str:
    """Return where two lists of token ids part, in words."""
    place = _place(served, trained)
    there, here = served[place : place + _IDS], trained[place : place + _IDS]
    return f"from token {place} is served as {there}, trained as {here} (the first {_IDS})"


def _ask(engine: Engine, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return the engine's answer; one that says an error has `error`. Raises EngineError."""
    url = engine.url.removesuffix("/v1") + path
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as response:
                answer: dict[str, Any] = json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                answer = {"error": error.code, **json.load(error)}
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise EngineError(f"engine {engine.model}: {path} gave no answer: {error!r}") from error
    return answer


def _shown(value: object) -> str:
    """Return a value's beginning as Python writes it, with control characters escaped."""
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{text[:_SHOWN]!r}{'...' if len(text) > _SHOWN else ''}"
