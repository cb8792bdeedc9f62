"""A bench as tables for people and as JSON for machines.

`Measured` in; cells side by side, one line a model, what must be said beside the numbers, and
a JSON object with every round. Names and servers' words cannot steer the terminal. Not here:
the arithmetic (`figures`).
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from cuvee.progress import printable
from cuvee.serve.bench.figures import Cell, Spread, cell, spread
from cuvee.serve.bench.machine import bytes_a_token
from cuvee.serve.bench.subjects import Started, Subject
from cuvee.serve.bench.turns import Measured, Round, Settings

SEVERAL = 1.1
"""Tokens a piece from which on the time between pieces is not that between tokens."""
BUSY = 0.1
"""Of the cores: what others may use before it is said."""
GIGA = 1e9


@dataclasses.dataclass(frozen=True)
class Result:
    """One model at one context length and concurrency."""

    model: str
    context: int
    concurrency: int
    cell: Cell | None
    failed: str | None
    """Why there are no numbers; None where there are."""


@dataclasses.dataclass(frozen=True)
class Load:
    """What serving one model takes, over all its turns."""

    model: str
    file_bytes: int | None
    start_seconds: Spread | None
    peak_bytes: Spread | None
    weights_per_second: float | None
    """Bytes of weights read a second while one answer is generated, at the shortest context."""
    copy_per_second: Spread | None


def results(subjects: Sequence[Subject], settings: Settings, measured: Measured) -> list[Result]:
    """Return all cells, those to be compared next to each other."""
    return [
        _result(subject.name, context, at_once, measured)
        for context, at_once in settings.cells
        for subject in subjects
    ]


def _result(model: str, context: int, at_once: int, measured: Measured) -> Result:
    rounds = [
        r
        for r in measured.rounds
        if (r.model, r.context, r.concurrency) == (model, context, at_once)
    ]
    failed = [turn.failed for turn in measured.turns if turn.model == model and turn.failed]
    if failed:
        return Result(model, context, at_once, None, "its engine failed")
    bad = [r.failed for r in rounds if r.failed]
    if bad:
        return Result(
            model, context, at_once, None, f"{len(bad)} of {len(rounds)} repeats: {bad[0]}"
        )
    found = cell([r.figures for r in rounds if r.figures])
    return Result(model, context, at_once, found, None)


def loads(subjects: Sequence[Subject], found: Sequence[Result], measured: Measured) -> list[Load]:
    """Return what serving takes, of the models that cuvee started."""
    return [_load(s, found, measured) for s in subjects if isinstance(s, Started)]


def _load(subject: Started, found: Sequence[Result], measured: Measured) -> Load:
    turns = [turn for turn in measured.turns if turn.model == subject.name]

    def over(name: str) -> Spread | None:
        values = [value for turn in turns if (value := getattr(turn, name)) is not None]
        return spread(values) if values else None

    alone = [r.cell for r in found if r.model == subject.name and r.concurrency == 1 and r.cell]
    read = None
    if alone and subject.file is not None:
        weights = bytes_a_token(subject.file)
        read = weights and alone[0].each_per_second.median * weights
    return Load(
        subject.name,
        None if subject.file is None else subject.file.stat().st_size,
        over("start_seconds"),
        over("peak_bytes"),
        read,
        over("copy_bytes_per_second"),
    )


def cell_table(found: Sequence[Result]) -> Table:
    """Return the speeds as a table: a line a model, context length and concurrency."""
    table = Table(box=None, pad_edge=False)
    for name in ("prompt", "at once"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("model", overflow="fold")
    for name in ("prompt tok/s", "tok/s each", "tok/s all", "first s", "p95 s", "gap ms", "p95 ms"):
        table.add_column(name, justify="right")
    for result in found:
        head = (str(result.context), str(result.concurrency), Text(printable(result.model)))
        table.add_row(*head, *(["-"] * 7 if result.cell is None else _figures(result.cell)))
    return table


def _figures(found: Cell) -> list[str]:
    return [
        shown(found.prompt_per_second),
        shown(found.each_per_second),
        "-" if found.all_per_second is None else shown(found.all_per_second),
        shown(found.first_seconds),
        number(found.first_seconds_p95),
        shown(found.gap_seconds, unit=1e-3),
        number(found.gap_seconds_p95 / 1e-3),
    ]


def load_table(found: Sequence[Load]) -> Table:
    """Return what serving each model takes as a table."""
    table = Table(box=None, pad_edge=False)
    table.add_column("model", overflow="fold")
    for name in ("file GB", "memory GB", "start s", "weights GB/s", "copy GB/s"):
        table.add_column(name, justify="right")
    for load in found:
        table.add_row(
            Text(printable(load.model)),
            "-" if load.file_bytes is None else f"{load.file_bytes / GIGA:.3f}",
            "-" if load.peak_bytes is None else shown(load.peak_bytes, unit=GIGA),
            "-" if load.start_seconds is None else shown(load.start_seconds),
            "-" if load.weights_per_second is None else number(load.weights_per_second / GIGA),
            "-" if load.copy_per_second is None else shown(load.copy_per_second, unit=GIGA),
        )
    return table


def notes(found: Sequence[Result], settings: Settings, measured: Measured) -> list[str]:
    """Return what must be said beside the numbers, fit for a terminal."""
    said = [f"{turn.model}: {turn.failed}" for turn in measured.turns if turn.failed]
    said += [note for result in found for note in _cell_notes(result, settings)]
    busy = [turn.others_busy for turn in measured.turns if turn.others_busy is not None]
    cores = os.cpu_count() or 1
    if busy and max(busy) > BUSY * cores:
        said.append(
            f"other programs kept up to {max(busy):.1f} of {cores} cores busy: the numbers are "
            "lower than this machine's, and spread"
        )
    return ["\n".join(map(printable, text.splitlines())) for text in said]


def _cell_notes(result: Result, settings: Settings) -> list[str]:
    where = f"{result.model}, prompt {result.context}, {result.concurrency} at once"
    found = result.cell
    if found is None:
        return [f"{where}: no numbers: {result.failed}"]
    said = []
    if found.prompt_tokens != (result.context, result.context):
        said.append(f"prompts had {_range(found.prompt_tokens)} tokens")
    if found.answer_tokens != (settings.tokens, settings.tokens):
        said.append(f"answers had {_range(found.answer_tokens)} of {settings.tokens} tokens")
    if found.cached_tokens:
        said.append(f"{found.cached_tokens} prompt tokens had been read before, and do not count")
    if found.tokens_a_piece > SEVERAL:
        said.append(f"{found.tokens_a_piece:.1f} tokens came at once: gaps are between those")
    if found.all_per_second is None:
        said.append("the answers were hardly generated at the same time: no speed of all")
    return [f"{where}: {'; '.join(said)}"] if said else []


def _range(pair: tuple[int, int]) -> str:
    low, high = pair
    return str(low) if low == high else f"{low} to {high}"


def shown(found: Spread, *, unit: float = 1.0) -> str:
    """Return `median [least, most]` in a unit."""
    low, high = number(found.low / unit), number(found.high / unit)
    return f"{number(found.median / unit)} [{low}, {high}]"


def number(value: float) -> str:
    """Return a number >= 0 with three digits that count, and no exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def as_json(
    settings: Settings, measured: Measured, found: Sequence[Result], taken: Sequence[Load]
) -> dict[str, Any]:
    """Return all of a bench: settings, turns, every round, cells and what serving takes."""
    return {
        "settings": dataclasses.asdict(settings),
        "turns": [dataclasses.asdict(turn) for turn in measured.turns],
        "cells": [dataclasses.asdict(result) for result in found],
        "loads": [dataclasses.asdict(load) for load in taken],
        "rounds": [_round_json(one) for one in measured.rounds],
    }


def _round_json(one: Round) -> dict[str, Any]:
    """Return a round; of its answers when each was sent, began and ended, not every piece."""
    begin = min(answer.sent for answer in one.answers)
    answers = [
        {
            "sent": answer.sent - begin,
            "first": answer.pieces[0] - begin if answer.pieces else None,
            "last": answer.pieces[-1] - begin if answer.pieces else None,
            "pieces": len(answer.pieces),
            "prompt_tokens": answer.prompt_tokens,
            "cached_tokens": answer.cached_tokens,
            "tokens": answer.tokens,
            "finish_reason": answer.finish_reason,
            "failed": answer.failed,
        }
        for answer in one.answers
    ]
    figures = None
    if one.figures is not None:
        figures = dataclasses.asdict(one.figures)
        del figures["gap_seconds"]  # thousands; the cells have their median and p95
    return {
        "model": one.model,
        "context": one.context,
        "concurrency": one.concurrency,
        "repeat": one.repeat,
        "failed": one.failed,
        "figures": figures,
        "answers": answers,
    }
