"""The filters and the counting of tokens on a Ray cluster: the same functions as here.

Traces in, candidates and dropped rows out, in the order of the pool. What needs no text is
decided here (how a trace ended, its verdict, its problem's pass rate), and that traces,
verdicts and problems pair; the other traces go out in chunks. The student's tokenizer is loaded
here, from wherever the base is, and goes to each worker process once: no node needs the base's
files. Not here: votes, the choice and the writing of examples, which stay in this process, and
what a cluster is (`cuvee.workers`).
"""

import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cuvee.progress import Tick
from cuvee.recipe import Domain
from cuvee.records import Dropped, Trace
from cuvee.select.objection import Objection
from cuvee.select.sift import (
    Asked,
    Case,
    Judged,
    Sifted,
    Student,
    arranged,
    cases,
    drop,
    sift_cases,
)
from cuvee.workers.chunks import in_chunks, map_chunks
from cuvee.workers.cluster import require_ray

CHUNK_ROWS = 256
CHUNK_CHARACTERS = 2**20
"""A chunk ends with the trace that exceeds either. Smaller than where answers are checked: a
trace costs a worker milliseconds, and the driver holds the texts of several chunks a CPU."""

LOST = "worker_lost"


def sift_on_ray(
    traces: Iterable[Trace],
    said: Judged,
    problems: Mapping[str, Asked],
    *,
    domain: Domain,
    student: Student,
    tick: Tick,
) -> Iterator[Sifted]:
    """Yield what becomes of each trace, as `sift` does.

    A trace that lost every worker it was given to is dropped (`worker_lost`): no filter has
    read it, so it is none to train on; and it may be the trace that kills, so it is not read
    here. Raises as `sift` does, and CuveeError where nothing gets through.
    """
    work = functools.partial(_sift, domain=domain, student=require_ray().put(student))
    chunks = in_chunks(
        cases(traces, said, problems, select=domain.select),
        _characters,
        rows=CHUNK_ROWS,
        characters=CHUNK_CHARACTERS,
    )
    return arranged(map_chunks(chunks, work, given_up=_lost, tick=tick))


def _characters(case: Case | Dropped) -> int:
    if isinstance(case, Dropped):
        return 0
    trace, asked = case.trace, case.asked
    return sum(map(len, (trace.reasoning, trace.answer, asked.question, asked.prompt)))


def _sift(batch: Sequence[Case | Dropped], *, domain: Domain, student: Any) -> list[Sifted]:
    """In a worker: sift a chunk; `student` is a reference to the student."""
    return sift_cases(batch, domain=domain, student=_student(student))


@functools.lru_cache(maxsize=1)
def _student(reference: Any) -> Student:
    """In a worker: return the student, fetched once a process."""
    # A worker has one CPU: the tokenizer must not take those of the others.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    student: Student = require_ray().get(reference)
    return student


def _lost(case: Case | Dropped, why: str) -> Sifted:
    return case if isinstance(case, Dropped) else drop(case.trace, Objection(LOST, why))
