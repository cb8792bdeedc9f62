"""The objects of a JSON file one by one, whatever the size of the file.

In: a file that holds a list of objects, objects one after another, or one object that holds
a list of them. Out: each of them. Only one value and what was read ahead of it are
held: at most `LONGEST_VALUE` characters. Not here: what the objects mean, JSONL (whose lines
are read alone, so that a broken one spoils no other).
"""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from cuvee.errors import DataError

CHUNK = 1 << 20
"""Bytes read at once."""

LONGEST_VALUE = 1 << 28
"""Characters of one value; a longer one is no row of a data set."""

_SPACE = " \t\n\r"


class _Text:
    """A window on the text of a file; what stands before `at` has been read."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        """Read nothing yet."""
        self.path = path
        self.file = file
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.text = ""
        self.at = 0
        self.line = 1
        """The line on which `text` begins, from 1."""

    def more(self) -> bool:
        """Forget what was read, and hold at least twice as much; False at the end."""
        self.line += self.text.count("\n", 0, self.at)
        self.text, self.at = self.text[self.at :], 0
        raw = self.file.read(max(CHUNK, len(self.text)))
        try:
            self.text += self.decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            before = self.text.count("\n") + error.object.count(b"\n", 0, error.start)
            raise DataError(
                f"{self.path}, line {self.line + before}: not UTF-8 ({error.reason}); "
                "convert the file to UTF-8"
            ) from error
        return bool(raw)

    def peek(self) -> str:
        """Return the next character that is no white space, or nothing at the end."""
        while True:
            while self.at < len(self.text):
                if self.text[self.at] not in _SPACE:
                    return self.text[self.at]
                self.at += 1
            if not self.more():
                return ""

    def value(self) -> Any:
        """Return the value that begins here. Raises DataError with its line."""
        while True:
            try:
                value, self.at = _DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                if len(self.text) - self.at < LONGEST_VALUE and self.more():
                    continue
                raise self.broken(error.msg, at=error.pos) from error
            except (ValueError, RecursionError) as error:  # a number of 5,000 digits; nesting
                raise self.broken(str(error), at=self.at) from error
            return value

    def broken(self, why: str, *, at: int) -> DataError:
        """Return the error of text that is not JSON, with the line of `text[at]`."""
        line = self.line + self.text.count("\n", 0, at)
        return DataError(f"{self.path}, line {line}: not JSON: {why}")


_DECODER = json.JSONDecoder()


def stream(path: Path, file: IO[bytes]) -> Iterator[Any]:
    """Yield each value of a list, of values that follow one another, or of a lone object's list.

    Raises DataError naming the file, and the line of what is not JSON; also for a lone object
    that holds no list or several.
    """
    text = _Text(path, file)
    if text.peek() == "[":
        text.at += 1
        yield from _elements(text)
        return
    first = text.value() if text.peek() else None
    if isinstance(first, dict) and not text.peek():
        yield from _held_list(path, first)
        return
    if first is not None:
        yield first
    while text.peek():
        yield text.value()


def _held_list(path: Path, data: dict[str, Any]) -> list[Any]:
    lists = [name for name, value in data.items() if isinstance(value, list)]
    if len(lists) != 1:
        raise DataError(
            f"{path}: wanted a list of objects, or an object that holds one list; "
            f"this object holds lists under {lists}"
        )
    return list(data[lists[0]])


def _elements(text: _Text) -> Iterator[Any]:
    following = text.peek() != "]"
    while following:
        text.peek()
        yield text.value()
        following = text.peek() == ","
        text.at += following
    if text.peek() != "]":
        raise text.broken("wanted a comma or the end of the list", at=text.at)
    text.at += 1
    if text.peek():
        raise text.broken("extra data after the list", at=text.at)
