r"""Filters of what the reasoning says: its language, copying, giving up, answering too early.

A trace in, an `Objection` or None out; pure, linear in the length of the text. They look for
signs in the wording and understand nothing. Not here: repetition (`cuvee.select.repetition`).
"""

import re

import numpy as np

from cuvee.records import Trace
from cuvee.select.objection import Objection
from cuvee.select.words import HAN, KANA, grams

END = 400
"""Characters at the end of reasoning and answer in which giving up is looked for: what was
said before it was overcome."""

_NOTATION = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$|\\[a-zA-Z]+", re.DOTALL)
"""Code, formulas and LaTeX commands, which are in no language."""
_HANGUL = "\uac00-\ud7af"
_SPACELESS = re.compile(rf"[{HAN}{KANA}{_HANGUL}]")
_RUN = re.compile(rf"[^\W\d_{HAN}{KANA}{_HANGUL}]{{2,}}")
"""Two letters or more: a single one is a variable in any language."""
_LATIN_LETTERS = "A-Za-z\u00c0-\u024f\u1e00-\u1eff"
_LATIN = re.compile(f"[{_LATIN_LETTERS}]")
_NOT_LATIN = re.compile(rf"[^\W\d_{_LATIN_LETTERS}]")
_NOT_PROSE = re.compile(
    "[\u00b2\u00b3\u00b9\u0370-\u03ff\u2070-\u209f\u2100-\u214f\U0001d400-\U0001d7ff]+"
)
"""Raised and lowered signs, Greek, letter-like and mathematical letters: notation."""
_HAN_CHARACTER = re.compile(f"[{HAN}]")

_ABLE = r"(?:can(?:no|')t|can not|could(?: not|n't)|(?:am|are|was|were) (?:unable|not able) to)"
_TASK = r"(?:solve|answer|determine|figure|find|compute|calculate|work out|complete)"
_GIVES_UP = re.compile(
    r"\bI(?:'ll| will| must| have to| would|'d)?(?: just| simply)? (?:give up|guess\b)"
    r"|\bI(?:'m| am)(?: just| only)? guessing\b"
    r"|\b(?:my best|a wild|a random|just a|only a|take a|make a|an educated) guess\b"
    r"|\bI(?: still)? (?:do not|don't) know (?:how to|the answer)"
    r"|\bbest possible (?:guess|estimate)\b"
    rf"|\b(?:I|we) {_ABLE} {_TASK}\b"
    r"|我(?:只能|就)?(?:放弃|瞎?猜)|只能猜|我不(?:知道|会)(?:答案|怎么|如何)|无法(?:解答|求解|回答)",
    re.IGNORECASE,
)
"""First person only: in a story problem others guess and give up too."""

_BOX = re.compile(
    r"\\(?:boxed|fbox)\s*+\{(?!\s*+(?:\}|\.|\\(?:phantom|l?dots|cdots|text)|"
    r"(?:your|the|my|final|answer|result)\b))",
    re.IGNORECASE,
)
r"""A box with an answer in it: not `\boxed{}`, `\boxed{...}` or `\boxed{your answer}`."""


def foreign(trace: Trace, *, language: str, least: float) -> Objection | None:
    """Object (`language`) to reasoning with less than a share `least` in the script wanted.

    `language`: `en` (Latin), `zh` (Han) or `any`. Reasoning without words is in no wrong
    language. Languages of one script are not told apart.
    """
    if language == "any":
        return None
    share = script_share(trace.reasoning, language)
    if share is None or share >= least:
        return None
    return Objection("language", f"{share:.2f} of the words are {language}, {least:.2f} wanted")


def script_share(text: str, language: str) -> float | None:
    """Return the share in [0, 1] of words in a language's script; None without words.

    A word is a run of two letters or more, or one character of a script without spaces:
    letters alone would let a paragraph of Chinese pass as a few percent of English. Single
    letters, code, formulas and Greek do not count.
    """
    prose = _NOT_PROSE.sub("", _NOTATION.sub(" ", text))
    if _NOT_LATIN.search(prose) is None:  # as in most English: the same share, sooner
        return None if _RUN.search(prose) is None else float(language == "en")
    runs, spaceless = _RUN.findall(prose), _SPACELESS.findall(prose)
    if not runs and not spaceless:
        return None
    script, of = (_LATIN, runs) if language == "en" else (_HAN_CHARACTER, spaceless)
    return sum(script.match(word) is not None for word in of) / (len(runs) + len(spaceless))


def copied(trace: Trace, question: str, *, most: float) -> Objection | None:
    """Object (`copied`) where over a share `most` of the reasoning's 8-grams are the question's."""
    share = copied_share(trace.reasoning, question)
    if share <= most:
        return None
    return Objection("copied", f"{share:.2f} of the 8-grams are the question's, {most:.2f} allowed")


def copied_share(text: str, question: str) -> float:
    """Return the share in [0, 1] of a text's word 8-grams that stand in the question."""
    found = grams(text)
    return float(np.isin(found, grams(question)).mean()) if len(found) else 0.0


def gives_up(trace: Trace) -> Objection | None:
    """Object (`gives_up`) to reasoning or an answer that ends by giving up or guessing."""
    for text in (trace.answer, trace.reasoning):
        if said := _GIVES_UP.search(text[-END:]):
            return Objection("gives_up", said.group())
    return None


def answers_early(trace: Trace, question: str, *, least: float) -> Objection | None:
    r"""Object (`answers_early`) to reasoning that boxes an answer before a share `least` of it.

    An empty box, or one that repeats the instruction (`\boxed{your answer}`), is no answer;
    nor is any where the question itself has boxes to fill in.
    """
    first = _BOX.search(trace.reasoning)
    if first is None or "\\boxed" in question:
        return None
    share = first.start() / len(trace.reasoning)
    if share >= least:
        return None
    return Objection("answers_early", f"the first box after {share:.2f}, {least:.2f} wanted")
