"""Checks rows on a Ray cluster: the same functions as here, in one process a CPU.

Pairs of trace and problem, or rows of other programs, in; verdicts out, in order and the same
as the pool's. Rows pass by in chunks, so there may be any number. What a worker does not need
stays here: reasoning, questions. Not here: a judge's problems (they are asked of over HTTP, from
this process), and what a cluster is (`cuvee.workers`).
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cuvee.errors import DataError, RecipeError
from cuvee.progress import Tick, bar
from cuvee.recipe import Verify
from cuvee.records import Problem, Trace, Verdict
from cuvee.verify import sandbox as sandboxes
from cuvee.verify.check import NO_CHECKER, Pair, check_pairs
from cuvee.verify.rows import Reading, Row, bad_row, check_numbered
from cuvee.workers.chunks import in_chunks, map_chunks
from cuvee.workers.nodes import checked_cluster

CHUNK_ROWS = 256
CHUNK_CHARACTERS = 4 * 2**20
"""A chunk ends with the row that exceeds either: long enough to make Ray's cost small, short
enough that a lost worker costs seconds."""

Numbered = tuple[int, Row | DataError]


@contextlib.contextmanager
def opened(address: str | None, *, sandbox: str | None) -> Iterator[None]:
    """Be connected to a cluster whose nodes can check, while the block runs.

    `sandbox` is what programs are run in, None where there are none to run. Raises as
    `cluster` and `check_nodes` do.
    """
    with checked_cluster(address, functools.partial(find_faults, sandbox)):
        yield


def find_faults(sandbox: str | None) -> list[str]:
    """On a node: return why it cannot check, in words; nothing where it can."""
    try:
        if sandbox is not None:
            sandboxes.require(sandbox)
    except RecipeError as error:
        return [str(error)]
    return []


def check_pairs_on_ray(
    pairs: Iterable[Pair], *, limits: Verify, sandbox: str, tick: Tick
) -> Iterator[Verdict]:
    """Yield the verdict of each pair, in order, as `check_pairs` gives them.

    `limits.processes` is the most chunks that are worked on at once (None: one a CPU of the
    cluster). A row that lost every worker it was given to is `not_checked` (`worker_lost`).
    Raises what `check_pairs` raises in a worker, and CuveeError where nothing gets through.
    """
    return map_chunks(
        chunked(pairs),
        functools.partial(_check_pairs, limits=_of_one_worker(limits), sandbox=sandbox),
        given_up=_lost_pair,
        tick=tick,
        at_once=limits.processes,
    )


def check_traces_on_ray(
    traces: Sequence[Trace],
    problems: Mapping[str, Problem],
    *,
    limits: Verify,
    sandbox: str,
    label: str,
) -> list[Verdict]:
    """Check each trace against its problem (by id) as `check_traces` does without a judge.

    Raises as `check_pairs_on_ray` does.
    """
    slimmed = {name: slim(problem) for name, problem in problems.items()}
    pairs = (
        (dataclasses.replace(trace, reasoning=""), slimmed.get(trace.problem_id))
        for trace in traces
    )
    with bar(label, total=len(traces), unit="answers") as tick:
        return list(check_pairs_on_ray(pairs, limits=limits, sandbox=sandbox, tick=tick))


def slim(problem: Problem) -> Problem:
    """Return a problem without what only a judge reads: it goes along with every chunk."""
    return dataclasses.replace(problem, question="", prompt="", meta="{}")


def check_rows_on_ray(
    rows: Iterable[Row | DataError],
    reading: Reading,
    *,
    limits: Verify,
    sandbox: str,
    tick: Tick,
    start: int = 1,
) -> Iterator[Verdict]:
    """Yield the verdict of each row, in order, as `check_reading` does; raises as it does."""
    return map_chunks(
        chunked(enumerate(rows, start=start)),
        functools.partial(
            _check_rows, reading=reading, limits=_of_one_worker(limits), sandbox=sandbox
        ),
        given_up=functools.partial(_lost_row, reading=reading),
        tick=tick,
        at_once=limits.processes,
    )


def chunked(items: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield items in lists, each of CHUNK_ROWS or of so many that their texts are long."""
    return in_chunks(items, _characters, rows=CHUNK_ROWS, characters=CHUNK_CHARACTERS)


def _characters(item: Any) -> int:
    """Return the length of the texts that go to a worker with an item."""
    _, row = item
    if isinstance(row, dict):
        return sum(len(value) for value in row.values() if isinstance(value, str))
    trace, problem = item
    texts = (trace.answer, problem.gold, problem.tests) if problem else ()
    return sum(len(text or "") for text in texts)


def _of_one_worker(limits: Verify) -> Verify:
    return limits.model_copy(update={"processes": 1})


def _check_pairs(pairs: list[Pair], *, limits: Verify, sandbox: str) -> list[Verdict]:
    """In a worker: check a chunk of pairs."""
    return check_pairs(pairs, limits=limits, sandbox=sandbox, tick=_uncounted)


def _check_rows(
    rows: list[Numbered], *, reading: Reading, limits: Verify, sandbox: str
) -> list[Verdict]:
    """In a worker: read and check a chunk of rows."""
    return check_numbered(rows, reading, limits=limits, sandbox=sandbox)


def _uncounted(_: int) -> None:
    """Tick nothing: rows are counted where the chunk comes back."""


def _lost_pair(pair: Pair, why: str) -> Verdict:
    trace, _ = pair
    return Verdict(
        trace_id=trace.id,
        problem_id=trace.problem_id,
        domain=trace.domain,
        verdict="not_checked",
        reason="worker_lost",
        extracted=None,
        expected=None,
        detail=why,
        checker=NO_CHECKER,
        seconds=0.0,
    )


def _lost_row(numbered: Numbered, why: str, *, reading: Reading) -> Verdict:
    number, row = numbered
    return bad_row(row, number, why, reading, reason="worker_lost")
