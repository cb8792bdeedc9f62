"""Reading what an OpenAI-style server sent: a chat completion, or an error.

Pure functions of text. Reasoning stands in `message.reasoning` (vLLM), in
`message.reasoning_content` (DeepSeek, llama.cpp, older vLLM) or within the content, in
`<think>`. Not here: HTTP and retries (`cuvee.teach.exchange`).
"""

import dataclasses
import json
from typing import Any

from cuvee.verify.answers import split_reasoning

FINISH = {
    "stop": "stop",
    "eos": "stop",
    "end_turn": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
}
"""What servers call it -> what a trace calls it; any other word is kept as it is."""
MESSAGE_CHARACTERS = 300
"""How much of an error's text is kept."""
MOST_TOKENS = 1 << 31
"""A server that counts more tokens than this in one reply does not count."""
TOO_LONG = (
    "context length", "context_length", "context size", "context_size", "context window",
    "prompt is too long", "input is too long", "too many input tokens",
)  # fmt: skip
"""How servers say that prompt and `max_tokens` do not fit into the context."""
NO_MONEY = ("insufficient_quota", "insufficient balance", "billing_hard_limit")
"""How servers say, with 429 or 400, that the account is empty."""


class UnreadableReplyError(Exception):
    """The body is no chat completion; the message says why."""


@dataclasses.dataclass(frozen=True)
class Reply:
    """The parts of a chat completion that a trace keeps."""

    reasoning: str
    answer: str
    finish_reason: str
    """`stop`, `length`, or the server's own word (`content_filter`, `unknown`, ...)."""
    prompt_tokens: int | None
    completion_tokens: int | None
    fingerprint: str | None
    id: str | None
    """The server's own id of the completion."""


def read_reply(body: str) -> Reply:
    """Return the first choice of a chat completion.

    Raises UnreadableReplyError for anything else, an error sent with status 200 included.
    """
    data = _object(body)
    if data.get("error"):
        raise UnreadableReplyError(f"an error in place of an answer: {read_error(body)}")
    try:
        choice = data["choices"][0]
        message = choice["message"]
        content = _text(message, "content")
        thought = _text(message, "reasoning") or _text(message, "reasoning_content")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise UnreadableReplyError(f"no choices[0].message in the reply: {body[:80]!r}") from error
    reasoning, answer = (thought, content) if thought else split_reasoning(content)
    word = str(choice.get("finish_reason") or "unknown")
    usage = data.get("usage")
    fingerprint, name = data.get("system_fingerprint"), data.get("id")
    return Reply(
        reasoning,
        answer,
        FINISH.get(word, word),
        _count(usage, "prompt_tokens"),
        _count(usage, "completion_tokens"),
        fingerprint if isinstance(fingerprint, str) else None,
        name if isinstance(name, str) and name else None,
    )


def read_error(body: str) -> str:
    """Return the message in an error's body, on one line and shortened; never raises."""
    try:
        data: Any = json.loads(body)
    except (ValueError, RecursionError):
        data = None
    message: Any = body
    if isinstance(data, dict):
        inner = data.get("error", data)
        message = inner if isinstance(inner, str) else data.get("detail") or body
        if isinstance(inner, dict):
            message = inner.get("message") or body
    line = " ".join(str(message).split())
    return line[:MESSAGE_CHARACTERS] or "(no message)"


def is_too_long(body: str) -> bool:
    """Return whether an error says that the request does not fit into the model's context."""
    said = read_error(body).lower()
    return any(words in said or words in body[:MESSAGE_CHARACTERS].lower() for words in TOO_LONG)


def is_out_of_money(body: str) -> bool:
    """Return whether an error says that the account is empty."""
    said = body[: 4 * MESSAGE_CHARACTERS].lower()
    return any(words in said for words in NO_MONEY)


def _object(body: str) -> dict[str, Any]:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UnreadableReplyError(f"not JSON: {body[:80]!r}") from error
    if not isinstance(data, dict):
        raise UnreadableReplyError(f"not a JSON object: {body[:80]!r}")
    return data


def _text(message: dict[str, Any], key: str) -> str:
    """Return a text of a message; null (no content yet at `max_tokens`) is the empty text."""
    value = message.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UnreadableReplyError(f"message.{key} is no text: {str(value)[:80]!r}")
    return value


def _count(usage: Any, key: str) -> int | None:
    value = usage.get(key) if isinstance(usage, dict) else None
    counts = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST_TOKENS
    return value if counts else None
