"""Texts of models and published files made safe to show: nothing hidden, nothing steering.

Any text in; text out in which every character that a terminal would obey (escape sequences,
carriage returns, bidi overrides) or that nobody sees (zero-width) is written as its number.
Not here: HTML (the report escapes itself) and Markdown (`cuvee.lineage.data_card`).
"""

import unicodedata

FOLDED_LINES = 6
FOLDED_CHARACTERS = 480


def visible(text: str) -> str:
    r"""Return text that a terminal shows as it is: control characters become ``\x1b``.

    Kept are printable characters, newlines, tabs and the spaces of Unicode. Escaped are the
    categories Cc, Cf, Cs, Co, Cn, Zl and Zp: a soft hyphen and the joiners of emoji too.
    """
    if text.isprintable():
        return text
    return "".join(c if _is_plain(c) else _number(c) for c in text)


def one_line(text: str) -> str:
    """Return visible text on one line: any run of whitespace is one space."""
    return visible(" ".join(text.split()))


def fold(text: str, *, full: bool) -> str:
    """Return visible text; unless `full`, its beginning, and how much was left out."""
    if full:
        return visible(text)
    begun = "\n".join(text.split("\n", FOLDED_LINES)[:FOLDED_LINES])[:FOLDED_CHARACTERS]
    left = len(text) - len(begun)
    if not left:
        return visible(text)
    return f"{visible(begun)} … ({left:,} more characters; --full shows them)"


def _is_plain(character: str) -> bool:
    if character.isprintable() or character in "\n\t":
        return True
    return unicodedata.category(character) == "Zs"


def _number(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
