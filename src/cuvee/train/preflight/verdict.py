"""From the counts to what is said: `Findings`, with every finding in words.

`Totals` and the findings about the model in; steps, packing, histogram, estimates and the
findings of the whole set are made here. Not here: the checks themselves.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from cuvee.recipe import Train
from cuvee.train.preflight.checks import ROW_CHECKS
from cuvee.train.preflight.estimates import estimates
from cuvee.train.preflight.findings import KEPT_IDS, Finding, Findings, Level
from cuvee.train.preflight.packing import packed_lengths
from cuvee.train.preflight.totals import Totals

SHORTEST_EDGE = 16
_ORDER: Sequence[Level] = ("error", "warning", "note")


@dataclasses.dataclass(frozen=True)
class About:
    """What is known before the first row."""

    base: Path
    end_of_turn: str
    template_changes: Sequence[str]
    findings: Sequence[Finding]
    """Of tokenizer and model."""


def findings_of(totals: Totals, about: About, *, train: Train, processes: int) -> Findings:
    """Return what the preflight says; `processes` train together.

    Those that share a sequence (`launcher.sequence_parallel`) read the same rows and count
    once.
    """
    lengths = list(totals.trained_lengths)
    rows = packed_lengths(lengths, train.max_tokens) if train.packing else lengths
    readers = max(1, processes // train.launcher.sequence_parallel)
    per_epoch = _steps_per_epoch(len(rows), train, readers)
    taken = estimates(
        about.base,
        train,
        rows=rows,
        labelled=totals.answer_tokens / max(1, sum(lengths)),
        processes=processes,
    )
    full = len(rows) * train.max_tokens
    return Findings(
        examples=len(totals.lengths),
        kept=totals.kept,
        held_out=len(totals.held_out_ids),
        held_out_ids=totals.held_out_ids,
        dropped_too_long=totals.dropped,
        answer_tokens_dropped=totals.answer_tokens_dropped,
        tokens=sum(lengths),
        answer_tokens=totals.answer_tokens,
        longest=max(lengths, default=0),
        max_tokens=train.max_tokens,
        lengths=_histogram(totals.lengths, train.max_tokens),
        without_reasoning=totals.count("without_reasoning"),
        duplicates=totals.count("duplicates"),
        think_opened_by_prompt=totals.opened > 0,
        end_of_turn=about.end_of_turn,
        template_changes=list(about.template_changes),
        rows=len(rows),
        packing_efficiency=sum(lengths) / full if train.packing and rows else None,
        steps_per_epoch=per_epoch,
        steps=math.ceil(train.epochs * per_epoch),
        memory=taken.memory,
        seconds=taken.seconds,
        findings=_by_level(
            [*_of_set(totals, train), *_of_rows(totals), *_of_making(about, train), *taken.findings]
        ),
    )


def _by_level(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: _ORDER.index(finding.level))


def _steps_per_epoch(rows: int, train: Train, readers: int) -> int:
    """Return optimizer steps an epoch; the last one takes what is left."""
    batches = math.ceil(rows / (train.micro_batch * readers))
    return math.ceil(batches * train.micro_batch * readers / train.batch_size)


def _histogram(lengths: Iterable[int], max_tokens: int) -> dict[str, list[int]]:
    """Return counts by length, two bins an octave and an edge at `max_tokens`."""
    found = np.fromiter(lengths, dtype=np.int64)
    longest = max(max_tokens, int(found.max(initial=0)))
    halves = range(2 * math.ceil(math.log2(longest / SHORTEST_EDGE)))
    steps = {round(SHORTEST_EDGE * 2 ** (half / 2)) for half in halves}
    edges = sorted({0, *(step for step in steps if step < longest), max_tokens, longest})
    bins = np.searchsorted(edges, found, side="left") - 1
    counts = np.bincount(bins, minlength=len(edges) - 1)
    return {"edges": edges, "counts": [int(count) for count in counts]}


def _of_set(totals: Totals, train: Train) -> Iterator[Finding]:
    examples, kept = len(totals.lengths), totals.kept
    if examples == 0:
        yield Finding(
            "error",
            "empty",
            "the training set is empty: no example was selected; see what `select` dropped "
            "and why (04_examples/dropped), then loosen its filters or ask for more samples",
        )
        return
    if kept == 0:
        yield Finding(
            "error",
            "nothing_left",
            f"all {examples} examples are longer than train.max_tokens = {train.max_tokens} "
            f"(the shortest has {min(totals.lengths)} tokens): raise train.max_tokens",
        )
        return
    if totals.dropped:
        yield _too_long(totals, train)
    if train.held_out and not totals.held_out_ids:
        yield Finding(
            "error",
            "held_out_empty",
            f"train.held_out = {train.held_out:g} leaves no example held out: the examples "
            "that are not longer than train.max_tokens are of one problem alone; raise "
            "train.max_tokens, give more problems, or set train.held_out: 0",
        )
    yield from _repeats(totals)


def _repeats(totals: Totals) -> Iterator[Finding]:
    yield from _concerning(
        totals,
        "duplicates",
        "warning",
        "the tokens are those of an earlier row, which is trained on as often again; drop them "
        "where that is not meant",
    )
    yield from _concerning(
        totals,
        "prompt_on_both_sides",
        "warning",
        "the prompt is also trained on, or held out, under another problem id: the held-out loss "
        "is not of unseen questions",
    )


def _concerning(totals: Totals, check: str, level: Level, message: str) -> Iterator[Finding]:
    rows = totals.concerned.get(check)
    if rows is not None and rows.count:
        yield Finding(level, check, message, rows.count, tuple(rows.ids))


def _of_rows(totals: Totals) -> Iterator[Finding]:
    for check, (level, message) in ROW_CHECKS.items():
        yield from _concerning(totals, check, level, message)


def _of_making(about: About, train: Train) -> Iterator[Finding]:
    if train.weights == "bf16":
        yield Finding(
            "warning",
            "bf16_weights",
            "train.weights is bf16: updates smaller than about 1/256 of a weight are lost in it, "
            "most of them at usual learning rates; fp32 keeps them at twice the memory",
        )
    yield from about.findings
    for change in about.template_changes:
        yield Finding(
            "warning",
            "template_changed",
            f"changed in the base's tokenizer, and written with the specialist: {change}",
        )


def _too_long(totals: Totals, train: Train) -> Finding:
    dropped, examples = len(totals.dropped), len(totals.lengths)
    return Finding(
        "warning",
        "too_long",
        f"{dropped} of {examples} examples ({dropped / examples:.1%}) are longer than "
        f"train.max_tokens = {train.max_tokens} and are dropped whole, with "
        f"{totals.answer_tokens_dropped} tokens of reasoning and answer; the longest has "
        f"{max(totals.lengths)} tokens: raise train.max_tokens to keep them",
        dropped,
        tuple(totals.dropped[:KEPT_IDS]),
    )
