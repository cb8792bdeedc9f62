r"""Filters of form: finished, judged right, one think block with an answer, nothing in between.

A trace (and its verdict) in, an `Objection` or None out; pure. Not here: what the reasoning
says (`cuvee.select.prose`, `cuvee.select.repetition`), the order in which filters are applied
(`cuvee.select.sift`).
"""

import dataclasses
import re
import warnings
from collections.abc import Collection, Sequence

from cuvee.records import Trace, Verdict
from cuvee.select.objection import Objection

LONGEST_PROGRAM = 64_000
"""Characters of a program that are compiled: CPython itself crashes on some of a million."""

_THINK_TAG = re.compile(r"</?think>", re.IGNORECASE)
_FENCE = re.compile(r"^[ \t]*+(?P<ticks>`{3,}+|~{3,}+)(?P<info>[^`\n]*+)$", re.MULTILINE)
_PYTHON = ("python", "python3", "py")


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
    blocks, or one never closed); where `verifier` is `code` also as `unrunnable` does.
    """
    if not trace.reasoning.strip():
        return Objection("no_reasoning")
    if tag := _THINK_TAG.search(trace.reasoning) or _THINK_TAG.search(trace.answer):
        return Objection("think_tags", f"{tag.group()} within the text")
    if not trace.answer.strip():
        return Objection("empty_answer")
    return unrunnable(trace.answer) if verifier == "code" else None


def unrunnable(answer: str) -> Objection | None:
    """Object to an answer without exactly one program: `code_blocks`, `not_python`.

    Programs are the fenced blocks marked as Python; where there is none, the unmarked ones.
    Blocks in other languages, and unmarked ones beside a marked one (an example's output),
    are no programs. The one program must be closed and compile as Python; it is not run.
    """
    blocks = fenced_blocks(answer)
    marked = [block for block in blocks if block.language in _PYTHON]
    programs = marked or [block for block in blocks if not block.language]
    if len(programs) != 1:
        return Objection("code_blocks", f"{len(programs)} programs in the answer, 1 wanted")
    if not programs[0].closed:
        return Objection("code_blocks", "the program's block is never closed")
    if (fault := syntax_fault(programs[0].text)) is not None:
        return Objection("not_python", fault)
    return None


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a Markdown text."""

    language: str
    """The first word after the fence, in lower case; empty where there is none."""
    text: str
    """With the indentation of its opening fence taken off every line."""
    closed: bool


def fenced_blocks(text: str) -> list[Block]:
    """Return the fenced blocks (backticks or tildes) of a text, one never closed included."""
    blocks: list[Block] = []
    opening: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opening is None:
            opening = fence
        elif fence["ticks"].startswith(opening["ticks"]) and not fence["info"].strip():
            blocks.append(_block(opening, text[opening.end() + 1 : fence.start()], closed=True))
            opening = None
    if opening is not None:
        blocks.append(_block(opening, text[opening.end() + 1 :], closed=False))
    return blocks


def _block(opening: re.Match[str], inside: str, *, closed: bool) -> Block:
    width = len(opening.group()) - len(opening.group().lstrip())
    lines = [_outdent(line, width) for line in inside.split("\n")]
    language = (opening["info"].split() or [""])[0].lower()
    return Block(language, "\n".join(lines), closed)


def _outdent(line: str, width: int) -> str:
    """Remove up to `width` leading blanks: a block in a list is indented as a whole."""
    blanks = len(line) - len(line.lstrip(" \t"))
    return line[min(width, blanks) :]


def syntax_fault(program: str) -> str | None:
    """Return why a text is no Python program, or None; it is compiled and never run."""
    if not program.strip():
        return "the program is empty"
    if len(program) > LONGEST_PROGRAM:
        return f"{len(program):,} characters; {LONGEST_PROGRAM:,} are compiled"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `"\d"` warns, and runs
            compile(program, "<answer>", "exec", dont_inherit=True)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:
        # A null byte, a lone surrogate; nesting deeper than the compiler goes.
        return f"{type(error).__name__}: {error}"
    return None


def control_tokens(trace: Trace, tokens: Sequence[str]) -> Objection | None:
    """Object to the student's special `tokens` in the text: training would teach to emit them."""
    for token in tokens:
        if token in trace.reasoning or token in trace.answer:
            return Objection("control_token", token)
    return None


def outside(tokens: int, *, window: tuple[int, int]) -> Objection | None:
    """Object to a target of fewer or more tokens than the window: `too_short`, `too_long`."""
    low, high = window
    if tokens < low:
        return Objection("too_short", f"{tokens} tokens, at least {low} wanted")
    if tokens > high:
        return Objection("too_long", f"{tokens} tokens, at most {high} wanted")
    return None
