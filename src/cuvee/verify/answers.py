r"""What a reply states: its reasoning, its final answer, its code.

Text in, text out; linear in the length of the text, whatever the text is. Nothing is
judged here, and no mathematics or Python is read: the answer is the text as it stands
between its delimiters.
"""

import re
from collections import deque
from collections.abc import Iterator

THINK, END_THINK = "<think>", "</think>"

_BRACES = re.compile(
    r"(?P<box>\\{1,2}+(?:boxed|fbox)\s*+\{)|\\{1,2}+boxed\s*+(?P<token>[0-9A-Za-z])(?=\s*+[$.]|\s*+\\[])])|\\.|(?P<open>\{)|(?P<close>\})",
    re.DOTALL,
)
r"""A box's opening (`\\boxed` too: text that was escaped twice), an escaped character (`\{` is no
brace), a brace."""

_FIRST_BOX = re.compile(r"\\{1,2}(?:boxed|fbox)")
_BETWEEN = re.compile(
    r"(?:[\s$&~*]|\\[()\[\]!:; ]|\\q?quad\b|[a-zA-Z](?:_(?:\w|\{\w{1,3}\}))?\s*+=|"
    r"(?P<joint>[,;、，；]|\\,|\b(?:and|or)\b|和|或|\\(?:text|mbox)\s*+\{\s*+(?:and|or|,)\s*+\}))++"
)
"""What may stand between boxes that make one answer: `\\boxed{1}` and `\\boxed{2}`."""
_LONGEST_GAP = 80
_MOST_BOXES = 50

_HASHES = re.compile(r"^[ \t]*+####[ \t]*+(?=\S)", re.MULTILINE)
_STATED = re.compile(
    r"\banswer\b[*_]{0,3}\s*+(?:(?:is|are)\b(?:,?\s*+(?:therefore|thus|hence|then|simply)\b,?)?"
    r"(?:\s*+[:：])?|[:：=])[*_]{0,3}\s*+(?=\S)"
    r"|^[ \t#*_]{0,9}(?:the |my |final )*answer[ \t*_]{0,9}\n\s*+(?=\S)"
    r"|答案\s*+(?:就?是|为|為|应为|應為)\s*+[:：]?\s*+(?=\S)|答案\s*+[:：]\s*+(?=\S)",
    re.IGNORECASE | re.MULTILINE,
)
"""`The answer is 18`, `Final answer: 18`, a heading `**Final Answer**`, `答案是 18`."""
_DISPLAYED = re.compile(r"\\\[(?:[^\\]|\\[^\]]){1,2000}+\\\]|\$\$[^$]{1,2000}+\$\$")
_SENTENCE_END = re.compile(r"[.。](?:\*\*)?(?:\s++(?=[A-Z])|(?<=。))|<\|")
TAIL = 1_000_000
"""Characters at the end of a reply that are searched; no model writes a longer answer."""
_MOST_STATEMENTS = 20
_LONGEST_STATED = 2000
"""Characters of an answer in a sentence; a box may hold more."""

_LETTER = r"(?P<letter>[A-J])"
_OPTION = re.compile(
    r"(?:option|choice)?\s*+(?:\\(?:text|mathrm|textbf|mathbf|textrm)\s*+\{|[*_$`\s]|\\\(){0,6}[(\[]?"
    + _LETTER
    + r"(?:(?=[)\].:,;*_}$`\\])|\s*+\Z|(?=\s++(?:because|since|as)\b)"
    # Before any other word a capital that is no word itself: "B is", not "A man" or "d = 5".
    + r"|(?-i:(?<=[B-HJ]))(?=\s))",
    re.IGNORECASE,
)
r"""An option's letter at the beginning of a text: `B`, `(B)`, `**B.** Paris`, `\text{B}`."""
_CHOSEN = re.compile(r"故?选(?:择)?\s*+[:：]?\s*+(?=\S)")
_OPTION_LINE = re.compile(r"[ \t*_$]*+[(\[]?" + _LETTER + r"[)\].:]?[ \t*_$.]*+")

_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}

_FENCE = re.compile(r"(?P<indent> *+)(?P<ticks>`{3,}+)(?P<info>[^`]*+)")
_PYTHON = ("python", "python3", "py")


def split_reasoning(text: str) -> tuple[str, str]:
    """Split a reply at its last `</think>` into (reasoning, answer), both stripped.

    The opening tag may be missing (the prompt ended with it). An opening tag that is never
    closed makes all of it reasoning; a reply without tags is all answer.
    """
    before, closed, after = text.rpartition(END_THINK)
    if closed:
        return before.strip().removeprefix(THINK).strip(), after.strip()
    start = text.strip()
    if start.startswith(THINK):
        return start.removeprefix(THINK).strip(), ""
    return "", start


def final_answer(text: str) -> str | None:
    r"""Return the final answer of a reply in words of its own, or None where it states none.

    Only the last million characters are searched. The last complete, non-empty `\boxed{...}`
    after the reasoning; boxes that follow one another
    with no more than a comma, "and" or "or" between them are one list. Else the last `#### 18`;
    else the last "The answer is 18", "Answer: 18" or "答案是 18", to the end of its sentence.
    """
    answer = split_reasoning(text)[1][-TAIL:]
    boxed = _last_box(answer)
    if boxed is not None:
        return boxed
    for stated in (*_statements(_HASHES, answer), *_statements(_STATED, answer)):
        bare = _bare(stated)
        if bare and not _FIRST_BOX.search(bare):  # a box that was cut states nothing
            return bare
    return None


def _last_box(text: str) -> str | None:
    """Return the content of the complete, non-empty box that begins last, or of its list."""
    begin = _FIRST_BOX.search(text)
    if begin is None:
        return None
    opened: list[tuple[int, int, bool]] = []
    boxes: list[tuple[int, int, int, int]] = []
    for token in _BRACES.finditer(text, begin.start()):
        if token["box"] or token["open"]:
            opened.append((token.start(), token.end(), bool(token["box"])))
        elif token["token"]:
            boxes.append((token.start(), token.start("token"), token.end(), token.end()))
        elif token["close"] and opened:
            start, inside, is_box = opened.pop()
            if is_box:
                boxes.append((start, inside, token.start(), token.end()))
    boxes.sort()
    contents: list[str] = []
    following: int | None = None
    for start, inside, close, end in reversed(boxes[-_MOST_BOXES:]):
        if following is not None and not _joined(text, end, following):
            break
        if content := _box_content(text[inside:close]):
            contents.append(content)
            following = start
    return ", ".join(reversed(list(dict.fromkeys(contents)))) or None


def _box_content(content: str) -> str:
    content = content.strip()
    return content if content.endswith(r"\right.") else content.removesuffix(".").rstrip()


def _joined(text: str, end: int, start: int) -> bool:
    """Whether what stands between two boxes makes one list of them."""
    if not 0 < start - end <= _LONGEST_GAP:
        return False
    between = _BETWEEN.fullmatch(text, end, start)
    return between is not None and between["joint"] is not None


def _statements(pattern: re.Pattern[str], text: str) -> Iterator[str]:
    """Yield what follows the pattern, the last first."""
    ends = deque((match.end() for match in pattern.finditer(text)), maxlen=_MOST_STATEMENTS)
    for start in reversed(ends):
        yield _statement(text, start)


def _statement(text: str, start: int) -> str:
    """Return what is stated from `start` on: a displayed formula, or the rest of the sentence."""
    displayed = _DISPLAYED.match(text, start)
    if displayed:
        return displayed.group()
    stop = text.find("\n", start, start + _LONGEST_STATED)
    line = text[start : stop if stop >= 0 else start + _LONGEST_STATED]
    end = _SENTENCE_END.search(line)
    return line[: end.start()] if end else line


def choice_letter(text: str) -> str | None:
    r"""Return the option (`A` to `J`, upper case) that a reply chooses, or None.

    Looks in the last box, then in what is stated ("The answer is (B)", "答案是B", "故选B"), then
    takes a last line that is a letter and nothing else. Full-width letters count.
    """
    answer = split_reasoning(text)[1][-TAIL:].translate(_FULL_WIDTH)
    places = (_last_box(answer) or "", *_statements(_STATED, answer), *_statements(_CHOSEN, answer))
    for stated in places:
        if found := _OPTION.match(stated.strip()):
            return found["letter"].upper()
    last_line = answer.rstrip()[-200:].rpartition("\n")[2]
    alone = _OPTION_LINE.fullmatch(last_line)
    return alone["letter"].upper() if alone else None


def _bare(stated: str) -> str:
    """Strip what surrounds an answer in a sentence: emphasis, math delimiters, full stop."""
    for _ in range(4):  # layers; a fixed number keeps a line of 100,000 asterisks linear
        stated = _peel(stated)
    return stated


def _peel(text: str) -> str:
    text = text.strip().rstrip(".,;").rstrip()
    for left, right in (("$$", "$$"), (r"\(", r"\)"), (r"\[", r"\]"), ("`", "`")):
        if text.startswith(left) and text.endswith(right) and len(text) > len(left + right):
            return text[len(left) : -len(right)].strip()
    if text.startswith("$"):  # `$18$` is mathematics, `$18` is money
        return text[1:].removesuffix("$").strip()
    return text.removeprefix("**").removesuffix("**").strip()


def code_block(text: str) -> str | None:
    """Return the program of a reply: its last complete fenced block, without the fences.

    Of the blocks after the reasoning the last one marked `python`, `python3` or `py`; where
    none is, the last unmarked one. Blocks in other languages do not count, nor does a block
    whose fence is never closed (a cut reply). None where there is no block.
    """
    _, answer = split_reasoning(text)
    marked: str | None = None
    unmarked: str | None = None
    opening: re.Match[str] | None = None
    lines: list[str] = []
    for line in answer.split("\n"):  # splitlines() would also cut at U+2028 inside a string
        fence = _FENCE.fullmatch(line.rstrip())
        if opening is None:
            opening, lines = fence, []
        elif fence and not fence["info"].strip() and len(fence["ticks"]) >= len(opening["ticks"]):
            language = (opening["info"].split() or [""])[0].lower()
            code = "\n".join(lines) + "\n"
            if language in _PYTHON:
                marked = code
            elif not language:
                unmarked = code
            opening = None
        else:
            lines.append(_outdent(line, len(opening["indent"])))
    return marked if marked is not None else unmarked


def _outdent(line: str, width: int) -> str:
    """Remove up to `width` leading spaces: a block in a list is indented as a whole."""
    spaces = len(line) - len(line.lstrip(" "))
    return line[min(width, spaces) :]
