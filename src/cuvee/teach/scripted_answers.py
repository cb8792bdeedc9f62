r"""What a scripted teacher says: worked answers to generated problems, and known faults.

In: a generated problem, a style, a fault. Out: `Reply`, as it would be sent. The reasoning
is what a small student can learn from: for arithmetic one elementary operation a line, tens
before units ("12 + 30 = 42", "42 + 8 = 50"), for functions the heart of each line of code.
The answer is the same in every style: "The answer is \boxed{50}." or one code block.
Not here: HTTP, and which request meets which fault (`cuvee.teach.scripted`).
"""

import dataclasses
import json
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from cuvee.errors import DataError
from cuvee.problems import arithmetic, functions, operations
from cuvee.problems.operations import KINDS, Pipeline
from cuvee.records import Problem

Style = Literal["plain", "verbose", "terse"]
CONTENT_FAULTS = ("wrong_result", "no_answer", "truncated", "second_language", "repetition")

PIECE = re.compile(r"\w{1,4}|[^\w\s]")
"""What counts as a token here: up to four letters or digits, or one other sign."""

CHINESE = (
    "我们先仔细读一遍题目，弄清楚每一步要做什么。",
    "然后按照顺序，一步一步地往下计算，不要着急。",
    "这一步没有问题，我们继续看下一步应该怎么处理。",
    "最后再检查一遍，确认结果是正确的。",
)
REPEATED = "Let me look at this step once more before I go on."
REPEATS = 15
NO_ANSWER = "I am not sure how this ends, so I leave it open."


@dataclasses.dataclass(frozen=True)
class Working:
    """A worked problem: lines of reasoning (short, and in words) and what is handed in."""

    short: tuple[str, ...]
    long: tuple[str, ...]
    answer: str


@dataclasses.dataclass(frozen=True)
class Reply:
    """A message as it is sent."""

    reasoning: str
    """`reasoning_content`; empty in the styles that put the reasoning into the text."""
    content: str
    finish_reason: Literal["stop", "length"]


def reply(problem: Problem, *, style: Style, fault: str, rng: random.Random) -> Reply:
    """Return a teacher's reply with a fault of content (`none` for a sound one).

    Raises DataError for a problem that no generator of cuvee made.
    """
    meta = _meta(problem)
    working = _wrong(problem, meta, rng) if fault == "wrong_result" else _worked(meta)
    lines = list(working.long if style == "verbose" else working.short)
    if fault == "second_language":
        lines = _with_chinese(lines)
    if fault == "repetition":
        lines += [REPEATED] * REPEATS
    reasoning = "\n".join(lines)
    if fault == "truncated":
        pieces = count_pieces(reasoning)
        cut_off = cut(reasoning, max(1, rng.randrange(pieces // 4, max(pieces * 3 // 4, 2))))
        return _written(style, cut_off, None)
    return _written(style, reasoning, NO_ANSWER if fault == "no_answer" else working.answer)


def count_pieces(text: str) -> int:
    """Return the tokens of a text by the rule of `PIECE`."""
    return sum(1 for _ in PIECE.finditer(text))


def cut(text: str, most: int) -> str:
    """Return the text up to its first `most` tokens (all of it if it has no more)."""
    for number, match in enumerate(PIECE.finditer(text)):
        if number == most:
            return text[: match.start()].rstrip()
    return text


def limit(sent: Reply, most: int) -> Reply:
    """Return the reply as a server with `max_tokens` of `most` sends it, reasoning first."""
    if count_pieces(sent.reasoning) + count_pieces(sent.content) <= most:
        return sent
    reasoning = cut(sent.reasoning, most)
    content = cut(sent.content, most - count_pieces(reasoning))
    return Reply(reasoning, content, "length")


def check_scriptable(problems: Sequence[Problem]) -> None:
    """Raise DataError at the first problem that no generator of cuvee made."""
    for problem in problems:
        _meta(problem)


def _meta(problem: Problem) -> dict[str, Any]:
    meta = json.loads(problem.meta)
    if meta.get("generator") not in ("arithmetic", "functions"):
        raise DataError(
            f"problem {problem.id} of {problem.source}: scripted teachers answer problems of "
            "generator:arithmetic and generator:functions alone; use `url` or `serve`"
        )
    return dict(meta)


def _written(style: Style, reasoning: str, answer: str | None) -> Reply:
    """Return the message in a style; without an answer it was cut in its reasoning."""
    finish: Literal["stop", "length"] = "length" if answer is None else "stop"
    if style == "verbose":
        return Reply(reasoning, answer or "", finish)
    begin = "<think>\n" if style == "plain" else ""
    end = "" if answer is None else f"\n</think>\n\n{answer}"
    return Reply("", f"{begin}{reasoning}{end}", finish)


def _with_chinese(lines: Sequence[str]) -> list[str]:
    mixed = [CHINESE[0]]
    for number, line in enumerate(lines):
        mixed += [line, CHINESE[1 + number % (len(CHINESE) - 1)]]
    return mixed


def _worked(meta: dict[str, Any]) -> Working:
    if meta["generator"] == "arithmetic":
        return _sum(meta["numbers"], meta["operators"])
    return _function(operations.from_meta(meta))


def _sum(numbers: Sequence[int], operators: Sequence[str], *, slip: int = 0) -> Working:
    """Return worked arithmetic; `slip` is added to the last result."""
    done = [
        part for step in arithmetic.steps(numbers, operators) for part in _elementary(*step[:3])
    ]
    if slip:
        done[-1] = (*done[-1][:3], done[-1][3] + slip)
    equations = [f"{left} {sign} {right} = {result}" for left, sign, right, result in done]
    answer = f"The answer is \\boxed{{{done[-1][3]}}}."
    words = ["First,", *["Then"] * (len(equations) - 1)]
    told = [f"{word} {equation}." for word, equation in zip(words, equations, strict=True)]
    begin = "Let me work this out, tens before units."
    end = f"All numbers are used, and we get {done[-1][3]}."
    return Working(("Step by step:", *equations), (begin, *told, end), answer)


def _elementary(left: int, sign: str, right: int) -> Iterator[arithmetic.Step]:
    """Yield an operation as one or two easier ones: the tens of `right`, then its units."""
    tens, units = right - right % 10, right % 10
    whole = arithmetic.apply(left, sign, right)
    if sign == "*" or not tens or not units:
        yield left, sign, right, whole
        return
    between = arithmetic.apply(left, sign, tens)
    yield left, sign, tens, between
    yield between, sign, units, whole


def _function(pipeline: Pipeline) -> Working:
    kind = KINDS[pipeline.kind]
    done = [(kind.steps[name], k) for name, k in pipeline.steps]
    final = (kind.finals[pipeline.final[0]], pipeline.final[1])
    notes = [operations.note(*step) for step in done]
    returned = f"return {operations.note(*final)}"
    words = ["First", *["Then"] * (len(done) - 1)]
    told = [
        f"{word} it {operations.english(*step)}: {note}"
        for word, step, note in zip(words, done, notes, strict=True)
    ]
    begin = f"The function solve({kind.variable}) takes {kind.takes}."
    end = f"Last it returns {operations.english(*final)}: {returned}"
    code = f"```python\n{operations.source(pipeline)}\n```"
    return Working(("Step by step:", *notes, returned), (begin, *told, end), code)


def _wrong(problem: Problem, meta: dict[str, Any], rng: random.Random) -> Working:
    """Return plausible work with a result that is really wrong.

    Arithmetic: a term left out, a sign or digit misread, or the last result off by 1 or 10.
    Functions: a step left out, two swapped, or a constant or the return misread. Whether it
    is wrong is checked against the gold or the tests. Raises DataError if nothing is.
    """
    if meta["generator"] == "arithmetic":
        tries = list(_wrong_sums(meta["numbers"], meta["operators"]))
        rng.shuffle(tries)
        right = _sum(meta["numbers"], meta["operators"]).answer
        found = next((other for other in tries if other.answer != right), None)
    else:
        pipelines = list(_wrong_pipelines(operations.from_meta(meta)))
        rng.shuffle(pipelines)
        cases = json.loads(problem.tests or "{}")["cases"]
        differing = (p for p in pipelines if functions.differs(p, cases))
        found = next((_function(p) for p in differing), None)
    if found is None:
        raise DataError(f"problem {problem.id}: no wrong answer is at hand")
    return found


def _wrong_sums(numbers: Sequence[int], operators: Sequence[str]) -> Iterator[Working]:
    for slip in (-10, -1, 1, 10):
        yield _sum(numbers, operators, slip=slip)
    for at in range(len(operators)):
        turned = "-" if operators[at] == "+" else "+"
        yield _sum(numbers, [*operators[:at], turned, *operators[at + 1 :]])
        misread = numbers[at + 1] + 1
        yield _sum([*numbers[: at + 1], misread, *numbers[at + 2 :]], operators)
        if len(operators) > 1:
            fewer = [*operators[:at], *operators[at + 1 :]]
            yield _sum([*numbers[: at + 1], *numbers[at + 2 :]], fewer)


def _wrong_pipelines(pipeline: Pipeline) -> Iterator[Pipeline]:
    kind, steps = KINDS[pipeline.kind], pipeline.steps
    for at, (name, constant) in enumerate(steps):
        if len(steps) > 1:
            yield operations.without(pipeline, at)
        if at:
            swapped = (*steps[: at - 1], steps[at], steps[at - 1], *steps[at + 1 :])
            yield dataclasses.replace(pipeline, steps=swapped)
        for other in kind.steps[name].constants:
            if other != constant:
                changed = (*steps[:at], (name, other), *steps[at + 1 :])
                yield dataclasses.replace(pipeline, steps=changed)
    for name, operation in kind.finals.items():
        if name != pipeline.final[0]:
            yield dataclasses.replace(pipeline, final=(name, operation.constants[0]))
