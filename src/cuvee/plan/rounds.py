"""What further rounds of asking may bring: pure expectations, in shares of a domain's problems.

Problems are of three kinds: of a share `alike` every answer fares alike, so that with the
chance q of a usable answer all are usable and with 1 - q none; of the rest each answer is on
its own. Of each kind the distribution of usable answers is followed round by round (at most
`places` count); where a pilot has counted them its counts stand in. Whether a round is begun,
and how many problems it asks, goes by the means as `cuvee.rounds.decide` goes by counts.
"""

import dataclasses
import math
from collections.abc import Sequence

Kinds = list[tuple[float, list[float]]]
"""Chance of a usable answer -> share of all problems with 0, 1, ... usable answers."""


@dataclasses.dataclass(frozen=True)
class Step:
    """A further round."""

    samples: int
    """Answers to each problem that is asked, of all teachers together."""
    usd: float | None
    """What they cost; None: unknown."""


@dataclasses.dataclass(frozen=True)
class Course:
    """All that rounds depend on, but for the chance of an answer."""

    first: int
    """Answers to each problem in the first round."""
    steps: tuple[Step, ...]
    places: int
    """Examples of a problem at most."""
    enough: int
    """Usable answers with which it is not asked again."""
    target: float | None
    """Examples wanted, by the problem: of 100 problems 60 are 0.6."""
    least: float
    """New examples, by the problem, without which no round is begun."""
    usd_per_example: float | None
    seen: tuple[tuple[float, ...], ...] = ()
    """Usable answers of each of a pilot's problems after one round, two, ..."""


@dataclasses.dataclass(frozen=True)
class Round:
    """A round that is begun, in shares of all problems."""

    asked: float
    new: float
    """Examples."""
    usable: float
    """Answers that could be examples, each of them: by the problem."""


def foretell(course: Course, *, chance: float, alike: float) -> list[Round]:
    """Return the rounds from the second on that are begun, with what is expected of each."""
    kinds: Kinds = [
        (each, [share] + [0.0] * course.places)
        for each, share in ((1.0, alike * chance), (0.0, alike * (1 - chance)), (chance, 1 - alike))
    ]
    kinds = _asked(kinds, course.first, enough=course.places + 1)
    kinds = _as_seen(kinds, course.seen[0]) if course.seen else kinds
    found: list[Round] = []
    for number, step in enumerate(course.steps, 1):
        after = _asked(kinds, step.samples, enough=course.enough)
        if number < len(course.seen):
            after = _as_seen(after, course.seen[number])
        waiting = sum(sum(shares[: course.enough]) for _, shares in kinds)
        have, new = _examples(kinds), _examples(after) - _examples(kinds)
        usable = step.samples * sum(c * sum(shares[: course.enough]) for c, shares in kinds)
        part = _part(course, step, Round(waiting, new, usable), have=have)
        if not part:
            break
        found.append(Round(waiting * part, new * part, usable * part))
        if part < 1:
            break  # so many are asked as fill the target
        kinds = after
    return found


def _part(course: Course, step: Step, whole: Round, *, have: float) -> float:
    """Return which part of the waiting problems is asked; 0 where the round is not begun."""
    if not step.samples or whole.asked <= 0 or whole.new <= 0:
        return 0.0
    part = 1.0
    if course.target is not None:
        part = min(1.0, max(0.0, course.target - have) / whole.new)
    limit = course.usd_per_example
    if limit is not None and (step.usd or 0) * whole.asked > whole.new * limit:
        return 0.0
    return part if whole.new * part >= course.least else 0.0


def _asked(kinds: Kinds, samples: int, *, enough: int) -> Kinds:
    """Return the shares after `samples` more answers to each problem that has not `enough`."""
    found: Kinds = []
    for chance, shares in kinds:
        places, after = len(shares) - 1, [0.0] * len(shares)
        for have, share in enumerate(shares):
            more = samples if have < enough else 0
            for k in range(more + 1):
                likely = math.comb(more, k) * chance**k * (1 - chance) ** (more - k)
                after[min(places, have + k)] += share * likely
        found.append((chance, after))
    return found


def _as_seen(kinds: Kinds, seen: Sequence[float]) -> Kinds:
    """Return the shares made to add up to what was seen, each count shared out as before.

    Counts that the model gives no chance to are taken to be of the last kind.
    """
    places = len(kinds[0][1]) - 1
    found: Kinds = [(chance, [0.0] * (places + 1)) for chance, _ in kinds]
    for have in range(places + 1):
        observed = sum(min(places, round(each)) == have for each in seen) / len(seen)
        before = [shares[have] for _, shares in kinds]
        whole = sum(before)
        for number, share in enumerate(before):
            last = float(number == len(kinds) - 1)
            found[number][1][have] = observed * (share / whole if whole else last)
    return found


def _examples(kinds: Kinds) -> float:
    return sum(have * share for _, shares in kinds for have, share in enumerate(shares))
