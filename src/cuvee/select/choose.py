"""The choice among the traces that are fit: which of them become examples.

Deterministic: the same candidates and seed give the same choice, in whatever order they
come. Problems are taken in the order of a seeded hash of their ids, so that a cap (`target`)
takes evenly from all sources; first one trace of every problem, then a second of every
problem, and so on up to `per_problem`.

Policies:

- `shortest`: of each problem the trace with the fewest tokens.
- `round_robin`: of each problem a trace of the teacher from whom the fewest were chosen so
  far (among those with one left for it), and of that teacher the shortest.

Ties go by hash. Not here: what makes a trace fit (`cuvee.select.filters`).
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from cuvee.records import Trace, content_hash

Policy = Literal["shortest", "round_robin"]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A trace that passed all filters."""

    trace: Trace
    tokens: int
    """Of reasoning + answer, by the student's tokenizer."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """Every candidate, in exactly one of three lists."""

    chosen: list[Candidate]
    """At most `target`, at most `per_problem` of one problem; in the order of choosing."""
    over_target: list[Candidate]
    """Would have been chosen without `target`."""
    not_chosen: list[Candidate]
    """Others of their problem were preferred."""


def choose(
    candidates: Sequence[Candidate],
    *,
    policy: Policy,
    per_problem: int,
    target: int | None,
    seed: int,
) -> Choice:
    """Choose up to `per_problem` (>= 1) candidates a problem, `target` (None: all) in total."""
    left: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        left.setdefault(candidate.trace.problem_id, []).append(candidate)
    problems = sorted(left, key=lambda problem: content_hash(seed, problem))
    taken: Counter[str] = Counter()
    order: list[Candidate] = []
    for _ in range(per_problem):
        for problem in problems:
            if not left[problem]:
                continue
            best = min(left[problem], key=lambda c: _rank(c, taken, policy=policy, seed=seed))
            left[problem].remove(best)
            taken[best.trace.model] += 1
            order.append(best)
    rest = [candidate for problem in problems for candidate in left[problem]]
    end = len(order) if target is None else target
    return Choice(chosen=order[:end], over_target=order[end:], not_chosen=rest)


def _rank(
    candidate: Candidate, taken: Counter[str], *, policy: Policy, seed: int
) -> tuple[int, str, int, str]:
    """Return what the candidates of a problem are ordered by; the least is taken."""
    trace = candidate.trace
    last = content_hash(seed, trace.id)
    if policy == "shortest":
        return (0, "", candidate.tokens, last)
    tie = content_hash(seed, trace.problem_id, trace.model)
    return (taken[trace.model], tie, candidate.tokens, last)
