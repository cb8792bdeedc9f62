r"""Whether refined reasoning still holds up the answer: texts in, an `Objection` or None out.

Three checks of a refiner's reasoning against the original; all pure, and none understands
anything. Both texts are of the same trace, whose answer is the same in both.

1. **Support.** What the answer states must still stand in the reasoning. For `math` and
   `choice` that is the stated value; for `code` at least half of those names in the program
   that the original reasoning speaks of; for other verifiers the same of the words of the
   answer. Where nothing of it stood in the original either (the value is written in another
   way, say), the last number of the original must stand in the refined.
2. **Foundation.** At least nine in ten of its numbers stand in the original, the question or
   the answer: a refiner leaves out, it does not calculate anew.
3. **Size.** Not longer than the original, and not less than `least_share` of it (`sized`).

A refiner that keeps value and numbers and still spoils an argument passes. Not here: filters
that every example must pass, and the verdict (`cuvee.select.refine.judge`).
"""

import io
import keyword
import re
import tokenize
from collections.abc import Set

from cuvee.select.objection import Objection
from cuvee.verify.answers import choice_letter, code_block, final_answer

LEAST_NAMED = 0.5
"""Share of the answer's names in the original that must stand in the refined."""
LEAST_FOUNDED = 0.9
"""Share of the refined's numbers that must stand in the original, question or answer."""

_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?")
_WORD = re.compile(r"[^\W\d_]{4,}|[\u3400-\u4dbf\u4e00-\u9fff]{2,}")
_NAME = re.compile(r"[^\W\d]\w{2,}")
_SPELLING = re.compile(r"\\[dt]?(?=frac)|\\(?:left|right|displaystyle|[,;!:])|[\s$]")


def stated(answer: str, *, verifier: str) -> str | None:
    """Return what an answer states to a verifier; None where it states nothing."""
    if verifier == "math":
        return final_answer(answer)
    if verifier == "choice":
        return choice_letter(answer)
    if verifier == "code":
        return code_block(answer)
    return answer.strip() or None


def unsupported(refined: str, original: str, answer: str, *, verifier: str) -> Objection | None:
    """Object (`unsupported`) to reasoning that lost what the answer rests on."""
    said = stated(answer, verifier=verifier)
    if said is not None and verifier in ("math", "choice"):
        if _stands(said, original):
            return None if _stands(said, refined) else _lost(f"the answer {said[:80]!r}")
    elif said is not None:
        names = _names(said) if verifier == "code" else set(_WORD.findall(said.lower()))
        named = names & _spoken(original, verifier)
        left = named & _spoken(refined, verifier)
        if named:
            enough = len(left) >= LEAST_NAMED * len(named)
            return None if enough else _lost(f"{len(named) - len(left)} of {len(named)} names")
    numbers = _numbers(original)
    if not numbers:
        return Objection("unsupported", "nothing of the answer stands in the original reasoning")
    held = numbers[-1] in _numbers(refined)
    return None if held else _lost(f"the last number, {numbers[-1]}")


def unfounded(refined: str, original: str, question: str, answer: str) -> Objection | None:
    """Object (`unfounded`) to reasoning with numbers that stand nowhere else."""
    numbers = _numbers(refined)
    known = {number for text in (original, question, answer) for number in _numbers(text)}
    new = [number for number in numbers if number not in known]
    if len(new) <= (1 - LEAST_FOUNDED) * len(numbers):
        return None
    shown = ", ".join(list(dict.fromkeys(new))[:5])
    return Objection("unfounded", f"{len(new)} of {len(numbers)} numbers are new: {shown}")


def sized(tokens: int, before: int, *, least_share: float) -> Objection | None:
    """Object to what is `longer` than before, or has `too_little` left of it."""
    if tokens > before:
        return Objection("longer", f"{tokens} tokens, {before} before")
    if tokens < least_share * before:
        return Objection("too_little", f"{tokens} tokens of {before}, {least_share:g} wanted")
    return None


def _lost(what: str) -> Objection:
    return Objection("unsupported", f"lost {what}")


def _numbers(text: str) -> list[str]:
    """Return the numbers in a text, in order, without signs and the commas of thousands."""
    return [number.replace(",", "") for number in _NUMBER.findall(text)]


def _stands(value: str, text: str) -> bool:
    """Whether a value stands in a text as a whole, however spaces and fractions are written."""
    if _NUMBER.fullmatch(value):
        return value.replace(",", "") in _numbers(text)
    if value.isalpha():  # a letter or a word: within a word it is no answer
        return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None
    wanted, where = (_SPELLING.sub("", part) for part in (value, text))
    return bool(wanted) and wanted in where


def _names(program: str) -> Set[str]:
    """Return the names of three letters or more in a Python program that are not keywords."""
    try:
        found = tokenize.generate_tokens(io.StringIO(program).readline)
        names = {token.string for token in found if token.type == tokenize.NAME}
    except (tokenize.TokenError, SyntaxError):
        names = set(_NAME.findall(program))
    return {name for name in names if len(name) > 2 and not keyword.iskeyword(name)}


def _spoken(text: str, verifier: str) -> Set[str]:
    return set(_NAME.findall(text)) if verifier == "code" else set(_WORD.findall(text.lower()))
