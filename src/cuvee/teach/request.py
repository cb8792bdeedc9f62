"""What is asked: a model that can be asked, a question to it, and the key of the two.

Pure, but for `api_key`, which reads the environment. The key is the hash of all that decides
the answer (identity, messages, sampling, seed, sample); address, name, speed, prices and
streaming are no part of it. `stop` strings are never sent: they would fire within the
reasoning. Not here: sending (`cuvee.teach.line`), the ledger.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any, Protocol

from cuvee.errors import RecipeError
from cuvee.recipe import Prices, Sampling
from cuvee.records import Message, content_hash, dumps
from cuvee.teach.ledger import Cost

TEMPLATE_TOKENS = 64
"""Tokens a chat template may add to the messages: roles, and a system message of its own."""
MILLION = 1_000_000


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A model that can be asked."""

    name: str
    """The teacher's name, or `base`, a specialist's domain, `merged`; `Trace.model`."""
    url: str
    """Base URL of the OpenAI-style API, as a rule ending in `/v1`."""
    model: str
    """The model's name on that server."""
    identity: str
    """Part of the ledger's key: changes whenever the answers could change."""
    key_env: str | None = None
    """Environment variable that holds the API key."""
    concurrency: int = 16
    """Requests in flight at most."""
    timeout: float = 600.0
    """Seconds for one try; of a stream: without a word of the answer."""
    retries: int = 5
    """Tries after the first."""
    system: str | None = None
    """System message."""
    prices: Prices | None = None
    stream: bool = False
    """Take the answer as it is written."""
    deadline: float | None = None
    """Seconds for a request with all its tries, from its first sending."""


@dataclasses.dataclass(frozen=True)
class Request:
    """One question to one model, once."""

    problem_id: str
    domain: str
    sample: int
    prompt: str
    """The user message."""
    seed: int
    """Of the sampling; see `request_seed`."""


class Requests(Protocol):
    """Requests that can be gone through twice, the same both times: a list, or a file's rows."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Request]: ...


@dataclasses.dataclass(frozen=True)
class Question:
    """A request as it is sent and booked."""

    key: str
    content: str
    """Canonical JSON of what the key is the hash of."""
    body: bytes
    """JSON, as it is posted."""
    reserved: Cost
    """What it costs at most."""


def request_seed(seed: int, problem_id: str, sample: int) -> int:
    """Return the sampling seed of a request, in [0, 2^31), whatever the order of asking."""
    return int(content_hash(seed, problem_id, sample), 16) % 2**31


def api_key(endpoint: Endpoint) -> str | None:
    """Return the endpoint's API key from the environment; None where it needs none.

    Raises RecipeError naming the variable where it is not set, or holds no key.
    """
    if endpoint.key_env is None:
        return None
    key = os.environ.get(endpoint.key_env, "").strip()
    if not key:
        raise RecipeError(
            f"{endpoint.name}: the environment variable {endpoint.key_env} (key_env) is not set; "
            f"export {endpoint.key_env}=... and run again"
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise RecipeError(
            f"{endpoint.name}: the environment variable {endpoint.key_env} (key_env) holds more "
            "than an API key: blanks, line breaks or characters that are not ASCII"
        )
    return key


def content_of(endpoint: Endpoint, request: Request, sampling: Sampling) -> dict[str, Any]:
    """Return all that decides the answer, as JSON values."""
    messages: list[Message] = [{"role": "user", "content": request.prompt}]
    if endpoint.system is not None:
        messages.insert(0, {"role": "system", "content": endpoint.system})
    return {
        "identity": endpoint.identity,
        "messages": messages,
        "sampling": {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
        },
        "seed": request.seed,
        "sample": request.sample,
    }


def key_of(content: str) -> str:
    """Return the ledger's key of canonical JSON: `content_hash` of what it holds."""
    # The hash is of a list of one; to write the JSON once and not twice is why this stands here.
    return hashlib.sha256(f"[{content}]".encode("utf-8", "surrogatepass")).hexdigest()[:16]


def request_key(endpoint: Endpoint, request: Request, sampling: Sampling) -> str:
    """Return the ledger's key of a request."""
    return key_of(dumps(content_of(endpoint, request, sampling)))


def question(endpoint: Endpoint, request: Request, sampling: Sampling) -> Question:
    """Return a request as it is sent to this endpoint, and booked."""
    values = content_of(endpoint, request, sampling)
    content = dumps(values)
    body = {"model": endpoint.model, "messages": values["messages"], **values["sampling"]}
    body |= {"seed": request.seed, "n": 1}
    if endpoint.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    reserved = cost_of(
        endpoint.prices,
        prompt_tokens=most_tokens(values["messages"]),
        completion_tokens=sampling.max_tokens,
    )
    return Question(key_of(content), content, json.dumps(body).encode(), reserved)


def most_tokens(messages: list[Message]) -> int:
    """Return how many tokens messages have at most.

    No tokenizer in use makes more tokens than the text has bytes of UTF-8; the template
    adds some of its own.
    """
    texts = (message["content"] for message in messages)
    return TEMPLATE_TOKENS + sum(len(text.encode("utf-8", "replace")) for text in texts)


def cost_of(prices: Prices | None, *, prompt_tokens: int, completion_tokens: int) -> Cost:
    """Return the cost of so many tokens; without prices they cost nothing."""
    usd = 0.0
    if prices is not None:
        usd = (prompt_tokens * prices.input + completion_tokens * prices.output) / MILLION
    return Cost(prompt_tokens, completion_tokens, usd)
