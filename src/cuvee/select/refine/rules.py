r"""The rules of refining: text in, shorter text out, and how often each rule applied. Pure.

Repeats, in the reasoning: what stood there before, word for word (white space apart), is left
out; its first occurrence stays.

- `paragraph`: a whole paragraph of at least `LONG` words.
- `passage`: sentences in a row of at least `LONG_PASSAGE` words.
- `echo`: a sentence right after itself, of at least `SHORT` words and without calculation.
- `musing`: "Let me double-check that again." and the like, which state nothing.

A single fact or step that stands twice stays: it is a premise of two steps ("But Cara is before
Ana. So ..."). So do fenced and indented code, lists, tables, headings, quotations (but in a
paragraph that repeats as a whole), what calculates more than it says, what introduces
something (ends in `:`), what would tear a quotation, and the last sentence of all: the
reasoning ends where it ended.

Courtesies, in the answer (`courtesy`): its last sentences are left out where they are a closing
formula ("I hope this helps!", "Let me know if ..."), up to the first that is none.

Linear in the length of the text; never longer; doing it twice changes nothing more. English
and Chinese courtesies and musings are known. Not here: whether the outcome still checks
(`cuvee.select.refine.attempts`).
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from cuvee.select.words import HAN, KANA

SHORT = 6
"""Words under which a sentence that stands twice in a row is a turn of speech."""
LONG = 20
"""Words from which a paragraph that stood there before is a repetition."""
LONG_PASSAGE = 40
"""The same of sentences within a paragraph: shorter ones are premises and ends of cases."""
LEAST_PROSE = 0.5
"""Share of plain words they must have: the rest is numbers, formulas and signs."""
LOOKED_AT = 8
"""Earlier places of a sentence that are looked at for a passage that begins with it."""

_FENCE = re.compile(r"[ \t]*+(?P<ticks>`{3,}+|~{3,}+)[^`]*+")
_KEPT_LINE = re.compile(r"[ ]{2,}|\t|\s*+(?:[-*+•>|#]|\(?\w{1,3}[.)]\s)|.*[:：]\s*+$")
"""A line that stays whatever it says: indented, of a list or table, a heading, an opening."""
_SENTENCE_END = re.compile(r"(?<=[.!?])[ \t]+(?=[A-Z\"'(])|(?<=[。！？])")
_CALCULATES = re.compile(r"[\d=<>^+*/\\$_|{}\[\]`~]|(?<![\w'’])[b-hj-zB-HJ-Z](?![\w'’])")
_WORD = re.compile(rf"[{HAN}{KANA}]|[^\W\d_{HAN}{KANA}]{{2,}}")

_MUSING = re.compile(
    r"(?:(?:wait|hmm+|okay|ok|so|now|but|actually|alternatively|alright|and)\W+)*"
    r"(?:let me|let's|let us|i(?:'ll| will| should| need to| have to)) (?:just )?"
    r"(?:double[- ]?check|re-?check|check|verify|re-?read|read|think|look|re-?consider"
    r"|go (?:over|through)|review|see)\b"
    r"(?:(?!\b(?:if|whether|where|when|case|that|assum|suppos|because|since|how|what)|[:,]).)*[.!]"
    r"|(?:等等，?)?(?:让)?我们?(?:再|重新).{0,12}(?:检查|验证|看|读|算|确认).{0,8}。",
    re.IGNORECASE,
)
_COURTESY = re.compile(
    r"\W*(?:(?:i|we) (?:really )?hope (?:this|that|it)\b.{0,40}\b(?:helps?|clarif|useful|clear)"
    r"|(?:please )?(?:let me know|feel free to|don'?t hesitate to|do not hesitate to)\b"
    r"|(?:if|should) you (?:have|need|'d like|would like|want)\b.{0,60}\b"
    r"(?:question|help|clarif|explanation|assistance|detail|let me know|feel free)"
    r"|(?:is there|do you have) any(?:thing| other| more| further)?\b.{0,40}\b"
    r"(?:else|question|help)"
    r"|(?:i'?m|i am) (?:always )?(?:happy|glad|here) to (?:help|assist)\b"
    r"|happy to (?:help|explain|clarify)\b"
    r"|would you like (?:me to|to see|another|more)\b"
    r"|thank(?:s| you)\b.{0,40}$|good luck\b.{0,40}$|have a (?:great|nice|good) day\b"
    r"|希望.{0,12}(?:帮助|有用)|如果?您?你?(?:还)?有.{0,12}(?:问题|疑问)|请随时)",
    re.IGNORECASE | re.DOTALL,
)
_RULE = re.compile(r"\n\s*-{3,}\Z")
_LONGEST_COURTESY = 200
"""Characters: a longer sentence says something."""
_HAS_CONTENT = re.compile(r"[\d\\$`=]|boxed|answer|答案", re.IGNORECASE)
"""What a courtesy never holds: then the sentence may be the answer."""


@dataclasses.dataclass(frozen=True)
class Tidied:
    """A text after the rules."""

    text: str
    applied: Counter[str]
    """Rule -> how many pieces it left out; empty where the text is as it was."""


def drop_repeats(reasoning: str) -> Tidied:
    """Return the reasoning without its repeats; `applied` by the rules' names above."""
    applied: Counter[str] = Counter()
    # Leaving out a sentence can make two paragraphs one and the same: until nothing is left.
    while True:
        once = _drop_repeats_once(reasoning)
        if not once.applied:
            return Tidied(reasoning, applied)
        reasoning = once.text
        applied += once.applied


@dataclasses.dataclass
class _Seen:
    """What was kept so far."""

    sentences: list[str] = dataclasses.field(default_factory=list)
    """In order; an empty one stands for what is kept unread."""
    places: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    """Sentence -> where it stands among them."""
    paragraphs: set[str] = dataclasses.field(default_factory=set)

    def add(self, sentence: str) -> None:
        self.places.setdefault(sentence, []).append(len(self.sentences))
        self.sentences.append(sentence)


def _drop_repeats_once(reasoning: str) -> Tidied:
    paragraphs = list(_paragraphs(reasoning))
    applied: Counter[str] = Counter()
    seen = _Seen()
    kept: list[str] = []
    for number, (text, is_code) in enumerate(paragraphs):
        last = number == len(paragraphs) - 1
        if is_code:
            seen.add("")
            kept.append(text)
            continue
        if not last and _key(text) in seen.paragraphs and _is_long(text, LONG):
            applied["paragraph"] += 1
            continue
        seen.paragraphs.add(_key(text))
        shorter = _paragraph(text, seen, last=last, applied=applied)
        if shorter.strip():
            kept.append(shorter)
    return Tidied("\n\n".join(kept) if applied else reasoning, applied)


def drop_courtesies(answer: str) -> Tidied:
    """Return the answer without the courtesies at its end: `courtesy` in `applied`."""
    applied: Counter[str] = Counter()
    end = _stripped(answer, len(answer))
    while end and not answer.endswith(("```", "~~~"), 0, end):
        start = _last_sentence(answer, end)
        if start == 0 or not _is_courtesy(answer[start:end]):
            break
        end = _stripped(answer, start)
        applied["courtesy"] += 1
    # A rule that parted the courtesy from the answer goes with it.
    left = _RULE.sub("", answer[:end])
    return Tidied(left, applied) if applied else Tidied(answer, applied)


def _stripped(text: str, end: int) -> int:
    """Return where the text before `end` ends without white space."""
    while end and text[end - 1].isspace():
        end -= 1
    return end


def _is_courtesy(sentence: str) -> bool:
    short = len(sentence) <= _LONGEST_COURTESY
    return short and bool(_COURTESY.match(sentence)) and not _HAS_CONTENT.search(sentence)


def _last_sentence(text: str, end: int) -> int:
    """Return where the last sentence before `end` begins; a line is its own.

    Of a sentence too long to be a courtesy: somewhere in it.
    """
    window = max(0, end - 2 * _LONGEST_COURTESY)
    window = max(window, text.rfind("\n", window, end) + 1)
    ends = [found.end() for found in _SENTENCE_END.finditer(text, window, end)]
    return next((place for place in reversed(ends) if place < end), window)


def _paragraphs(text: str) -> Iterator[tuple[str, bool]]:
    """Yield what stands between blank lines, and whether a fence of code stands in it.

    A fence holds its blank lines together; one never closed goes to the end.
    """
    lines: list[str] = []
    fence: str | None = None
    fenced = False
    for line in text.split("\n"):
        if fence is None and not line.strip():
            if lines:
                yield "\n".join(lines), fenced
            lines, fenced = [], False
            continue
        lines.append(line)
        marks = _FENCE.fullmatch(line)
        if marks is None:
            continue
        if fence is None:
            fence, fenced = marks["ticks"], True
        elif line.strip().startswith(fence) and not line.strip().strip(fence[0]):
            fence = None
    if lines:
        yield "\n".join(lines), fenced


def _paragraph(text: str, seen: _Seen, *, last: bool, applied: Counter[str]) -> str:
    """Return a paragraph without what was `seen`; what is new is added."""
    lines = text.split("\n")
    kept = []
    for number, line in enumerate(lines):
        if _KEPT_LINE.match(line):
            seen.add("")
            kept.append(line)
            continue
        ends_all = last and number == len(lines) - 1
        shorter = _line(line, seen, ends_all=ends_all, applied=applied)
        if shorter.strip():
            kept.append(shorter)
    return "\n".join(kept)


def _line(line: str, seen: _Seen, *, ends_all: bool, applied: Counter[str]) -> str:
    starts = [0, *(end.end() for end in _SENTENCE_END.finditer(line) if end.end() < len(line))]
    pieces = [line[a:b] for a, b in zip(starts, [*starts[1:], len(line)], strict=True)]
    keys = [_key(piece) for piece in pieces[: len(pieces) - ends_all]]
    kept: list[str] = []
    at = 0
    while at < len(pieces):
        rule, count = _repeat(keys, at, seen)
        if count:
            applied[rule] += 1
        else:
            seen.add(_key(pieces[at]))
            kept.append(pieces[at])
        at += max(1, count)
    return line if len(kept) == len(pieces) else "".join(kept).rstrip()


def _repeat(keys: Sequence[str], at: int, seen: _Seen) -> tuple[str, int]:
    """Return the rule by which the sentences from `at` on are a repeat, and how many they are."""
    sentence = keys[at] if at < len(keys) else ""
    places = seen.places.get(sentence)
    if not places or not sentence:
        return "", 0
    if _MUSING.fullmatch(sentence) and not _CALCULATES.search(sentence):
        return "musing", 1
    if places[-1] == len(seen.sentences) - 1 and _is_echo(sentence):
        return "echo", 1
    count = max(_in_common(keys, at, seen, place) for place in places[-LOOKED_AT:])
    return (
        ("passage", count) if _is_long(" ".join(keys[at : at + count]), LONG_PASSAGE) else ("", 0)
    )


def _in_common(keys: Sequence[str], at: int, seen: _Seen, place: int) -> int:
    """Return how many sentences from `at` on stand as they stood from `place` on."""
    most = min(len(keys) - at, len(seen.sentences) - place)
    return next((n for n in range(most) if seen.sentences[place + n] != keys[at + n]), most)


def _is_echo(sentence: str) -> bool:
    if sentence.endswith((":", "：")) or _CALCULATES.search(sentence):
        return False
    return sentence.count('"') % 2 == 0 and len(_WORD.findall(sentence)) >= SHORT


def _is_long(text: str, least: int) -> bool:
    """Whether a text that stands twice is a repetition: long, prose, and whole."""
    if any(line[:1] in (" ", "\t") for line in text.split("\n")):
        return False  # indented: code
    if text.rstrip().endswith((":", "：")) or text.count('"') % 2:
        return False
    words = len(_WORD.findall(text))
    return words >= least and words >= LEAST_PROSE * len(text.split())


def _key(text: str) -> str:
    return " ".join(text.split())
