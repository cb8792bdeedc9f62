"""An answer that comes in pieces, parted into reasoning and answer as it comes.

Pieces of a server's text in, (kind, text) out as soon as it is sure what they are: a tag may
be cut in two between pieces. Reasoning that a server sends in a field of its own never comes
here. Blanks around the tags are left. Not here: showing it (`cuvee.serve.screen`).
"""

import dataclasses
from typing import Literal

from cuvee.serve.facts import CLOSE, OPEN

Kind = Literal["reasoning", "answer", "was_reasoning"]
"""`was_reasoning`, without a text, says that all before was reasoning: a closing tag came, and
no opening one (the server's template had written it)."""
Part = tuple[Kind, str]


@dataclasses.dataclass
class Splitter:
    """How far an answer's text has come."""

    opened: bool
    """Whether the prompt ended with the opening tag, so that the text begins as reasoning."""
    _state: Literal["start", "unopened", "reasoning", "answer"] = "start"
    _held: str = ""
    """Text that may be the beginning of a tag."""

    def __post_init__(self) -> None:
        if self.opened:
            self._state = "reasoning"

    def take(self, text: str) -> list[Part]:
        """Return what a further piece makes sure; texts are not empty."""
        self._held += text
        if self._state == "start":
            self._begin()
        parts = self._up_to_close() if self._state in ("unopened", "reasoning") else []
        if self._state == "answer":
            parts.append(("answer", self._held))
            self._held = ""
        return [(kind, said) for kind, said in parts if said or kind == "was_reasoning"]

    def end(self) -> list[Part]:
        """Return what was held back: the answer is over."""
        held, self._held = self._held, ""
        return [("reasoning" if self._state == "reasoning" else "answer", held)] if held else []

    def _begin(self) -> None:
        """Find out whether the text begins with the opening tag, where enough of it is there."""
        bare = self._held.lstrip()
        if bare.startswith(OPEN):
            self._state, self._held = "reasoning", bare.removeprefix(OPEN)
        elif not OPEN.startswith(bare):
            self._state = "unopened"

    def _up_to_close(self) -> list[Part]:
        kind: Kind = "reasoning" if self._state == "reasoning" else "answer"
        before, closed, after = self._held.partition(CLOSE)
        if not closed:
            sure = len(before) - _beginning(before)
            self._held = before[sure:]
            return [(kind, before[:sure])]
        self._state, self._held = "answer", after
        parts: list[Part] = [(kind, before)]
        return parts if kind == "reasoning" else [*parts, ("was_reasoning", "")]


def _beginning(text: str) -> int:
    """Return how many characters at the end of a text may begin the closing tag."""
    sizes = range(min(len(CLOSE) - 1, len(text)), 0, -1)
    return next((size for size in sizes if CLOSE.startswith(text[-size:])), 0)
