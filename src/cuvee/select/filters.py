r"""Filters of traces: each a pure function that returns an objection, or None.

They say of one trace whether it is fit to be trained on: finished, judged right, well
formed, in the wanted language, not going in circles, of a wanted length. Thresholds stand
in the recipe (`select:`). Not here: the order in which they are applied
(`cuvee.select.stage`), the choice among fit traces (`cuvee.select.choose`).
"""

import dataclasses
import re
from collections.abc import Collection, Sequence

from cuvee.records import Trace, Verdict

WORDS_A_GRAM = 8
LOOP_TIMES = 4
"""How often a text must say the same at its end to count as a loop."""
LOOP_CHARACTERS = 120
"""The shortest such ending: `......` and a table's rule are none."""
LOOP_TAIL = 8000
"""Characters at the end that are searched: a loop's period is at most a quarter of it."""

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_SCRIPTS = {
    "en": re.compile(r"[A-Za-z\u00c0-\u024f\u1e00-\u1eff]"),
    "zh": re.compile(f"[{_HAN}]"),
}
_LETTER = re.compile(r"[^\W\d_]")
_SYMBOL = re.compile("[\u0370-\u03ff\u2100-\u214f\U0001d400-\U0001d7ff]")
"""Greek, letter-like and mathematical letters: notation, whatever the language."""
_NOTATION = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$|\\[a-zA-Z]+", re.DOTALL)
"""Code, formulas and LaTeX commands, which are in no language."""
_WORD = re.compile(rf"[{_HAN}\u3040-\u30ff]|[^\s{_HAN}\u3040-\u30ff]+")
"""Han and kana one by one; everything else from space to space."""
_THINK_TAG = re.compile(r"</?think>", re.IGNORECASE)
_FENCE = re.compile(r"^[ \t]*(?P<ticks>`{3,}|~{3,})(?P<info>[^`\n]*)$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Objection:
    """Why a trace is not fit to be trained on."""

    reason: str
    """One word for counting."""
    detail: str | None = None


def unfinished(trace: Trace) -> Objection | None:
    """Object to what did not come to its end: `request_failed`, `truncated`, `unfinished`."""
    if trace.finish_reason == "stop":
        return None
    if trace.finish_reason == "error":
        return Objection("request_failed", trace.error)
    if trace.finish_reason == "length":
        return Objection("truncated", f"cut after {trace.completion_tokens} tokens")
    return Objection("unfinished", f"finish_reason {trace.finish_reason!r}")


def unaccepted(verdict: Verdict, accept: Collection[str]) -> Objection | None:
    """Object to a verdict that is not accepted: `verdict_wrong`, `verdict_no_answer`, ..."""
    if verdict.verdict in accept:
        return None
    return Objection(f"verdict_{verdict.verdict}", verdict.reason)


def malformed(trace: Trace, *, verifier: str) -> Objection | None:
    """Object to a trace that is not one closed think block with an answer after it.

    `no_reasoning`, `empty_answer`, `think_tags` (a tag within reasoning or answer: several
    blocks, or one never closed), and for code `code_blocks`: not exactly one fenced block.
    """
    if not trace.reasoning.strip():
        return Objection("no_reasoning")
    if tag := _THINK_TAG.search(trace.reasoning) or _THINK_TAG.search(trace.answer):
        return Objection("think_tags", f"{tag.group()} within the text")
    if not trace.answer.strip():
        return Objection("empty_answer")
    if verifier == "code" and (blocks := count_blocks(trace.answer)) != 1:
        return Objection("code_blocks", f"{blocks} fenced blocks in the answer, 1 wanted")
    return None


def count_blocks(text: str) -> int:
    """Return how many fenced blocks a text has; one that is never closed counts too."""
    blocks, opening = 0, ""
    for fence in _FENCE.finditer(text):
        ticks = fence["ticks"]
        if not opening:
            blocks, opening = blocks + 1, ticks
        elif ticks.startswith(opening) and not fence["info"].strip():
            opening = ""
    return blocks


def control_tokens(trace: Trace, tokens: Sequence[str]) -> Objection | None:
    """Object to the student's special `tokens` in the text: training would teach to emit them."""
    for token in tokens:
        if token in trace.reasoning or token in trace.answer:
            return Objection("control_token", token)
    return None


def foreign(trace: Trace, *, language: str, least: float) -> Objection | None:
    """Object (`language`) to reasoning with less than a share `least` in the script wanted.

    `language`: `en` (Latin), `zh` (Han) or `any`. Of the letters of the reasoning; code,
    formulas and Greek do not count. Reasoning without letters is in no wrong language.
    """
    if language == "any":
        return None
    share = script_share(trace.reasoning, language)
    if share is None or share >= least:
        return None
    return Objection("language", f"{share:.2f} of the letters are {language}, {least:.2f} wanted")


def script_share(text: str, language: str) -> float | None:
    """Return the share in [0, 1] of letters in a language's script; None without letters."""
    prose = _SYMBOL.sub("", _NOTATION.sub(" ", text))
    letters = _LETTER.findall(prose)
    if not letters:
        return None
    return len(_SCRIPTS[language].findall("".join(letters))) / len(letters)


def repetitive(trace: Trace, *, most: float) -> Objection | None:
    """Object (`repetition`) to reasoning that says the same over and over.

    More than a share `most` of its word 8-grams repeat an earlier one, or it ends in a
    loop. In a language without spaces each character is a word.
    """
    share = repeated_share(trace.reasoning)
    if share > most:
        return Objection("repetition", f"{share:.2f} of the 8-grams repeat, {most:.2f} allowed")
    if period := loop_period(trace.reasoning):
        return Objection("repetition", f"ends in a loop of {period} characters")
    return None


def repeated_share(text: str) -> float:
    """Return the share in [0, 1) of word 8-grams that occurred before; 0 for short texts."""
    words = _WORD.findall(text.lower())
    grams = list(zip(*(words[start:] for start in range(WORDS_A_GRAM)), strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def loop_period(text: str) -> int | None:
    """Return the period in characters of the loop a text ends in, None where there is none.

    A loop is an ending of at least `LOOP_CHARACTERS` that says the same `LOOP_TIMES` times
    or more; the last round may be incomplete. Whitespace counts as one space.
    """
    tail = " ".join(text[-LOOP_TAIL:].split())[::-1]
    # Prefix function (Knuth, Morris, Pratt) of the reversed tail: `border[i]` is the length
    # of the longest proper border of the first i + 1 characters, so i + 1 - border[i] is
    # their shortest period.
    border = [0] * len(tail)
    for end in range(1, len(tail)):
        length = border[end - 1]
        while length and tail[end] != tail[length]:
            length = border[length - 1]
        border[end] = length + (tail[end] == tail[length])
        size, period = end + 1, end + 1 - border[end]
        if size >= max(LOOP_CHARACTERS, LOOP_TIMES * period):
            return period
    return None


def outside(tokens: int, *, window: tuple[int, int]) -> Objection | None:
    """Object to a target of fewer or more tokens than the window: `too_short`, `too_long`."""
    low, high = window
    if tokens < low:
        return Objection("too_short", f"{tokens} tokens, at least {low} wanted")
    if tokens > high:
        return Objection("too_long", f"{tokens} tokens, at most {high} wanted")
    return None
