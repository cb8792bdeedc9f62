"""Answers that come in pieces (server-sent events), put together as if they had come whole.

In: the lines of a `text/event-stream` of an OpenAI-style server, with `stream_options:
{include_usage: true}`. Out: the body of an unstreamed chat completion, so that nothing that
reads the ledger need know. Only choice 0 is kept. Not here: HTTP, time limits
(`cuvee.teach.exchange`), what the body means (`cuvee.teach.reply`).
"""

import dataclasses
import json
from typing import Any

from cuvee.records import dumps

TEXTS = ("content", "reasoning", "reasoning_content")
"""Texts of a message that come in pieces."""
KEPT = ("id", "created", "model", "system_fingerprint")
"""What every piece repeats, and the whole keeps."""


@dataclasses.dataclass
class Assembly:
    """A reply that is being put together."""

    texts: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    head: dict[str, Any] = dataclasses.field(default_factory=dict)
    finish_reason: str | None = None
    usage: Any = None
    error: str | None = None
    """JSON of an error that came in place of a piece."""
    ended: bool = False
    """Whether the server said that this is all."""
    characters: int = 0
    """Of all texts."""

    def take(self, line: bytes) -> bool:
        """Add a line of the stream; return whether it was a piece of the answer.

        Comments, which gateways send to keep a line open, and empty lines are none. A line
        that cannot be read becomes the `error`.
        """
        if not line.startswith(b"data:"):
            return False
        data = line[5:].strip()
        if data == b"[DONE]":
            self.ended = True
            return True
        try:
            self._add(json.loads(data))
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
            text = data[:80].decode("utf-8", "replace")
            self.error = json.dumps({"error": f"an unreadable piece of a stream: {text!r}"})
        return True

    def _add(self, piece: dict[str, Any]) -> None:
        if piece.get("error"):
            self.error = json.dumps(piece)
            return
        for name in KEPT:
            if piece.get(name) is not None:
                self.head[name] = piece[name]
        if piece.get("usage"):  # by itself in the last piece, or running in every one
            self.usage = piece["usage"]
        for choice in piece.get("choices") or ():
            if choice.get("index", 0) == 0:
                self._add_choice(choice)

    def _add_choice(self, choice: dict[str, Any]) -> None:
        delta = choice.get("delta") or {"content": choice.get("text")}  # a chat's, or a text's
        for name in TEXTS:
            if text := delta.get(name):
                self.texts.setdefault(name, []).append(text + "")
                self.characters += len(text)
        if choice.get("finish_reason"):
            self.finish_reason = str(choice["finish_reason"])

    @property
    def complete(self) -> bool:
        """Return whether the answer is all there: it finished, and no error came."""
        return self.finish_reason is not None and self.error is None

    def body(self) -> str:
        """Return what an unstreamed reply's body would be; JSON."""
        message: dict[str, Any] = {"role": "assistant", "content": ""}
        message |= {name: "".join(parts) for name, parts in self.texts.items()}
        choice = {"index": 0, "finish_reason": self.finish_reason, "message": message}
        whole = {**self.head, "object": "chat.completion", "choices": [choice]}
        return dumps(whole if self.usage is None else whole | {"usage": self.usage})
