r"""Answers compared by exact normal forms: the fast path before the symbolic engine.

Two `Stated` in; True (equal), False (different) or None (not known: ask the symbolic engine)
out. It says equal or different only where the engine would, which a differential test holds
over real data; it knows numbers, formulas without functions, lists, sets, tuples, intervals
and words. Microseconds a pair, and no process is started.
"""

import dataclasses
import re
from fractions import Fraction

from cuvee.verify.math import polynomial
from cuvee.verify.math.formula import read
from cuvee.verify.math.notation import UNITS, Stated
from cuvee.verify.math.polynomial import TooLargeError, Value

MAX_ITEMS = 50

_SPACES = re.compile(
    r"\\(?:[,;:!]|quad\b|qquad\b|left(?![a-z])|right(?![a-z])|displaystyle\b)|~|\\\s"
)
_GAPS = re.compile(r"(?<![0-9])\s++|\s++(?![0-9])")
_COMMANDS = re.compile(r"\\([dtc]frac|text(?:bf|it|rm|normal)|mathrm|mbox)(?![a-zA-Z])")
_TEXT = re.compile(r"\\(?:text|operatorname)\s*+\{([^{}]*+)\}")
_WORDS = re.compile(r"[^\W\d_]++(?:[ '-]++[^\W\d_]++){0,11}")
_SHORTEST_WORD = 4
"""Letters of a word that is none of `\\text`: fewer may be a product, `abc = cab`."""
_LETTER = re.compile(r"\(?([a-z])\)?", re.IGNORECASE)
_BASED = re.compile(r"([0-9a-zA-Z]{1,60})_(?:\{\s*+([0-9]{1,2})\s*+\}|([0-9]))")
_ASSIGNED = re.compile(r"\s*+([a-zA-Z](?:_(?:[0-9a-zA-Z]|\{[0-9a-zA-Z]{1,5}\}))?)\s*+=(?!=)")
_BRACKET = re.compile(r"\\.|[(){}\[\],;|]", re.DOTALL)
_MARGIN = Fraction(2, 10**6)
"""math-verify rounds decimals to 6 places: within this margin it decides."""


@dataclasses.dataclass(frozen=True)
class _Group:
    """Items between brackets; a bare list has none."""

    opening: str
    closing: str
    items: tuple[str, ...]

    @property
    def is_set(self) -> bool:
        return self.opening in ("", r"\{")


def equal(gold: Stated, answer: Stated) -> bool | None:
    """Say whether two answers are the same, or None where this module cannot tell."""
    if not gold.text or not answer.text:
        return None
    sizes = _sizes(gold, answer)
    if sizes is not None:
        return _scaled(gold.text, answer.text, sizes)
    if gold.percent != answer.percent:
        return _percent(gold, answer)
    if _squash(gold.text) == _squash(answer.text):
        return True
    for decide in (_by_words, _by_base, _by_value):
        verdict = decide(gold, answer)
        if verdict is not None:
            return verdict
    return None


def _squash(text: str) -> str:
    """Return a text without what LaTeX does not print; digits are never joined."""
    text = _COMMANDS.sub(lambda m: r"\frac" if "frac" in m[1] else r"\text", text)
    return _GAPS.sub("", _SPACES.sub(" ", text).strip())


def _sizes(gold: Stated, answer: Stated) -> tuple[Fraction, Fraction] | None:
    """Return the sizes of two units of one kind, where they differ."""
    if gold.unit is None or answer.unit is None:
        return None
    (kind_a, size_a), (kind_b, size_b) = UNITS[gold.unit], UNITS[answer.unit]
    return (size_a, size_b) if kind_a == kind_b and size_a != size_b else None


def _scaled(gold: str, answer: str, sizes: tuple[Fraction, Fraction]) -> bool | None:
    a, b = read(gold), read(answer)
    if a is None or b is None:
        return None
    scaled = [
        polynomial.multiply(v, polynomial.constant(s)) for v, s in zip((a, b), sizes, strict=True)
    ]
    return _same_value(*scaled)


def _percent(gold: Stated, answer: Stated) -> bool | None:
    r"""Compare `50\%` with `50` and `0.5`: it equals both."""
    with_sign, without = (gold, answer) if gold.percent else (answer, gold)
    a, b = read(with_sign.text), read(without.text)
    if a is None or b is None:
        return None
    hundredth = polynomial.multiply(a, polynomial.constant(Fraction(1, 100)))
    verdicts = [_same_value(a, b), _same_value(hundredth, b)]
    return True if True in verdicts else None if None in verdicts else False


def _by_words(gold: Stated, answer: Stated) -> bool | None:
    r"""Compare words (`\text{even}`, `Even`) and option letters (`(C)`, `C`)."""
    texts = [
        _TEXT.sub(r" \1 ", _COMMANDS.sub(r"\\text", s.text)).strip(" .\"'") for s in (gold, answer)
    ]
    letters = [_LETTER.fullmatch(text) for text in texts]
    if all(letters):
        a, b = (m[1] for m in letters if m)
        return True if a == b else False if a.lower() != b.lower() else None
    if not all(_WORDS.fullmatch(text) and len(text) < 200 for text in texts):
        return None
    a, b = (re.sub("[ '-]", "", text).lower() for text in texts)
    if a == b:
        return True
    words = gold.worded or answer.worded or min(len(a), len(b)) >= _SHORTEST_WORD
    return False if words or not (a + b).isascii() else None


def _by_base(gold: Stated, answer: Stated) -> bool | None:
    """Compare `1011_2`: same digits and base; a base that one side leaves out is not asked for."""
    a, b = (_BASED.fullmatch(_squash(s.text)) for s in (gold, answer))
    if a and b:
        bases = {m[2] or m[3] for m in (a, b)}
        return a[1].lstrip("0") == b[1].lstrip("0") and len(bases) == 1
    based = a or b
    plain = _squash((answer if a else gold).text)
    if based and based[1].isdigit() and plain.isascii() and plain.isdigit():
        return based[1].lstrip("0") == plain.lstrip("0")
    return None


def _by_value(gold: Stated, answer: Stated) -> bool | None:
    texts = _without_names(gold.text, answer.text)
    if texts is None:
        return None
    a, b = (_group(text) for text in texts)
    if a is None or b is None:
        return None
    if (
        len(a.items) == len(b.items) == 1
        and a.opening == b.opening == ""
        and r"\pm" not in "".join(texts)
    ):
        return _compare(a.items[0], b.items[0])
    if a.is_set and b.is_set:
        return _compare_sets(a, b)
    if (a.opening, a.closing) == (b.opening, b.closing) and a.items and b.items:
        return _compare_in_order(a, b)
    return None


def _without_names(gold: str, answer: str) -> tuple[str, str] | None:
    """Drop the name from `x = 5` where the other side has none or the same."""
    a, b = _ASSIGNED.match(gold), _ASSIGNED.match(answer)
    if a and b and a[1] != b[1]:
        return None
    gold, answer = gold[a.end() if a else 0 :], answer[b.end() if b else 0 :]
    return None if re.search("[=<>&]", gold + answer) else (gold, answer)


def _group(text: str) -> _Group | None:
    """Split a list, set, tuple or interval into its items; None where brackets do not match."""
    text = _SPACES.sub(" ", text).strip()
    items = _split(text)
    if items is None or len(items) > MAX_ITEMS or not all(items):
        return None
    if len(items) > 1:
        return _Group("", "", tuple(items))
    for opening, closings in (("(", ")]"), ("[", ")]"), (r"\{", (r"\}",))):
        for closing in closings:
            inside = text[len(opening) : -len(closing)]
            if text.startswith(opening) and text.endswith(closing):
                parts = _split(inside)
                if parts is not None and len(parts) > 1 and all(parts):
                    return _Group(opening, closing, tuple(parts))
    return None if r"\{" in text else _Group("", "", (text,))


def _split(text: str) -> list[str] | None:
    """Split at the commas and semicolons that stand in no bracket."""
    items, start, depth = [], 0, 0
    for token in _BRACKET.finditer(text):
        sign = token.group()
        if sign in ("(", "[", "{", r"\{"):
            depth += 1
        elif sign in (")", "]", "}", r"\}"):
            depth -= 1
        elif sign in (",", ";") and depth == 0:
            items.append(text[start : token.start()].strip())
            start = token.end()
        if depth < 0 or sign == "|":
            return None
    items.append(text[start:].strip())
    return items if depth == 0 else None


def _compare(a: str, b: str) -> bool | None:
    if _squash(a) == _squash(b):
        return True
    first, second = read(a), read(b)
    return None if first is None or second is None else _same_value(first, second)


def _compare_in_order(a: _Group, b: _Group) -> bool | None:
    if len(a.items) != len(b.items):
        return False if all(read(item) is not None for item in a.items + b.items) else None
    verdicts = [_compare(x, y) for x, y in zip(a.items, b.items, strict=True)]
    return False if False in verdicts else None if None in verdicts else True


def _compare_sets(a: _Group, b: _Group) -> bool | None:
    r"""Compare without order and repetition; `\pm` is two items."""
    first, second = _values(a.items), _values(b.items)
    if first is None or second is None:
        return None
    matches = [[_same_value(x, y) for y in second] for x in first]
    if any(verdict is None for row in matches for verdict in row):
        return None
    return all(any(row) for row in matches) and all(
        any(column) for column in zip(*matches, strict=True)
    )


def _values(items: tuple[str, ...]) -> list[Value] | None:
    values: list[Value] = []
    for item in items:
        signs = ("+", "-") if item.count(r"\pm") == 1 else ("",)
        for sign in signs:
            value = read(item.replace(r"\pm", sign) if sign else item)
            if value is None:
                return None
            values.append(value)
    return values


def _same_value(a: Value, b: Value) -> bool | None:
    try:
        if a.decimal or b.decimal:
            return _same_decimal(a, b)
        if any(polynomial.highest_power(v, "i") > 1 for v in (a, b)):
            return None
        if polynomial.same(a, b):
            return True
    except TooLargeError:
        return None
    names = polynomial.symbols(a) | polynomial.symbols(b)
    # `R` and `r` are one letter to math-verify and two to most authors.
    return None if len({n.lower() for n in names}) < len(names) else False


def _same_decimal(a: Value, b: Value) -> bool | None:
    """Compare where a decimal occurs: exactly, or clearly apart; None in between."""
    x, y = polynomial.rational(a), polynomial.rational(b)
    if x is not None and y is not None:
        return True if x == y else False if abs(x - y) > _MARGIN else None
    p, q = polynomial.approximate(a), polynomial.approximate(b)
    if p is not None and q is not None and abs(p - q) > 1e-4 * max(1.0, abs(p), abs(q)):
        return False
    return None
