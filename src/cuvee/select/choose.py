"""The choice among the traces that are fit: which of them become examples.

Deterministic: the same candidates and seed give the same choice, in whatever order they
come. Two steps, one place at a time:

1. **Whose turn is it?** Without `balance`, problems come in the order of a seeded hash of
   their ids: first one trace of every problem, then a second of every problem, and so on up
   to `per_problem`. With `balance`, the next place goes to the group (the source, the band of
   difficulty, or the band within the source) that has the fewest so far among those with
   something left, and within it in that same order. So the groups are as even as what is
   there allows, and a lower `target` takes the beginning of the same choice.
2. **Which of its traces?** `shortest`: the fewest tokens. `closest`: the count of tokens
   nearest to `length`, the shorter of two as near. `best`: the one whose lowest point of the
   rubric is the highest, then the mean of its points, then the shorter; what was not graded
   comes last. `round_robin`: one of the teacher from whom
   the fewest were chosen so far, and of that teacher's the shortest.

Ties go by hash, or by id, which is one. A text that two traces of a problem share counts
once. Not here: what makes a trace fit (`cuvee.select.sift`).
"""

import dataclasses
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence, Sized

from cuvee.recipe import Select
from cuvee.records import content_hash


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A trace that passed all filters; its texts stay in its file."""

    id: str
    problem_id: str
    teacher: str
    tokens: int
    """Of reasoning + answer, by the student's tokenizer."""
    text: str
    """Hash of reasoning and answer."""
    grades: tuple[float, float] = (0, 0)
    """By the rubric: the lowest point and the mean of all, in [1, 5]; 0 where not graded."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """Every candidate, in exactly one of four lists."""

    chosen: list[Candidate]
    """At most `target`, at most `per_problem` of one problem; in the order of choosing."""
    over_target: list[Candidate]
    """Would have been chosen without `target`."""
    not_chosen: list[Candidate]
    """Others of their problem were preferred."""
    same_text: list[Candidate]
    """A trace of the same problem that comes before says the same, word for word."""


def choose(
    candidates: Sequence[Candidate],
    *,
    select: Select,
    groups: Mapping[str, tuple[str, ...]],
    seed: int,
) -> Choice:
    """Choose up to `select.per_problem` candidates a problem, `select.target` in total.

    `groups`: problem -> its group in each of `select.balance`, in that order (empty without
    balance); `target` is met exactly where there are enough.
    """
    left: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        left.setdefault(candidate.problem_id, []).append(candidate)
    places = {
        problem: min(select.per_problem, len({candidate.text for candidate in left[problem]}))
        for problem in sorted(left, key=lambda problem: content_hash(seed, problem))
    }
    taken: Counter[str] = Counter()
    order: list[Candidate] = []
    same_text: list[Candidate] = []
    for problem in turns(places, groups, seed=seed):
        best = min(left[problem], key=lambda c: _rank(c, taken, select=select, seed=seed))
        order.append(best)
        taken[best.teacher] += 1
        same_text += [c for c in left[problem] if c.text == best.text and c != best]
        left[problem] = [c for c in left[problem] if c.text != best.text]
    end = len(order) if select.target is None else select.target
    return Choice(
        chosen=order[:end],
        over_target=order[end:],
        not_chosen=[candidate for problem in places for candidate in left[problem]],
        same_text=same_text,
    )


def turns(
    places: Mapping[str, int], groups: Mapping[str, tuple[str, ...]], *, seed: int
) -> Iterator[str]:
    """Yield each problem as often as it has places, in the order in which places are filled.

    `places` in the order in which problems of one group come. All groups have one length.
    """
    members: dict[tuple[str, ...], deque[str]] = {}
    for turn in range(max(places.values(), default=0)):
        for problem, count in places.items():
            if turn < count:
                members.setdefault(groups[problem], deque()).append(problem)
    waiting: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for group in members:
        for level in range(len(group)):
            waiting.setdefault(group[:level], set()).add(group[: level + 1])
    taken: Counter[tuple[str, ...]] = Counter()
    ties = {group: content_hash(seed, group) for within in waiting.values() for group in within}
    for _ in range(sum(places.values())):
        turn_of: tuple[str, ...] = ()
        while turn_of in waiting:
            turn_of = min(waiting[turn_of], key=lambda within: (taken[within], ties[within]))
            taken[turn_of] += 1
        yield members[turn_of].popleft()
        _close(turn_of, members, waiting)


def _close(
    group: tuple[str, ...],
    members: Mapping[tuple[str, ...], Sized],
    waiting: Mapping[tuple[str, ...], set[tuple[str, ...]]],
) -> None:
    """Take a group that has nothing left out of the larger ones, and those with it."""
    empty = not members[group]
    while empty and group:
        larger = group[:-1]
        waiting[larger].remove(group)
        group, empty = larger, not waiting[larger]


def _rank(
    candidate: Candidate, taken: Counter[str], *, select: Select, seed: int
) -> tuple[float, float, str, int, str]:
    """Return what the candidates of a problem are ordered by; the least is taken."""
    if select.policy == "shortest":
        return (0, 0, "", candidate.tokens, candidate.id)
    if select.policy == "closest":
        away = abs(candidate.tokens - (select.length or 0))
        return (away, 0, "", candidate.tokens, candidate.id)
    if select.policy == "best":
        lowest, mean = candidate.grades
        return (-lowest, -mean, "", candidate.tokens, candidate.id)
    tie = content_hash(seed, candidate.problem_id, candidate.teacher)
    return (taken[candidate.teacher], 0, tie, candidate.tokens, candidate.id)
