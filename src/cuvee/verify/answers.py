r"""What a reply states: its reasoning, its final answer, its code.

Text in, text out; linear in the length of the text, whatever the text is. Nothing is
judged here, and no mathematics or Python is read: the answer is the text as it stands
between its delimiters.
"""

import re

THINK, END_THINK = "<think>", "</think>"

_BRACES = re.compile(r"(?P<box>\\(?:boxed|fbox)\s*+\{)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL)
"""A box's opening, an escaped character (`\\{` is no brace), a brace."""

_HASHES = re.compile(r"^[ \t]*+####[ \t]*+(?P<answer>\S[^\n]*+)", re.MULTILINE)
_STATED = re.compile(
    r"\banswer\b(?:\*\*)?\s*+(?:is\b\s*+:?|:)\s*+(?P<answer>\S[^\n]*+)", re.IGNORECASE
)
"""`The answer is 18`, `Final answer: 18`, `**Answer:** 18`."""

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

    The last complete, non-empty `\boxed{...}` after the reasoning; else the last `#### 18`;
    else the last "The answer is 18" or "Answer: 18", to the end of its line.
    """
    _, answer = split_reasoning(text)
    boxed = _last_box(answer)
    if boxed is not None:
        return boxed
    for pattern in (_HASHES, _STATED):
        stated = [bare for m in pattern.finditer(answer) if (bare := _bare(m["answer"]))]
        if stated:
            return stated[-1]
    return None


def _last_box(text: str) -> str | None:
    """Return the content of the complete, non-empty box that begins last."""
    opened: list[tuple[int, bool]] = []
    last: tuple[int, str] | None = None
    for token in _BRACES.finditer(text):
        if token["box"] or token["open"]:
            opened.append((token.end(), bool(token["box"])))
        elif token["close"] and opened:
            start, is_box = opened.pop()
            # The first test keeps nested boxes linear: an outer box is never copied.
            if is_box and (last is None or start > last[0]):
                content = text[start : token.start()].strip()
                if not content.endswith(r"\right."):
                    content = content.removesuffix(".").rstrip()
                last = (start, content) if content else last
    return last[1] if last else None


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
