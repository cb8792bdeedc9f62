"""A conversation with a served model: each answer streamed, parted, counted and remembered.

A server's URL and the user's messages in, parts of the answer as they come out. Earlier
answers are sent back without their reasoning, as reasoning models are made for. Not here: the
terminal (`cuvee.serve.talk`, `cuvee.serve.screen`); the ledger: nothing that is said is kept.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from typing import Any

import aiohttp

from cuvee.errors import TeacherError
from cuvee.serve.thought import Kind, Part, Splitter
from cuvee.teach.reply import read_error

SILENCE_SECONDS = 600.0
"""Between two pieces of an answer; the first waits for the whole prompt to be read."""
_CONNECT_SECONDS = 30.0
_LONGEST_LINE = 1 << 22
"""Bytes of one piece of a stream."""
Show = Callable[[Kind, str], None]


@dataclasses.dataclass(frozen=True)
class Server:
    """Where a model is asked, and how."""

    url: str
    """Ends in `/v1`."""
    model: str
    key: str | None = dataclasses.field(default=None, repr=False)
    opened: bool = False
    """Whether its text begins inside the reasoning."""
    sampling: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Keys of the request: `temperature`, `top_p`, `max_tokens`, ...; what is not given is the
    server's."""


@dataclasses.dataclass
class Answer:
    """An answer, as far as it has come."""

    reasoning: str = ""
    text: str = ""
    finish_reason: str | None = None
    """None: it was stopped, or the stream ended before it."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    """As the server counts; None where it did not say."""
    pieces: int = 0
    first_seconds: float | None = None
    """Until the first piece."""
    seconds: float = 0.0
    """From the first piece to the last."""

    def add(self, part: Part) -> None:
        """Add a part that was read."""
        kind, text = part
        if kind == "was_reasoning":
            self.reasoning, self.text = self.text, ""
        elif kind == "reasoning":
            self.reasoning += text
        else:
            self.text += text

    @property
    def tokens_per_second(self) -> float | None:
        """Return the speed after the first piece; None where too little came to measure one."""
        counted = self.completion_tokens or self.pieces
        return (counted - 1) / self.seconds if counted > 1 and self.seconds > 0 else None


@dataclasses.dataclass
class Conversation:
    """What was said so far."""

    system: str | None = None
    turns: list[dict[str, str]] = dataclasses.field(default_factory=list)

    def messages(self, question: str) -> list[dict[str, str]]:
        """Return the messages that ask a further question."""
        first = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*first, *self.turns, {"role": "user", "content": question}]

    def remember(self, question: str, answer: Answer) -> bool:
        """Keep a question and what was answered; return False where there was no answer."""
        text = answer.text.strip()
        if not text:
            return False
        self.turns.append({"role": "user", "content": question})
        self.turns.append({"role": "assistant", "content": text})
        return True


async def ask(
    server: Server, messages: list[dict[str, str]], *, answer: Answer, show: Show
) -> None:
    """Ask; `answer` grows and `show` is called with each part as it comes.

    Cancelling leaves in `answer` what had come. Raises TeacherError, naming the URL, where the
    server cannot be reached, refuses, breaks off or sends what is no answer.
    """
    body = {
        **server.sampling,
        "model": server.model,
        "messages": messages,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    headers = {} if server.key is None else {"Authorization": f"Bearer {server.key}"}
    limits = aiohttp.ClientTimeout(
        total=None, sock_connect=_CONNECT_SECONDS, sock_read=SILENCE_SECONDS
    )
    reading = _Reading(answer, Splitter(server.opened), show, time.monotonic())
    url = f"{server.url.rstrip('/')}/chat/completions"
    try:
        async with (
            aiohttp.ClientSession(timeout=limits, read_bufsize=_LONGEST_LINE) as session,
            session.post(url, json=body, headers=headers, allow_redirects=False) as response,
        ):
            if response.status != 200:
                said = _blotted(read_error((await response.text())[:_LONGEST_LINE]), server.key)
                raise TeacherError(f"{server.url}: HTTP {response.status}: {said}")
            if response.content_type == "text/event-stream":
                await _read_stream(response, reading)
            else:
                reading.take(json.loads(await response.text()))
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        what = str(error) or f"nothing for {SILENCE_SECONDS:g} s"
        raise TeacherError(f"{server.url}: {_blotted(what, server.key)}") from error
    finally:
        reading.end()


async def first_model(url: str, key: str | None) -> str:
    """Return the name of the one model that a server has.

    Raises TeacherError where it has several, or does not say.
    """
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    limits = aiohttp.ClientTimeout(total=_CONNECT_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=limits) as session,
            session.get(f"{url.rstrip('/')}/models", headers=headers) as response,
        ):
            if response.status != 200:
                raise TeacherError(f"{url}: HTTP {response.status} to /models; give --model-name")
            names = [str(entry["id"]) for entry in (await response.json())["data"]]
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError) as error:
        raise TeacherError(f"{url}: {_blotted(str(error), key) or 'no answer'}") from error
    if len(names) != 1:
        listed = ", ".join(names[:20])
        raise TeacherError(f"{url}: {len(names)} models; give --model-name: {listed}")
    return names[0]


@dataclasses.dataclass
class _Reading:
    """An answer that is being read."""

    answer: Answer
    splitter: Splitter
    show: Show
    begin: float

    def take(self, piece: Any) -> None:
        """Read a piece of a stream, or a whole completion; ValueError where it is neither."""
        try:
            self._take(piece)
        except (AttributeError, TypeError, KeyError) as error:
            raise ValueError(f"what was sent is no completion: {str(piece)[:80]}") from error

    def _take(self, piece: Any) -> None:
        if piece.get("error"):
            raise ValueError(read_error(json.dumps(piece)))
        usage = piece.get("usage") or {}
        for name in ("prompt_tokens", "completion_tokens"):
            if isinstance(count := usage.get(name), int):
                setattr(self.answer, name, count)
        for choice in (piece.get("choices") or [])[:1]:
            self._choice(choice)

    def _choice(self, choice: dict[str, Any]) -> None:
        said = choice.get("delta") or choice.get("message") or {}
        thought = said.get("reasoning") or said.get("reasoning_content") or ""
        text = said.get("content") or ""
        if choice.get("finish_reason"):
            self.answer.finish_reason = str(choice["finish_reason"])
        if not thought and not text:
            return
        if thought:  # the server parts them itself: its content begins as the answer
            self.splitter = Splitter(opened=False)
        self._clock()
        self._show([("reasoning", str(thought))] if thought else [])
        self._show(self.splitter.take(str(text)) if text else [])

    def end(self) -> None:
        """Show what was held back."""
        self._show(self.splitter.end())

    def _clock(self) -> None:
        now = time.monotonic()
        if self.answer.first_seconds is None:
            self.answer.first_seconds = now - self.begin
        self.answer.seconds = now - self.begin - self.answer.first_seconds
        self.answer.pieces += 1

    def _show(self, parts: list[Part]) -> None:
        for part in parts:
            self.answer.add(part)
            self.show(*part)


async def _read_stream(response: aiohttp.ClientResponse, reading: _Reading) -> None:
    async for line in response.content:  # ValueError where one is too long
        data = line.removeprefix(b"data:").strip()
        if not line.startswith(b"data:"):
            continue
        if data == b"[DONE]":
            return
        reading.take(json.loads(data))
    if reading.answer.finish_reason is None:
        raise ValueError("the stream ended before the answer did")


def _blotted(text: str, key: str | None) -> str:
    return text.replace(key, "[API key]") if key else text
