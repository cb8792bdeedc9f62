"""What a task leaves out of its problems: copies, repeats, overlaps, golds that do not stand.

Each function takes problems one by one and yields those that stay, in order; the others go
to `drop` as rows with their reasons, which begin with the place in the source. However many
problems there are, only a chunk of them is held at once. Not here: how a repeat or an overlap
is found (`cuvee.problems.dedup`, `decontaminate`), how a gold is checked (`cuvee.verify`), and
on which machine (`cuvee.problems.clustered`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from cuvee.problems import dedup
from cuvee.problems.decontaminate import Overlap
from cuvee.progress import Tick
from cuvee.recipe import Verify
from cuvee.records import Dropped, Problem, Verdict
from cuvee.verify.check import check_gold_pairs, dress
from cuvee.verify.sandbox import require
from cuvee.workers.chunks import in_chunks

Drop = Callable[[Dropped], None]

CHUNK_ROWS = 2048
CHUNK_CHARACTERS = 32 * 2**20
"""Golds are checked by chunks; one ends with the problem that exceeds either."""


class Fault(NamedTuple):
    """Why a problem is left out."""

    reason: str
    detail: str


UNCHECKED = ("no_gold", "no_verifier", "no_judge")
"""Reasons of `not_checked` that say nothing against a problem; judges cost tokens."""

NOTHING_TO_CHECK = Fault("", "")
"""Of a problem that stays although nothing was checked."""

GoldCheck = Callable[[Sequence[Problem], Tick], Sequence[Fault | None]]
"""What is wrong with each problem's gold: None for nothing, or `NOTHING_TO_CHECK`."""


def without_copies(problems: Iterable[Problem], *, drop: Drop) -> Iterator[Problem]:
    """Leave out problems with an earlier one's question, gold and tests."""
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            drop(_dropped(problem, "exact_duplicate", "same question and gold"))
        else:
            seen.add(problem.id)
            yield problem


def without_repeats(
    problems: Iterable[Problem], repeats: Iterable[dedup.Repeat | None], *, drop: Drop
) -> Iterator[Problem]:
    """Leave out exact and near duplicates; `repeats` are those of the same problems."""
    for problem, repeat in zip(problems, repeats, strict=True):
        if repeat is None:
            yield problem
        else:
            drop(_dropped(problem, repeat.reason, repeat.detail))


def without_overlaps(
    problems: Iterable[tuple[Problem, Overlap | Fault | None]], *, drop: Drop
) -> Iterator[Problem]:
    """Leave out what overlaps a benchmark's question; each problem comes with what was found."""
    for problem, overlap in problems:
        if overlap is None:
            yield problem
        else:
            drop(_dropped(problem, overlap.reason, overlap.detail))


def with_sound_golds(
    problems: Iterable[Problem],
    check: GoldCheck,
    *,
    drop: Drop,
    unchecked: Callable[[Problem], None],
    tick: Tick,
) -> Iterator[Problem]:
    """Leave out problems whose gold is wrong by their own verifier, or cannot be checked.

    Those that have nothing to check stay and go to `unchecked` too. Raises what `check` does.
    """
    for chunk in in_chunks(problems, _length, rows=CHUNK_ROWS, characters=CHUNK_CHARACTERS):
        for problem, fault in zip(chunk, check(chunk, tick), strict=True):
            if fault == NOTHING_TO_CHECK:
                unchecked(problem)
            elif fault is not None:
                drop(_dropped(problem, fault.reason, fault.detail))
                continue
            yield problem


def check_golds(
    problems: Sequence[Problem], tick: Tick, *, limits: Verify, sandbox: str
) -> list[Fault | None]:
    """Return what is wrong with each problem's gold by its own verifier (`GoldCheck`).

    Raises RecipeError where there is code to run and no sandbox to run it in.
    """
    if any(problem.verifier == "code" for problem in problems):
        require(sandbox)
    pairs = [(dress(problem), problem) for problem in problems]
    verdicts = check_gold_pairs(pairs, limits=limits, sandbox=sandbox, tick=tick)
    return list(map(_fault, problems, verdicts))


def _length(problem: Problem) -> int:
    return len(problem.question) + len(problem.gold or "") + len(problem.tests or "")


def _fault(problem: Problem, verdict: Verdict) -> Fault | None:
    if verdict.verdict == "correct":
        return None
    cannot = verdict.verdict == "not_checked"
    if cannot and verdict.reason in UNCHECKED:
        return NOTHING_TO_CHECK
    told = [verdict.verdict, verdict.reason, verdict.detail, (problem.gold or "")[:200]]
    detail = ": ".join(part for part in told if part)
    return Fault("gold_not_checkable" if cannot else "gold_not_verified", detail)


def _dropped(problem: Problem, reason: str, detail: str) -> Dropped:
    told = f"{problem.source} {problem.place}: {detail}"
    return Dropped(problem.id, problem.domain, "problem", None, reason, told)
