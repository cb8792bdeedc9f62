"""What asking again may be expected to bring: a beta-binomial over a domain's problems.

How likely an answer to a problem is fit differs from problem to problem as a Beta(a, b); given
that, its answers are independent. Then `right` of `tried` follow the beta-binomial (Skellam,
J. R. Stat. Soc. B 10, 1948), whose two numbers are fitted to all problems of the domain
(empirical Bayes; Griffiths, Biometrics 29, 1973, by maximum likelihood), and what a problem's
next answers will be is a beta-binomial again, with a + right and b + tried - right.

Which problems were asked on, and how often, was decided by the answers themselves and by
nothing else, so the likelihood is that of a plan fixed beforehand; moments would not be.
Assumed, and only nearly true: all teachers of a domain are one, mixed as before, and asked at
the same temperature as before. Not here: what is done with it (`cuvee.rounds.decide`).
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping

ADDED: Mapping[tuple[int, int], int] = {(0, 2): 1, (1, 2): 1, (2, 2): 1}
"""Problems that are thought to be there beside the real ones: what Beta(1, 1) expects of three.
They keep the fit finite where the counts say nothing of how much problems differ (one answer
each) or all are alike; among hundreds of problems that say something they do not count."""
STEPS = 2000
SAME = 1e-9
"""The fit ends where no number changes by a larger share, or after so many steps."""


@dataclasses.dataclass(frozen=True)
class Beta:
    """How likely answers are fit, over the problems of a domain; both numbers above 0."""

    a: float
    b: float

    @property
    def mean(self) -> float:
        """Return the mean share of fit answers, in (0, 1)."""
        return self.a / (self.a + self.b)


def fit_beta(counts: Mapping[tuple[int, int], int]) -> Beta:
    """Return the Beta under which (right, tried) -> problems, and ADDED, are the likeliest.

    By the fixed point a <- a sum_i [psi(a + k_i) - psi(a)] / sum_i [psi(a + b + n_i) -
    psi(a + b)], and b alike with n_i - k_i (T. Minka, Estimating a Dirichlet distribution, 2000);
    each step raises the likelihood. The differences of psi are finite sums.
    """
    everything: Counter[tuple[int, int]] = Counter(ADDED)
    everything.update(counts)
    right = _more_than((k, problems) for (k, _), problems in everything.items())
    other = _more_than((n - k, problems) for (k, n), problems in everything.items())
    tried = _more_than((n, problems) for (_, n), problems in everything.items())
    a = b = 1.0
    for _ in range(STEPS):
        whole = _sum(tried, a + b)
        new_a, new_b = a * _sum(right, a) / whole, b * _sum(other, b) / whole
        still = abs(new_a - a) <= SAME * a and abs(new_b - b) <= SAME * b
        a, b = new_a, new_b
        if still:
            break
    return Beta(a, b)


def _more_than(numbers: Iterable[tuple[int, int]]) -> list[int]:
    """Return, for j = 0, 1, ..., how many of the (number, how many) exceed j."""
    found: Counter[int] = Counter()
    for number, many in numbers:
        found[number] += many
    left, exceeding = sum(found.values()), []
    for j in range(max(found)):
        left -= found[j]
        exceeding.append(left)
    return exceeding


def _sum(exceeding: list[int], start: float) -> float:
    """Return the sum over all numbers of psi(start + number) - psi(start)."""
    return math.fsum(many / (start + j) for j, many in enumerate(exceeding))


def expected_new(beta: Beta, *, right: int, tried: int, more: int, places: int) -> float:
    """Return how many of `more` answers may be expected to be fit, counted up to `places`.

    To a problem of which `right` of `tried` were. That is E[min(X, places)] of the
    beta-binomial X; with one place P(X >= 1) = 1 - B(a', b' + more) / B(a', b'), where
    a' = a + right and b' = b + tried - right. In [0, min(more, places)].
    """
    a, b = beta.a + right, beta.b + tried - right
    # E[min(X, m)] = m - sum of (m - j) P(X = j) over j < m: short where places are few.
    places = min(more, places)
    short = math.fsum((places - j) * _mass(a, b, j, more) for j in range(places))
    return max(0.0, places - short)


def _mass(a: float, b: float, k: int, n: int) -> float:
    """Return the beta-binomial's probability of k of n."""
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(ways + _log_b(a + k, b + n - k) - _log_b(a, b))


def _log_b(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
