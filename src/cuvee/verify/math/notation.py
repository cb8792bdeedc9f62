r"""An answer as it was written, brought to one notation before anything reads it.

Full-width and Unicode signs become ASCII and LaTeX; the wrapping (`\boxed{}`, `$...$`), thousands
separators (`10{,}000`), the currency, a unit and a percent sign are taken off and noted. What
is left is one LaTeX text for the fast path and the symbolic engine alike. No mathematics is
done here, and text over `MAX_CHARS` is not to be given to it.
"""

import dataclasses
import re
from fractions import Fraction

MAX_CHARS = 10_000


@dataclasses.dataclass(frozen=True)
class Stated:
    """One side of a comparison."""

    text: str
    """LaTeX without wrapping, currency, unit and percent sign."""
    percent: bool = False
    unit: str | None = None
    """A unit of `UNITS`; None for none or one that is not known."""
    worded: bool = False
    r"""It was written as text (`\text{even}`), not as letters that may be variables."""


_METRES = {"mm": "1/1000", "cm": "1/100", "dm": "1/10", "m": "1", "km": "1000"}
_SECONDS = {"ms": "1/1000", "s": "1", "min": "60", "h": "3600", "day": "86400", "week": "604800"}
UNITS: dict[str, tuple[str, Fraction]] = {
    **{name: ("length", Fraction(size)) for name, size in _METRES.items()},
    **{name: ("time", Fraction(size)) for name, size in _SECONDS.items()},
    "inch": ("imperial length", Fraction(1)),
    "foot": ("imperial length", Fraction(12)),
    "yard": ("imperial length", Fraction(36)),
    "mile": ("imperial length", Fraction(63360)),
    "mg": ("mass", Fraction(1, 1000)),
    "g": ("mass", Fraction(1)),
    "kg": ("mass", Fraction(1000)),
    "ml": ("volume", Fraction(1, 1000)),
    "l": ("volume", Fraction(1)),
    "cent": ("money", Fraction(1, 100)),
    "dollar": ("money", Fraction(1)),
    "degree": ("angle", Fraction(1)),
    "am": ("half of the day", Fraction(1)),
    "pm": ("half of the day", Fraction(2)),
}
"""Unit: what it measures, and its size. Different sizes of one thing are told apart."""

_SPELLINGS = {
    "millimeter": "mm", "millimetre": "mm", "centimeter": "cm", "centimetre": "cm",
    "decimeter": "dm", "decimetre": "dm", "meter": "m", "metre": "m", "kilometer": "km",
    "kilometre": "km", "millisecond": "ms", "second": "s", "sec": "s", "minute": "min",
    "hour": "h", "hr": "h", "feet": "foot", "ft": "foot", "inches": "inch", "in": "inch",
    "yd": "yard", "mi": "mile", "milligram": "mg", "gram": "g", "kilogram": "kg",
    "milliliter": "ml", "millilitre": "ml", "liter": "l", "litre": "l", "cents": "cent",
    "deg": "degree", "usd": "dollar", "am": "am", "pm": "pm",
}  # fmt: skip

_ASCII = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_SIGNS = _ASCII | str.maketrans({
    "\u3000": " ", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u200b": "",
    "\u2212": "-", "\u2013": "-", "\u2010": "-", "\u2011": "-", "\u2043": "-",
    "×": r"\times ", "÷": r"\div ", "·": r"\cdot ", "⋅": r"\cdot ", "∗": "*",
    "π": r"\pi ", "∞": r"\infty ", "±": r"\pm ", "√": r"\sqrt ", "°": r"^\circ ",
    "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∪": r"\cup ",
    "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "θ": r"\theta ",
    "²": "^2", "³": "^3", "⁴": "^4", "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}",
    "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⅔": r"\frac{2}{3}", "％": r"\%",
    "、": ",", "。": ".", "“": '"', "”": '"', "’": "'", "￥": "¥",
})  # fmt: skip

_WRAPPINGS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"))
_BOX = re.compile(r"\\(?:boxed|fbox)\s*+\{")
_TEXT = r"\\(?:text(?:bf|it|rm|normal|sf)?|mathrm|mathbf|mathit|mathsf|operatorname|mbox|rm)"
_TEXT_COMMAND = re.compile(_TEXT + r"\s*+\{([^{}]*+)\}")
_UNIT_IN_TEXT = re.compile(
    _TEXT + r"\s*+\{([^{}]*+)\}\s*+(?:\^\s*+(?:\{\s*+[0-9]\s*+\}|[0-9]))?\s*+\Z"
)
_BARE_UNIT = re.compile(
    r"(?<=[0-9})])(?:\s++|(?=[a-z]{2}))([A-Za-z]{2,}+(?:[ .-]++[A-Za-z]++){0,5})\.?(?:\^[0-9])?\Z"
)
_AFTER_NUMBER = re.compile(r"[-+]?(?:[0-9,. /:]++|\\[dt]?frac\{[0-9]++\}\{[0-9]++\}|\{,\})++")
_PERCENT = re.compile(
    r"\s*+(?:\\?%|"
    + _TEXT
    + r"\s*+\{\s*+(?:percent|percentage|%|\\%)\s*+\}|\b(?:percent|pct)\b)\s*+\Z"
)
_DEGREE = re.compile(r"\s*+(?:\^\s*+(?:\\circ|\{\s*+\\circ\s*+\}|\\degree)|\\degree)\s*+\Z")
_CURRENCY = re.compile(
    r"\A(?P<minus>-?)\s*+(?P<sign>(?:US)?\\?\$|€|£|¥|\\pounds|\\euro|"
    + _TEXT
    + r"\{\s*+\\?\$\s*+\})\s*+"
)
_JOINED = (
    re.compile(r"\s*+\{\s*+,\s*+\}\s*+(?=[0-9]{3})"),
    re.compile(r",\s*+\\!\s*+(?=[0-9]{3})"),
)
_THOUSANDS = re.compile(
    r"[-+]?[1-9][0-9]{0,2}(?:(?:,[0-9]{3})++(?:\.[0-9]++)?|(?: [0-9]{3})++|(?:(?:\\,|~)[0-9]{3})++)"
)
_DECIMAL_COMMA = re.compile(r"[-+]?0,[0-9]{3,}+")
_MIXED = re.compile(r"(-?)\s*+([0-9]{1,9})\s++([0-9]{1,9})\s*+/\s*+([0-9]{1,9})")
_POWER_OF_TEN = re.compile(r"([-+]?[0-9]++(?:\.[0-9]++)?)[eE]([-+]?[0-9]{1,4})")
_REPEATING = re.compile(
    r"(-?)([0-9]{0,30})\.([0-9]{0,30})\\(?:overline|bar|dot)\s*+\{([0-9]{1,30})\}(?:\\ldots|\.\.\.)?"
)
_MAGNITUDES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_MAGNITUDE = re.compile(
    r"([-+]?[0-9][0-9,.]*+)\s*+(?:\\text\{)?\s*+(" + "|".join(_MAGNITUDES) + r")s?\s*+\}?", re.I
)
_WORDS_AROUND = re.compile(r"[a-z]+", re.I)
_ROOT_SIGN = re.compile(r"√\s*+(?:\(([^()]{1,200})\)|([0-9]++|[a-zA-Z]))")
_SIZES = re.compile(r"\\[bB]igg?[lrm]?(?![a-zA-Z])")
_SIGN_IN_BRACES = re.compile(r"(?<![\\a-zA-Z^_}])\{([-+])\}")
_LIST_IN_TEXT = re.compile(_TEXT + r"\s*+\{([^{},]*+,[^{}]*+)\}")
_SYNONYMS = (
    (">=", r"\ge "), ("<=", r"\le "), ("!=", r"\ne "), (r"\varnothing", r"\emptyset"),
    (r"\lbrace", r"\{"), (r"\rbrace", r"\}"), (r"\lbrack", "["), (r"\rbrack", "]"),
)  # fmt: skip
_ONE_LETTER_UNIT = re.compile(r"([0-9}])(?:\s|\\[,;: ]|~)++([msghlLNJWVAK])\Z")
_NO_UNIT = {"and", "or", "if", "for", "where", "when", "factorial", "pi", "sqrt", "to", "times"}


def tidy(text: str) -> Stated:
    """Return a text of at most `MAX_CHARS` in the one notation; empty text stays empty."""
    text = _ROOT_SIGN.sub(lambda m: rf"\sqrt{{{m[1] or m[2]}}}", text)
    # One space for many also keeps the patterns below linear.
    text = unwrap(" ".join(text.translate(_SIGNS).split()))
    for joined in _JOINED:
        text = joined.sub("", text)
    percent, unit = False, None
    currency = _CURRENCY.match(text)
    if currency:
        dollar = "$" in currency["sign"]
        text, unit = currency["minus"] + text[currency.end() :], "dollar" if dollar else None
    text = text.replace(r"\$", "").replace("$", "").strip()
    for written, meant in _SYNONYMS:
        text = text.replace(written, meant)
    text = _SIGN_IN_BRACES.sub(r"\1", _SIZES.sub("", text))
    text = _without_full_stop(text)
    if not re.search("[,;]", text) or _THOUSANDS.match(text):
        if (found := _PERCENT.search(text)) and found.start():
            text, percent = text[: found.start()].rstrip(), True
        elif (found := _DEGREE.search(text)) and found.start():
            text, unit = text[: found.start()].rstrip(), "degree"
    if not percent:
        text, unit = _without_unit(text, unit)
    worded = bool(_TEXT_COMMAND.search(text))
    if listed := _LIST_IN_TEXT.fullmatch(text):
        text = listed[1]
    return Stated(_number(text.strip()), percent, unit, worded)


def without_letter_unit(stated: Stated) -> Stated:
    """Take a unit of one letter off a number, where it can be no variable: `5 m`."""
    found = _ONE_LETTER_UNIT.search(stated.text)
    if found is None or not _AFTER_NUMBER.fullmatch(stated.text[: found.end(1)]):
        return stated
    return dataclasses.replace(stated, text=stated.text[: found.end(1)], unit=_unit(found[2]))


def unwrap(text: str) -> str:
    r"""Take off what surrounds an answer as a whole: `\boxed{}`, `$...$`, `**...**`."""
    for _ in range(6):  # layers; a fixed number keeps a hostile text linear
        before = text = text.strip()
        for left, right in _WRAPPINGS:
            inside = text[len(left) : -len(right)]
            if text.startswith(left) and text.endswith(right) and inside and left not in inside:
                text = inside.strip()
        box = _BOX.match(text)
        if box and _closes_at_end(text, box.end()):
            text = text[box.end() : -1]
        if text == before:
            break
    return text


def _closes_at_end(text: str, start: int) -> bool:
    """Whether the brace that stands open before `start` is closed by the last character."""
    depth = 1
    for brace in re.finditer(r"\\.|[{}]", text[start:], re.DOTALL):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return start + brace.end() == len(text)
    return False


def _without_full_stop(text: str) -> str:
    if text.endswith(".") and not text.endswith((r"\right.", "..", "m.")):
        return text[:-1].rstrip()
    return text


def _without_unit(text: str, unit: str | None) -> tuple[str, str | None]:
    magnitude = _MAGNITUDE.match(text)
    if magnitude:
        zeros = _MAGNITUDES[magnitude[2].lower()]
        rest = text[magnitude.end() :].strip()
        text = f"{magnitude[1]}" if not zeros else _shift(magnitude[1], zeros)
        text = f"{text} {rest}".strip()
    for found in (_UNIT_IN_TEXT.search(text), _BARE_UNIT.search(text)):
        if found is None:
            continue
        before = text[: found.start()].rstrip(" \\,;~")
        words = _WORDS_AROUND.findall(found[1])
        if not before or before[-1:] in "=+-*/(<>^_{[" or _NO_UNIT & {w.lower() for w in words}:
            continue
        if found.re is _BARE_UNIT and not _bare(before, words):
            continue
        return before, unit or _unit(found[1])
    return text, unit


def _bare(before: str, words: list[str]) -> bool:
    """Letters after a number are a unit if they can hardly be a product of variables."""
    return bool(_AFTER_NUMBER.fullmatch(before)) and (
        len(words[0]) > 2 or _unit(words[0]) is not None
    )


def _unit(text: str) -> str | None:
    name = text.strip().lower().replace(".", "")
    for word in (name, name.removesuffix("s")):
        word = _SPELLINGS.get(word, word)
        if word in UNITS:
            return word
    return None


def _shift(number: str, zeros: int) -> str:
    value = Fraction(number.replace(",", "").rstrip(".") or "0") * 10**zeros
    return str(value.numerator) if value.denominator == 1 else f"{number}\\cdot 10^{{{zeros}}}"


def _number(text: str) -> str:
    """Rewrite numbers that LaTeX readers take for something else."""
    if _THOUSANDS.fullmatch(text):
        return re.sub(r",|\\,|~| ", "", text)
    if _DECIMAL_COMMA.fullmatch(text):
        return text.replace(",", ".")
    if mixed := _MIXED.fullmatch(text):
        return f"{mixed[1]}{mixed[2]}\\frac{{{mixed[3]}}}{{{mixed[4]}}}"
    if power := _POWER_OF_TEN.fullmatch(text):
        return f"{power[1]}\\cdot 10^{{{int(power[2])}}}"
    if repeating := _REPEATING.fullmatch(text):
        sign, whole, fixed, again = repeating.groups()
        nines = 10 ** len(fixed) * (10 ** len(again) - 1)
        over = int((whole + fixed + again) or 0) - int((whole + fixed) or 0)
        return f"{sign}\\frac{{{over}}}{{{nines}}}"
    return text
