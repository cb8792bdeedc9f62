"""The measuring itself: every model in turns, every cell of concurrency and context length.

Subjects and settings in, `Turn`s and `Round`s out. In each repeat every model is started,
warmed up, measured in all cells and ended, in an order that moves on by one with the repeat:
so the machine's drift hits all alike, and never two engines share its memory and cores. Not
here: what is asked (`prompts`), what the times say (`figures`).
"""

import asyncio
import dataclasses
import os
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from cuvee.errors import EngineError
from cuvee.models.engines import serve
from cuvee.progress import Tick
from cuvee.serve.bench.asking import Answer, opened
from cuvee.serve.bench.figures import Figures, figures, unusable
from cuvee.serve.bench.machine import busy_cores, copy_bytes_per_second, peak_bytes
from cuvee.serve.bench.prompts import Server, meet
from cuvee.serve.bench.subjects import Remote, Started, Subject

WARM_PROMPT, WARM_TOKENS = 16, 8
ROOM = 16
"""Tokens of context beyond prompt and answer: an engine may want one or two of its own."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured."""

    concurrency: tuple[int, ...]
    """Requests at once, ascending."""
    context: tuple[int, ...]
    """Tokens of a prompt, ascending."""
    tokens: int
    """Of an answer."""
    repeats: int
    seed: int
    """Of the prompts; a new one for each bench, or a server's cache knows them."""

    @property
    def slots(self) -> int:
        """Return how many requests an engine must answer at once."""
        return self.concurrency[-1]

    @property
    def slot_context(self) -> int:
        """Return the tokens that the longest prompt and its answer need."""
        return self.context[-1] + self.tokens + ROOM

    @property
    def cells(self) -> list[tuple[int, int]]:
        """Return (context, concurrency) of every cell, in the order of measuring."""
        return [(context, at_once) for context in self.context for at_once in self.concurrency]


@dataclasses.dataclass(frozen=True)
class Round:
    """So many requests at once, once."""

    model: str
    context: int
    concurrency: int
    repeat: int
    answers: tuple[Answer, ...]
    figures: Figures | None
    failed: str | None
    """Why it says nothing; None where it has figures."""


@dataclasses.dataclass(frozen=True)
class Turn:
    """One model's part of one repeat."""

    model: str
    repeat: int
    start_seconds: float | None = None
    """Until the engine answered its health check; None of a URL."""
    peak_bytes: int | None = None
    """Memory of the engine at its most, weights included; None of a URL."""
    copy_bytes_per_second: float | None = None
    """What plain copies moved just before; None of a URL."""
    others_busy: float | None = None
    """Cores that other programs kept busy just before; None of a URL."""
    failed: str | None = None
    """Why it could not be measured."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """All of a bench."""

    turns: list[Turn]
    rounds: list[Round]


def measure(
    subjects: Sequence[Subject], settings: Settings, *, folder: Path, tick: Tick
) -> Measured:
    """Measure all subjects in turns; engines keep their logs in `folder`.

    `tick` hears of each round. A model whose engine does not start or dies has no more turns,
    with the reason in its last. Raises EngineError where a URL does not answer at all.
    """
    measured = Measured([], [])
    for repeat in range(settings.repeats):
        for subject in _in_turn(subjects, repeat):
            if any(t.failed for t in measured.turns if t.model == subject.name):
                tick(len(settings.cells))
                continue
            where = _Where(subject.name, settings, repeat, tick)
            if isinstance(subject, Remote):
                measured.rounds.extend(_rounds(subject.url, subject.model, subject.secret, where))
                measured.turns.append(Turn(subject.name, repeat))
            else:
                turn, rounds = _started_turn(subject, where, folder=folder)
                measured.turns.append(turn)
                measured.rounds.extend(rounds)
    return measured


@dataclasses.dataclass(frozen=True)
class _Where:
    """Where in the bench one is."""

    name: str
    settings: Settings
    repeat: int
    tick: Tick


def _in_turn(subjects: Sequence[Subject], repeat: int) -> Iterator[Subject]:
    first = repeat % len(subjects)
    yield from subjects[first:]
    yield from subjects[:first]


def _started_turn(subject: Started, where: _Where, *, folder: Path) -> tuple[Turn, list[Round]]:
    """Start an engine, measure all cells and end it."""
    busy = busy_cores()
    copied = copy_bytes_per_second(subject.spec.threads or os.cpu_count() or 1)
    turn = Turn(subject.name, where.repeat, copy_bytes_per_second=copied, others_busy=busy)
    rounds: list[Round] = []
    begin = time.monotonic()
    try:
        with serve(subject.spec, subject.model, name="bench", folder=folder) as engine:
            seconds = time.monotonic() - begin
            rounds = _rounds(engine.url, engine.model, None, where)
            peak = peak_bytes(engine.pid)
            return dataclasses.replace(turn, start_seconds=seconds, peak_bytes=peak), rounds
    except EngineError as error:
        where.tick(len(where.settings.cells) - len(rounds))
        return dataclasses.replace(turn, failed=str(error)), rounds


def _rounds(url: str, model: str, secret: str | None, where: _Where) -> list[Round]:
    return asyncio.run(_all_cells(url, model, secret, where))


async def _all_cells(url: str, model: str, secret: str | None, where: _Where) -> list[Round]:
    """Warm a server up and measure every cell once."""
    settings, rounds = where.settings, []
    async with opened(url, model, secret=secret) as place:
        rng = random.Random(f"{settings.seed} {where.repeat}")
        server = await meet(place, rng)
        await _at_once(server, settings.slots, WARM_PROMPT, WARM_TOKENS, rng)
        for context, at_once in settings.cells:
            answers = await _at_once(server, at_once, context, settings.tokens, rng)
            failed = unusable(answers, tokens=settings.tokens, forced=server.forces_length)
            found = None if failed else figures(answers)
            done = Round(where.name, context, at_once, where.repeat, answers, found, failed)
            rounds.append(done)
            where.tick(1)
    return rounds


async def _at_once(
    server: Server, count: int, prompt: int, tokens: int, rng: random.Random
) -> tuple[Answer, ...]:
    return tuple(await asyncio.gather(*(server.ask(prompt, tokens, rng) for _ in range(count))))
