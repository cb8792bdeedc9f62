"""How many rows training reads, from the rows' lengths alone: what TRL's packing will make.

Lengths in tokens in, lengths of packed rows out. Not here: the packing itself, which is TRL's
(`pack_dataset`); training checks that it made as many rows as this says.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence

PACKING = "bfd"
"""TRL's best-fit decreasing: rows stay whole, which it does for rows of at most `max_tokens`."""
GROUP_ROWS = 1000
"""TRL packs each thousand rows by themselves (the batches of `datasets`' map)."""


def packed_lengths(lengths: Sequence[int], max_tokens: int) -> list[int]:
    """Return the tokens of every packed row of at most `max_tokens`, in TRL's order.

    `lengths` are of the rows in the order of the data set, each in [1, max_tokens].
    """
    packed: list[int] = []
    for begin in range(0, len(lengths), GROUP_ROWS):
        packed += _best_fit(lengths[begin : begin + GROUP_ROWS], max_tokens)
    return packed


def _best_fit(lengths: Sequence[int], max_tokens: int) -> list[int]:
    """Put each row, the longest first, into the fullest packed row that has room for it.

    Of equally full ones it is the one that has been so the longest, else a new one.
    """
    spaces: list[tuple[int, int, int]] = []  # room left, order of arrival, which packed row
    packed: list[int] = []
    for order, length in enumerate(sorted(lengths, reverse=True)):
        at = bisect_left(spaces, (length, -1, -1))
        if at < len(spaces):
            room, _, row = spaces.pop(at)
        else:
            room, row = max_tokens, len(packed)
            packed.append(0)
        packed[row] += length
        if room > length:
            insort(spaces, (room - length, order, row))
    return packed
