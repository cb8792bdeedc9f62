r"""A question's wording in a form that can be compared: tokens, and what is folded in them.

In: texts. Out: their tokens, as strings (`tokens`, the definition) or as 64-bit hashes of many
texts at once (`read_wordings`, the same tokens some twenty times faster). Folded away: Unicode
forms, case, white space, thousands separators and signs that do not change what is asked
(quotes, `$`, sentence punctuation). Kept: every number as one token and every operator, so
"17 + 5 - 9" and "17 - 5 + 9" differ. In scripts without spaces (Chinese, Japanese, Thai, ...)
every character is a token.

`skeleton` folds further, for decontamination: numbers to `0`, single letters to `x`, and LaTeX
that only sets type left out (braces, `\left`, `\dfrac` for `\frac`). Not done: synonyms,
numbers in words, `!` (it may be a factorial). No rows here.
"""

import dataclasses
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import groupby, pairwise

import numpy as np

from cuvee.problems import word_kernels as kernels
from cuvee.problems.word_kernels import Bytes, Counts, Hashes
from cuvee.records import Problem
from cuvee.workers.chunks import in_chunks

UNICODE = 0x110000
LETTERS = 0x40000
"""Code points below which all letters, digits, marks and spaces are (but for some selectors of
variants from U+E0100, which count as signs here)."""
BATCH_TEXTS = 1024
BATCH_CHARACTERS = 1 << 20

SPACELESS = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Tibetan; Burmese; Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"  # Japanese
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters
)
"""Ranges of scripts that are written without spaces."""

SILENT = set(".,;:?\"'`$‘’“”„«»‹›…¿¡。、「」『』《》〈〉【】・،؛؟।\u200b\u200c\u200d\ufeff\u00ad")
"""Signs that are left out; `.` and `,` inside a number are part of it."""

UNSEEN = frozenset(["{", "}", "&", "~"])
"""Signs of LaTeX that `skeleton` leaves out, as it does every backslash."""

COMMANDS = {
    **dict.fromkeys(["left", "right", "displaystyle", "textstyle", "quad", "qquad", "!"], ""),
    **dict.fromkeys(["text", "mathrm", "textbf", "textit", "mathbf", "bigl", "bigr"], ""),
    **dict.fromkeys(["dfrac", "tfrac", "cfrac"], "frac"),
    **{"leq": "le", "geq": "ge", "neq": "ne", "cdots": "dots", "ldots": "dots", "dotsm": "dots"},
}
"""What `skeleton` makes of a token that follows a backslash; "" leaves it out."""


def _ranges(characters: Iterable[int]) -> str:
    """Return a regex class's inside for ascending code points."""
    runs = groupby(enumerate(characters), key=lambda pair: pair[1] - pair[0])
    bounds = [[point for _, point in run] for _, run in runs]
    return "".join(f"{chr(run[0])}-{chr(run[-1])}" for run in bounds)


@cache
def _marks() -> str:
    """Return the accents and vowel signs that belong to the letter before them."""
    points = (point for point in range(LETTERS) if unicodedata.category(chr(point))[0] == "M")
    return _ranges(points)


NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)*"
ASCII = re.compile(rf"{NUMBER}|[a-z]+|[^\w\s]|_")
"""What `_pattern` finds in folded ASCII, in a tenth of the time."""


@cache
def _pattern() -> re.Pattern[str]:
    character = rf"(?=[{SPACELESS}])[^\W\d_][{_marks()}]*"
    letter = rf"(?![{SPACELESS}])[^\W\d_]"
    return re.compile(rf"{NUMBER}|{character}|{letter}(?:{letter}|[{_marks()}])*|[^\w\s]|_")


def fold(text: str) -> str:
    """Return a text after Unicode NFKC and case folding."""
    if text.isascii():
        return text.lower()  # the same, in a tenth of the time
    cased = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFKC", cased)  # casefolding can leave what composes


def tokens(text: str) -> list[str]:
    """Return the tokens of a text, folded; thousands separators are left out of numbers."""
    folded = fold(text)
    pattern = ASCII if folded.isascii() else _pattern()
    return [_plain(token) for token in pattern.findall(folded) if token not in SILENT]


def _plain(token: str) -> str:
    return token.replace(",", "") if token[0].isdecimal() else token


def numbers(words: Sequence[str]) -> Counter[str]:
    """Return how often each number is among the tokens."""
    return Counter(word for word in words if word[0].isdecimal())


def count_words(words: Sequence[str]) -> int:
    """Return how many tokens are words of two letters and more.

    Two characters of a script without spaces count as one word.
    """
    characters = sum(_spaceless().match(word) is not None for word in words)
    return characters // 2 + sum(len(word) > 1 and word.isalpha() for word in words)


def skeleton(words: Sequence[str]) -> list[str]:
    """Return tokens with numbers, single letters and typesetting folded (see the module)."""
    folded = []
    before = ""
    for word in words:
        kept = COMMANDS.get(word, word) if before == "\\" else word
        before = word
        if kept and kept != "\\" and kept not in UNSEEN:
            folded.append(_anonymous(kept))
    return folded


def _anonymous(word: str) -> str:
    if word[0].isdecimal():
        return "0"
    return "x" if len(word) == 1 and word.isalnum() and not _spaceless().match(word) else word


@cache
def _spaceless() -> re.Pattern[str]:
    return re.compile(f"[{SPACELESS}]")


@dataclasses.dataclass(frozen=True)
class Wordings:
    """The tokens of several texts, one after the other: text i has [starts[i], starts[i + 1])."""

    hashes: Hashes
    """64-bit hash of each token."""
    kinds: Bytes
    """Of each token: NUMBER, VARIABLE, WORD or SIGN of `word_kernels`."""
    starts: Counts


def read_wordings(texts: Sequence[str]) -> Wordings:
    """Return the tokens of texts as hashes: the same tokens as `tokens` has, in order."""
    folded = [fold(text) for text in texts]
    # surrogatepass: model text can hold lone surrogates.
    characters = np.frombuffer("".join(folded).encode("utf-32-le", "surrogatepass"), "<u4")
    ends = np.cumsum([0, *map(len, folded)], dtype=np.int64)
    return Wordings(*kernels.tokenise(characters, ends, _classes()))


def text_keys(wordings: Wordings) -> list[bytes]:
    """Return 16 bytes for each text, the same where all tokens are (and no others, by chance)."""
    raw = kernels.text_hashes(wordings.hashes, wordings.starts).tobytes()
    return [raw[start : start + 16] for start in range(0, len(raw), 16)]


def number_keys(wordings: Wordings) -> list[int]:
    """Return 64 bits for each text, the same where the numbers are, in whatever order."""
    found: list[int] = kernels.number_hashes(*_arrays(wordings)).tolist()
    return found


def split(wordings: Wordings) -> list[Hashes]:
    """Return each text's tokens."""
    bounds = wordings.starts.tolist()
    return [wordings.hashes[start:end] for start, end in pairwise(bounds)]


def skeletons(wordings: Wordings) -> Wordings:
    """Return what `skeleton` makes of each text."""
    return Wordings(*kernels.fold_tokens(_arrays(wordings), *_folds()))


def _arrays(wordings: Wordings) -> tuple[Hashes, Bytes, Counts]:
    return wordings.hashes, wordings.kinds, wordings.starts


def token_hash(token: str) -> int:
    """Return the 64-bit hash of one token."""
    return int(read_wordings([token]).hashes[0])


def read_in_batches(problems: Iterable[Problem]) -> Iterator[tuple[list[Problem], Wordings]]:
    """Yield problems with the tokens of their questions, some at a time, in order.

    A batch is at most `BATCH_TEXTS` problems, and ends where `BATCH_CHARACTERS` are reached.
    """
    for batch in in_batches(problems):
        yield batch, read_wordings([problem.question for problem in batch])


def in_batches(problems: Iterable[Problem]) -> Iterator[list[Problem]]:
    """Yield problems in the batches of `read_in_batches`."""
    return in_chunks(problems, _length, rows=BATCH_TEXTS, characters=BATCH_CHARACTERS)


def _length(problem: Problem) -> int:
    return len(problem.question)


@cache
def _folds() -> tuple[Hashes, Hashes, Hashes]:
    """Return the hashes of what `skeleton` leaves out, and of each command and its fold."""
    unseen = [token_hash(sign) for sign in sorted(UNSEEN)]
    commands = [token_hash(command) for command in COMMANDS]
    folds = [token_hash(fold) if fold else kernels.LEFT_OUT for fold in COMMANDS.values()]
    anonymous = [token_hash("\\"), token_hash("0"), token_hash("x"), *unseen]
    arrays = [np.array(part, dtype=np.uint64) for part in (anonymous, commands, folds)]
    return arrays[0], arrays[1], arrays[2]


@cache
def _classes() -> Bytes:
    """Return the class of each code point, as the regex of `tokens` sees it."""
    every = "".join(map(chr, range(LETTERS)))
    classes = np.full(UNICODE, kernels.SIGN_CLASS, dtype=np.uint8)
    for pattern, kind in (
        (r"\s+", kernels.SPACE_CLASS),
        (r"[^\W\d_]+", kernels.LETTER_CLASS),
        (rf"(?:(?=[{SPACELESS}])[^\W\d_])+", kernels.CHARACTER_CLASS),
        (rf"[{_marks()}]+", kernels.MARK_CLASS),
        (r"\d+", kernels.DIGIT_CLASS),
    ):
        for match in re.finditer(pattern, every):
            classes[match.start() : match.end()] = kind
    for sign in SILENT:
        classes[ord(sign)] = kernels.SPACE_CLASS
    classes[ord(".")], classes[ord(",")] = kernels.POINT_CLASS, kernels.COMMA_CLASS
    return classes
