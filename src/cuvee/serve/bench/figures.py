"""What the times of answers say: tokens a second, waiting, and their spread over repeats.

The answers of one round (so many requests at once, once) in, its `Figures` out; the figures
of all repeats of a cell in, a `Cell` out. Pure arithmetic. Definitions, for the answers of a
round, each of which has some tokens in some pieces:

- prompt tokens/s: all prompt tokens the server had to read, by the time from the first request
  sent to the last first piece;
- generation tokens/s, each: tokens after an answer's first piece by the time from its first to
  its last; the median of the answers;
- generation tokens/s, all: the tokens of all answers while all were being generated: after the
  last first piece, up to the first last piece;
- overall tokens/s: all tokens by the whole round's time, reading of prompts included.

A server may put several tokens into a piece; each then counts as tokens / pieces of them.
"""

import dataclasses
import itertools
import math
import operator
import statistics
from collections.abc import Sequence

from cuvee.serve.bench.asking import Answer

FEWEST_PIECES = 3
"""Of an answer: with two there is one gap to say the speed from."""


@dataclasses.dataclass(frozen=True)
class Spread:
    """A figure over repeats: median, least and most."""

    median: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Figures:
    """What one round says."""

    prompt_per_second: float
    each_per_second: float
    all_per_second: float | None
    """None where all answers were being generated for too short a time, or at no time."""
    overall_per_second: float
    first_seconds: tuple[float, ...]
    """From a request sent to its first piece, each answer."""
    gap_seconds: tuple[float, ...]
    """Between one piece of an answer and its next, all answers."""
    tokens_a_piece: float
    prompt_tokens: tuple[int, ...]
    """Each prompt, as the server counts."""
    cached_tokens: int
    """Of all prompts: what the server had read before."""
    answer_tokens: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One model at one context length and concurrency, over all repeats."""

    prompt_per_second: Spread
    each_per_second: Spread
    all_per_second: Spread | None
    """None where a repeat has none."""
    overall_per_second: Spread
    first_seconds: Spread
    """Of the median of each repeat."""
    first_seconds_p95: float
    """Of all answers of all repeats."""
    gap_seconds: Spread
    """Of the median of each repeat."""
    gap_seconds_p95: float
    answers: int
    """Of all repeats together."""
    tokens_a_piece: float
    prompt_tokens: tuple[int, int]
    """Fewest and most of a prompt."""
    cached_tokens: int
    answer_tokens: tuple[int, int]
    """Fewest and most of an answer."""


def unusable(answers: Sequence[Answer], *, tokens: int, forced: bool) -> str | None:
    """Return why a round says nothing, or None where it does.

    `tokens` is what each answer was asked for; `forced`: the server was told not to make it
    fewer. Reasons are counted: `2 of 4 answers: HTTP 500: ...`.
    """
    reasons = [_fault(answer, tokens=tokens, forced=forced) for answer in answers]
    found = [reason for reason in reasons if reason is not None]
    if not found:
        return None
    first = found[0]
    others = len(found) - found.count(first)
    more = f" ({others} otherwise)" if others else ""
    return f"{len(found)} of {len(answers)} answers: {first}{more}"


def _fault(answer: Answer, *, tokens: int, forced: bool) -> str | None:
    if answer.failed is not None:
        return answer.failed
    if forced and answer.tokens != tokens:
        return f"{answer.tokens} tokens where {tokens} were asked for ({answer.finish_reason})"
    if len(answer.pieces) < FEWEST_PIECES:
        return f"{answer.tokens} tokens in {len(answer.pieces)} pieces: too few for a speed"
    if not answer.sent < answer.pieces[0] < answer.pieces[-1]:
        return "all pieces of the answer came at once: no speed can be told"
    if answer.prompt_tokens <= answer.cached_tokens:
        return "the server had read the whole prompt before"
    return None


def figures(answers: Sequence[Answer]) -> Figures:
    """Return what a round says; `unusable` must have nothing against it."""
    begin = min(answer.sent for answer in answers)
    last_first = max(answer.pieces[0] for answer in answers)
    read = sum(answer.prompt_tokens - answer.cached_tokens for answer in answers)
    tokens = sum(answer.tokens for answer in answers)
    end = max(answer.pieces[-1] for answer in answers)
    return Figures(
        prompt_per_second=read / (last_first - begin),
        each_per_second=statistics.median(_speed(answer) for answer in answers),
        all_per_second=_together(answers),
        overall_per_second=tokens / (end - begin),
        first_seconds=tuple(answer.pieces[0] - answer.sent for answer in answers),
        gap_seconds=tuple(gap for answer in answers for gap in _gaps(answer)),
        tokens_a_piece=tokens / sum(len(answer.pieces) for answer in answers),
        prompt_tokens=tuple(answer.prompt_tokens for answer in answers),
        cached_tokens=sum(answer.cached_tokens for answer in answers),
        answer_tokens=tuple(answer.tokens for answer in answers),
    )


def cell(rounds: Sequence[Figures]) -> Cell:
    """Return what the repeats of one cell say together; there is at least one."""
    together = [found.all_per_second for found in rounds if found.all_per_second is not None]
    waits = [wait for found in rounds for wait in found.first_seconds]
    gaps = [gap for found in rounds for gap in found.gap_seconds]
    prompts = [count for found in rounds for count in found.prompt_tokens]
    tokens = [count for found in rounds for count in found.answer_tokens]
    return Cell(
        prompt_per_second=spread([found.prompt_per_second for found in rounds]),
        each_per_second=spread([found.each_per_second for found in rounds]),
        all_per_second=spread(together) if len(together) == len(rounds) else None,
        overall_per_second=spread([found.overall_per_second for found in rounds]),
        first_seconds=spread([statistics.median(found.first_seconds) for found in rounds]),
        first_seconds_p95=percentile(waits, 95),
        gap_seconds=spread([statistics.median(found.gap_seconds) for found in rounds]),
        gap_seconds_p95=percentile(gaps, 95),
        answers=len(waits),
        tokens_a_piece=statistics.fmean(found.tokens_a_piece for found in rounds),
        prompt_tokens=(min(prompts), max(prompts)),
        cached_tokens=sum(found.cached_tokens for found in rounds),
        answer_tokens=(min(tokens), max(tokens)),
    )


def spread(values: Sequence[float]) -> Spread:
    """Return median, least and most of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the least value that `percent` % (in (0, 100]) of the values do not exceed.

    The nearest rank: always a value that was seen. Of fewer than 20 values the 95th is the
    largest.
    """
    return sorted(values)[math.ceil(percent / 100 * len(values)) - 1]


def _speed(answer: Answer) -> float:
    """Return the tokens a second of one answer after its first piece."""
    after = answer.tokens * (len(answer.pieces) - 1) / len(answer.pieces)
    return after / (answer.pieces[-1] - answer.pieces[0])


def _together(answers: Sequence[Answer]) -> float | None:
    """Return the tokens a second of all answers while all were being generated."""
    begin = max(answer.pieces[0] for answer in answers)
    end = min(answer.pieces[-1] for answer in answers)
    within = [sum(begin < piece <= end for piece in answer.pieces) for answer in answers]
    if min(within) < FEWEST_PIECES - 1:
        return None
    each = [answer.tokens / len(answer.pieces) for answer in answers]
    tokens = sum(map(operator.mul, each, within))
    return float(tokens / (end - begin))


def _gaps(answer: Answer) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(answer.pieces)]
