"""Which problems are held out of training, so that their loss can be measured.

All examples of a problem stand on one side, whatever their number. Not here: the measuring.
"""

import hashlib
from collections.abc import Iterable


def held_out_problems(problems: Iterable[str], share: float) -> frozenset[str]:
    """Return the ids of the problems to hold out: those whose hash is below `share`.

    The hash is a number in [0, 1) of the id alone, `share` is in [0, 0.5]; so a problem stands
    on the same side in every set of examples. Where that would hold out none or all of at
    least two problems, one is held out or left; with fewer, none is held out.
    """
    by_hash = sorted((_hash(problem), problem) for problem in set(problems))
    if share == 0 or len(by_hash) < 2:
        return frozenset()
    below = sum(number < share for number, _ in by_hash)
    count = min(max(1, below), len(by_hash) - 1)
    return frozenset(problem for _, problem in by_hash[:count])


def _hash(problem: str) -> float:
    digest = hashlib.sha256(problem.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
