"""An answer on a terminal: reasoning dim and apart, nothing that a model writes obeyed.

Parts of an answer in, text on a stream out. Control characters are written as their numbers
(`cuvee.lineage.text`), so that a model cannot move the cursor, set a title or hide text.
Where there is no terminal, there are no colours either. Not here: what is asked.
"""

import dataclasses
from typing import TextIO

from cuvee.lineage.text import visible
from cuvee.serve.chat import Answer
from cuvee.serve.thought import Kind

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


@dataclasses.dataclass
class Screen:
    """Where answers are shown, and what stands there."""

    out: TextIO
    colours: bool
    _kind: Kind | None = None
    _fresh: bool = True
    """Whether nothing but blanks came of the present part."""

    def show(self, kind: Kind, text: str) -> None:
        """Write a part of an answer at once."""
        if kind == "was_reasoning":
            self._note("(the text above was the reasoning)")
            return
        if kind != self._kind:
            self._turn(kind)
        text = text.lstrip() if self._fresh else text
        if not text:
            return
        self._fresh = False
        self._write(visible(text), dim=kind == "reasoning")

    def end(self, answer: Answer, *, note: str = "") -> None:
        """End an answer with a line of its counts."""
        if self._kind is not None:
            self.out.write("\n")
        self._write(f"[{summary(answer, note=note)}]\n", dim=True)
        self._kind, self._fresh = None, True

    def say(self, text: str) -> None:
        """Write a line of our own."""
        self._write(f"{visible(text)}\n", dim=True)

    def _turn(self, kind: Kind) -> None:
        if kind == "reasoning":
            self._write("thinking: ", dim=True)
        elif self._kind == "reasoning":
            self.out.write("\n\n")
        self._kind, self._fresh = kind, True

    def _note(self, text: str) -> None:
        self.out.write("\n")
        self._write(f"{text}\n\n", dim=True)
        self._kind, self._fresh = "answer", True

    def _write(self, text: str, *, dim: bool) -> None:
        self.out.write(f"{_DIM}{text}{_PLAIN}" if dim and self.colours else text)
        self.out.flush()


def summary(answer: Answer, *, note: str = "") -> str:
    """Return an answer's counts in words: tokens, speed, time to the first, how it ended."""
    counted = answer.completion_tokens
    tokens = f"{counted} tokens" if counted is not None else f"{answer.pieces} pieces"
    said = [note] if note else []
    said.append(tokens)
    if answer.tokens_per_second is not None:
        said.append(f"{answer.tokens_per_second:.1f}/s")
    if answer.first_seconds is not None:
        said.append(f"first after {answer.first_seconds:.2f} s")
    if answer.prompt_tokens is not None:
        said.append(f"prompt {answer.prompt_tokens}")
    if answer.finish_reason == "length":
        said.append("cut at the longest answer or the context")
    elif answer.finish_reason not in (None, "stop"):
        said.append(f"ended: {visible(answer.finish_reason)}")
    return ", ".join(said)
