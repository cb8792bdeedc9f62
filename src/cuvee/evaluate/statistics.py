"""Scores with intervals, and paired differences of two models, from verdicts by problem.

In: for each problem the verdicts on a model's answers to it (`Outcomes`). Out: frozen
records of plain numbers. The unit of chance is the problem: problems are taken as drawn from
the population one would like to know about, and samples of one problem as a cluster that
says little more than one of them (Miller 2024, arXiv 2411.00640, section 2). So no interval
shrinks to nothing because a benchmark of 30 problems was sampled 64 times.

`not_checked` is never counted as wrong: such samples are left out of means, intervals span
both extremes, and over `HEADLINE_SHARE` of them there is no mean. numpy alone; no files.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from cuvee.errors import DataError
from cuvee.records import VerdictName

Outcomes = Mapping[str, Sequence[VerdictName]]
"""Problem id -> the verdict on each sample, at least one."""

Array = NDArray[np.float64]

CONFIDENCE = 0.95
HEADLINE_SHARE = 0.01
"""Above this share of `not_checked` samples a score has no mean."""
GRID = 1024
"""Finest grid of the sign-flip test: differences are multiples of 1/GRID at least."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A model's share of correct answers (pass@1). Shares are in [0, 1]."""

    mean: float | None
    """Mean over problems of each one's share of correct samples; None: too many unchecked."""
    low: float
    """Ends of the 95 % interval; with `not_checked` samples, of both extremes together."""
    high: float
    lower_bound: float
    """The mean if every `not_checked` were wrong; `upper_bound` if every one were right."""
    upper_bound: float
    n_problems: int
    n_samples: int


@dataclasses.dataclass(frozen=True)
class Difference:
    """One model's mean minus another's on the same problems, in [-1, 1]."""

    difference: float
    low: float
    """Ends of the 95 % interval."""
    high: float
    p_value: float
    """Of no difference, two-sided."""
    n_problems: int
    """Problems with a checked sample of both models: those compared."""


def pass_at_1(outcomes: Outcomes) -> Estimate:
    """Return a model's score: the mean over problems of the share of correct samples.

    The interval is `wilson_interval`. Raises DataError for no problems and for a problem
    without samples.
    """
    _require_samples(outcomes)
    counts = [len(verdicts) for verdicts in outcomes.values()]
    worst = _means(outcomes, not_checked=0)
    best = _means(outcomes, not_checked=1)
    lower, upper = float(worst.mean()), float(best.mean())
    return Estimate(
        mean=float(_checked_means(outcomes).mean()) if has_headline(outcomes) else None,
        low=wilson_interval(worst, samples=sum(counts))[0],
        high=wilson_interval(best, samples=sum(counts))[1],
        lower_bound=lower,
        upper_bound=upper,
        n_problems=len(counts),
        n_samples=sum(counts),
    )


def has_headline(outcomes: Outcomes) -> bool:
    """Return whether at most `HEADLINE_SHARE` of the samples, and not all, are unchecked."""
    verdicts = [verdict for found in outcomes.values() for verdict in found]
    return verdicts.count("not_checked") <= HEADLINE_SHARE * len(verdicts)


def wilson_interval(means: Array, *, samples: int) -> tuple[float, float]:
    """Return the 95 % interval of the mean of `means`: [n_problems] in [0, 1] -> (low, high).

    Wilson's score interval (Wilson 1927) for an effective number of problems m::

        centre = (p + z^2 / 2m) / (1 + z^2 / m)
        half width = z / (1 + z^2 / m) sqrt(p (1 - p) / m + z^2 / 4m^2)

    With one sample a problem m = n: the plain Wilson interval. With several, m is what a
    binomial would need for the variance seen *between problems*, ``p (1 - p) / (s^2 / n)``, at
    most the number of samples, times ``(z / t)^2`` for the variance being estimated, with t of
    n - 1 degrees of freedom (Korn & Graubard 1998, Survey Methodology 24). Unlike the mean
    +- t s / sqrt(n) it stays in [0, 1] and does not collapse at 0 and 1.

    Coverage in simulations: 93-98 % from 30 problems on, for one to 32 samples. With fewer
    than about 30 problems, most of them never solved, it can fall to 90 %.
    """
    n, mean, z = len(means), float(means.mean()), _z()
    size = n if samples == n else _effective_size(means, samples)
    centre = (mean + z * z / (2 * size)) / (1 + z * z / size)
    spread = mean * (1 - mean) / size + z * z / (4 * size * size)
    half = z / (1 + z * z / size) * math.sqrt(spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def paired_difference(model: Outcomes, against: Outcomes) -> Difference:
    """Return `model` minus `against` on the same problems.

    Each problem gives the difference of the two shares of correct samples; samples that were
    not checked, and problems without a checked sample on either side, are left out (callers
    compare only models with a headline, see `has_headline`). The interval is
    `difference_interval`, the p-value `sign_flip_p_value`.

    Raises DataError where the sets of problems differ, and where none is left to compare.
    """
    _require_same_problems(model, against)
    both = [p for p in sorted(model) if _checked(model[p]) and _checked(against[p])]
    if not both:
        raise DataError("no problem has a checked sample of both models: nothing to compare")
    pairs = [(_share(model[p]), _share(against[p])) for p in both]
    differences = np.array([a - b for a, b in pairs])
    low, high = difference_interval(differences)
    counts = {len(_checked(side[p])) for p in both for side in (model, against)}
    grid = min(math.lcm(*counts), GRID)
    return Difference(
        difference=float(differences.mean()),
        low=low,
        high=high,
        p_value=sign_flip_p_value(differences, grid=grid),
        n_problems=len(both),
    )


def difference_interval(differences: Array) -> tuple[float, float]:
    """Return the 95 % interval of a mean difference: [n_problems] in [-1, 1] -> (low, high).

    mean +- t s / sqrt(n), n - 1 degrees of freedom, problems as clusters (Miller 2024,
    section 3). Good from about 30 problems, of which 10 or more differ. Where all
    differences are equal, s = 0 says nothing: then the share of problems that would differ is
    at most Wilson's upper end for 0 of n, z^2 / (n + z^2), and so is the mean's error.
    """
    n, mean = len(differences), float(differences.mean())
    if n > 1 and float(np.ptp(differences)) > 0:
        half = t_quantile(n - 1) * float(differences.std(ddof=1)) / math.sqrt(n)
    else:
        half = _z() ** 2 / (n + _z() ** 2)
    return max(-1.0, mean - half), min(1.0, mean + half)


def sign_flip_p_value(differences: Array, *, grid: int) -> float:
    """Return the two-sided p-value of no difference: [n_problems] in [-1, 1] -> (0, 1].

    If the models were alike, each problem's difference would have either sign with chance
    1/2: the p-value is the share of all 2^n sign patterns whose sum is as far from 0 as the
    one seen. It is computed exactly, no patterns are drawn: differences are multiples of
    1 / `grid` (rounded to that), so the distribution of the sum is a convolution. With one
    sample a problem this is McNemar's exact test (the sign test on the problems that differ).
    """
    steps = np.rint(np.asarray(differences) * grid).astype(np.int64)
    sizes = np.abs(steps[steps != 0])
    total = int(sizes.sum())
    # chance[k]: that the positive ones sum to k; the signed sum is then 2 k - total.
    chance = np.zeros(total + 1)
    chance[0], filled = 1.0, 1
    for size in sizes.tolist():
        before = chance[:filled].copy()
        chance[:filled] *= 0.5
        chance[size : filled + size] += 0.5 * before
        filled += size
    sums = np.abs(2 * np.arange(total + 1) - total)
    return min(1.0, float(chance[sums >= abs(int(steps.sum()))].sum()))


@functools.cache
def t_quantile(degrees: int) -> float:
    """Return the two-sided 95 % quantile of Student's t, `degrees` >= 1 degrees of freedom.

    By bisection of the closed form for whole degrees (Abramowitz & Stegun 26.7.3-4).
    """
    low, high = 0.0, 20.0  # 12.7 at one degree
    for _ in range(60):
        middle = (low + high) / 2
        if _t_within(middle, degrees) < CONFIDENCE:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _t_within(t: float, degrees: int) -> float:
    """Return P(|T| <= t): A(t | degrees) of Abramowitz & Stegun."""
    angle = math.atan(t / math.sqrt(degrees))
    square = math.cos(angle) ** 2
    odd = degrees % 2
    term = math.sin(angle) * (math.cos(angle) if odd else 1.0)
    total = 0.0
    for k in range(1 + odd, degrees, 2):  # terms cos^(k-1), coefficients (k-1)!! / k!!
        total += term
        term *= square * k / (k + 1)
    return (angle + total) * 2 / math.pi if odd else total


def _effective_size(means: Array, samples: int) -> float:
    """Return how many independent single samples would say as much: see `wilson_interval`."""
    n, mean = len(means), float(means.mean())
    if n == 1:
        return 1.0  # one cluster shows no spread
    variance = float(means.var(ddof=1)) / n
    if variance > 0:
        size = min(mean * (1 - mean) / variance, float(samples))
    else:
        # All problems alike: at 0 or 1 that is no more than n problems say.
        size = float(n if mean in (0.0, 1.0) else samples)
    return size * (_z() / t_quantile(n - 1)) ** 2


def _z() -> float:
    return NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


def _means(outcomes: Outcomes, *, not_checked: int) -> Array:
    """Return each problem's share of correct, with `not_checked` as 0 (wrong) or 1 (right)."""
    right = ("correct", "not_checked") if not_checked else ("correct",)
    return np.array([sum(v in right for v in found) / len(found) for found in outcomes.values()])


def _checked_means(outcomes: Outcomes) -> Array:
    return np.array([_share(found) for found in outcomes.values() if _checked(found)])


def _checked(verdicts: Sequence[VerdictName]) -> list[VerdictName]:
    return [verdict for verdict in verdicts if verdict != "not_checked"]


def _share(verdicts: Sequence[VerdictName]) -> float:
    checked = _checked(verdicts)
    return checked.count("correct") / len(checked)


def _require_samples(outcomes: Outcomes) -> None:
    if not outcomes:
        raise DataError("no problems: there is nothing to average")
    if empty := sorted(problem for problem, verdicts in outcomes.items() if not verdicts):
        raise DataError(f"problem {empty[0]}: no samples ({len(empty)} problems have none)")


def _require_same_problems(model: Outcomes, against: Outcomes) -> None:
    for outcomes in (model, against):
        _require_samples(outcomes)
    if different := sorted(set(model) ^ set(against)):
        raise DataError(
            f"the two models were asked different problems: {len(different)} in one set alone, "
            f"e.g. {different[0]}"
        )
