"""What a task leaves out of its problems: copies, repeats, overlaps, golds that do not stand.

Each function takes problems one by one and yields those that stay, in order; the others go
to `drop` as rows with their reasons, which begin with the place in the source. However many
problems there are, only a chunk of them is held at once. Not here: how a repeat or an overlap
is found (`cuvee.problems.dedup`, `decontaminate`), how a gold is checked (`cuvee.verify`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from cuvee.problems import decontaminate, dedup
from cuvee.progress import Tick
from cuvee.recipe import Recipe
from cuvee.records import Dropped, Problem, Verdict
from cuvee.verify.check import check_gold_pairs, dress
from cuvee.verify.sandbox import require

Drop = Callable[[Dropped], None]

CHUNK_ROWS = 2048
CHUNK_CHARACTERS = 32 * 2**20
"""Golds are checked by chunks; one ends with the problem that exceeds either."""

UNCHECKED = ("no_gold", "no_verifier", "no_judge")
"""Reasons of `not_checked` that say nothing against a problem; judges cost tokens."""


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
    problems: Iterable[Problem], benchmarks: Mapping[str, Sequence[Problem]], *, drop: Drop
) -> Iterator[Problem]:
    """Leave out what overlaps a benchmark's question."""
    index = decontaminate.build_index(benchmarks)
    for problem, overlap in decontaminate.find_overlaps(problems, index):
        if overlap is None:
            yield problem
        else:
            drop(_dropped(problem, overlap.reason, overlap.detail))


def with_sound_golds(
    problems: Iterable[Problem],
    recipe: Recipe,
    *,
    drop: Drop,
    unchecked: Callable[[Problem], None],
    tick: Tick,
) -> Iterator[Problem]:
    """Leave out problems whose gold is wrong by their own verifier, or cannot be checked.

    Those that have nothing to check stay and go to `unchecked` too. Raises RecipeError where
    there is code to run and no sandbox to run it in.
    """
    for chunk in _chunks(problems):
        if any(problem.verifier == "code" for problem in chunk):
            require(recipe.sandbox)
        pairs = [(dress(problem), problem) for problem in chunk]
        verdicts = check_gold_pairs(pairs, limits=recipe.verify, sandbox=recipe.sandbox, tick=tick)
        for problem, verdict in zip(chunk, verdicts, strict=True):
            if verdict.verdict == "correct":
                yield problem
            elif verdict.verdict == "not_checked" and verdict.reason in UNCHECKED:
                unchecked(problem)
                yield problem
            else:
                drop(_failed(problem, verdict))


def _chunks(problems: Iterable[Problem]) -> Iterator[list[Problem]]:
    chunk: list[Problem] = []
    characters = 0
    for problem in problems:
        chunk.append(problem)
        characters += len(problem.question) + len(problem.gold or "") + len(problem.tests or "")
        if len(chunk) >= CHUNK_ROWS or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _failed(problem: Problem, verdict: Verdict) -> Dropped:
    cannot = verdict.verdict == "not_checked"
    told = [verdict.verdict, verdict.reason, verdict.detail, (problem.gold or "")[:200]]
    detail = ": ".join(part for part in told if part)
    return _dropped(problem, "gold_not_checkable" if cannot else "gold_not_verified", detail)


def _dropped(problem: Problem, reason: str, detail: str) -> Dropped:
    told = f"{problem.source} {problem.place}: {detail}"
    return Dropped(problem.id, problem.domain, "problem", None, reason, told)
