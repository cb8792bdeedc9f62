"""The text on which a file's predictions are compared with its checkpoint's.

In: a file, answers of a run (given by the caller), or `shipped.txt`, written for this: prose,
maths in LaTeX, Python and Chinese. Out: a `Text`. Not here: its tokens.
"""

import dataclasses
from pathlib import Path

from cuvee.errors import RecipeError


@dataclasses.dataclass(frozen=True)
class Text:
    """A text and what it is called in the report."""

    name: str
    """In words: `cuvee's own text`, `answers to math500`, a file's name."""
    content: str


def shipped_text() -> Text:
    """Return the text that cuvee ships, of some 700 tokens."""
    file = Path(__file__).with_name("shipped.txt")
    return Text(name="cuvee's own text", content=file.read_text(encoding="utf-8"))


def read_text(file: Path) -> Text:
    """Return a file's text. Raises RecipeError where it cannot be read or is not UTF-8."""
    try:
        # As bytes: `read_text` would turn CRLF into LF.
        content = file.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"release.parity.text {file}: not a UTF-8 text: {error}") from error
    return Text(name=file.name, content=content)
