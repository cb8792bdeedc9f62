"""A number of a plan: a value, how far off it may be, and what it rests on.

Ends are combined as if all parts were off in the same direction: what comes out is at least
as wide as its parts warrant. Intervals of what was measured are of 95 %, over problems as the
unit of chance (`cuvee.evaluate.statistics`), and shrink as the pilot comes near the whole: by
sqrt(1 - n/N) of n problems of N (Cochran 1977, Sampling Techniques, section 2.6).
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Literal

Origin = Literal["known", "measured", "assumed"]
ORIGINS: tuple[Origin, ...] = ("known", "measured", "assumed")
"""From the surest; what rests on several has the least sure of them."""
ONE_PROBLEM = 2.0
"""How many times too small or large a mean of one problem is taken to be at most."""


@dataclasses.dataclass(frozen=True)
class Figure:
    """A number of 0 or more, with the ends of its range: low <= value <= high."""

    value: float
    low: float
    high: float
    origin: Origin

    def __add__(self, other: "Figure") -> "Figure":
        """Return the sum, end by end. What is 0 for certain changes nothing."""
        if other == NOTHING or self == NOTHING:
            return self if other == NOTHING else other
        return Figure(
            self.value + other.value, self.low + other.low, self.high + other.high,
            least_sure(self, other),
        )  # fmt: skip

    def __mul__(self, other: "Figure") -> "Figure":
        """Return the product, end by end."""
        return Figure(
            self.value * other.value, self.low * other.low, self.high * other.high,
            least_sure(self, other),
        )  # fmt: skip

    def __truediv__(self, other: "Figure") -> "Figure":
        """Return the quotient; `other` is above 0."""
        return Figure(
            self.value / other.value, self.low / other.high, self.high / other.low,
            least_sure(self, other),
        )  # fmt: skip

    def scaled(self, factor: float) -> "Figure":
        """Return it `factor` >= 0 times; the factor is known."""
        return Figure(self.value * factor, self.low * factor, self.high * factor, self.origin)

    def at_most(self, limit: float) -> "Figure":
        """Return it with value and ends cut at a limit."""
        return Figure(
            min(self.value, limit), min(self.low, limit), min(self.high, limit), self.origin
        )


def known(value: float) -> Figure:
    """Return a number that is certain."""
    return Figure(value, value, value, "known")


def measured(value: float) -> Figure:
    """Return a number that was seen as it is: nothing is extrapolated."""
    return Figure(value, value, value, "measured")


NOTHING = known(0.0)


def least_sure(*figures: Figure) -> Origin:
    """Return what several figures together rest on."""
    return max((figure.origin for figure in figures), key=ORIGINS.index)


def total(figures: Iterable[Figure | None]) -> Figure | None:
    """Return the sum; None where one of them is unknown."""
    summed = NOTHING
    for figure in figures:
        if figure is None:
            return None
        summed = summed + figure
    return summed


def mean_of(values: Sequence[float], *, of: float) -> Figure:
    """Return the mean of `values` (one a problem, >= 0) for `of` problems, which hold these.

    The range is the 95 % interval ``t s / sqrt(n)``; of one problem half to twice its value.
    Raises ValueError for no values.
    """
    if not values:
        raise ValueError("a mean needs at least one value")
    from cuvee.evaluate.statistics import t_quantile

    n = len(values)
    mean = sum(values) / n
    if n >= of:
        return measured(mean)
    if n == 1:
        return Figure(mean, mean / ONE_PROBLEM, mean * ONE_PROBLEM, "measured")
    variance = sum((value - mean) ** 2 for value in values) / (n - 1)
    half = t_quantile(n - 1) * math.sqrt(variance / n) * math.sqrt(1 - n / of)
    return Figure(mean, max(0.0, mean - half), mean + half, "measured")


def share_of(values: Sequence[float], *, samples: int, of: float) -> Figure:
    """Return the mean of `values` (one a problem, in [0, 1]) with its Wilson interval.

    `samples` is how many answers are in them. Raises ValueError for no values.
    """
    if not values:
        raise ValueError("a share needs at least one value")
    import numpy as np

    from cuvee.evaluate.statistics import wilson_interval

    array = np.asarray(values, dtype=float)
    mean = float(array.mean())
    low, high = wilson_interval(array, samples=samples)
    seen = math.sqrt(max(0.0, 1 - len(values) / of))
    return Figure(
        mean, mean - (mean - min(low, mean)) * seen, mean + (max(high, mean) - mean) * seen,
        "measured",
    )  # fmt: skip
