"""Numbers and names in words: one wording for the report, the card and the terminal.

Numbers, scores and models in, plain text out. Not here: what comparisons let one say
(`cuvee.release.claims`).
"""

from collections.abc import Container

from cuvee.recipe import MIXTURE
from cuvee.records import Score

NBSP = "\u00a0"
"""Stands between a number and its unit, so that a line never breaks there."""


def percent(share: float) -> str:
    """Return a share in [0, 1] as percent with one decimal: `37.5 %`."""
    return f"{100 * share:.1f}{NBSP}%"


def points(difference: float) -> str:
    """Return a difference in [-1, 1] as signed percentage points: `+3.1`, `−4.0`, `0.0`."""
    text = f"{100 * difference:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def count(number: int) -> str:
    """Return an integer with separators: `12,345`."""
    return f"{number:,}"


def duration(seconds: float) -> str:
    """Return seconds as people say them: `0.4 s`, `48 s`, `12 min 5 s`, `3 h 20 min`."""
    if seconds < 10:
        return f"{seconds:.1f}{NBSP}s"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    if hours:
        return f"{count(hours)}{NBSP}h {minutes}{NBSP}min"
    return f"{minutes}{NBSP}min {rest}{NBSP}s" if minutes else f"{rest}{NBSP}s"


def usd(amount: float) -> str:
    """Return an amount of money: `0.0042 USD`, `1.53 USD`, `1,240 USD`."""
    digits = 0 if amount >= 1000 else 2 if amount >= 0.1 or amount == 0 else 4
    return f"{amount:,.{digits}f}{NBSP}USD"


def size(amount: float) -> str:
    """Return bytes in decimal units, as file managers and the hub say them: `145.3 MB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if amount >= factor:
            return f"{amount / factor:,.1f}{NBSP}{unit}"
    return f"{amount:.0f}{NBSP}bytes"


def model_label(model: str, *, teachers: Container[str] = ()) -> str:
    """Return how people call a model: `base`, `math specialist`, `merged`, `r1 (teacher)`."""
    if model in teachers:
        return f"{model} (teacher)"
    return model if model in ("base", MIXTURE, "merged") else f"{model} specialist"


def result(score: Score) -> str:
    """Return a score as text: its mean, or both bounds where it gets no headline."""
    if score.mean is None:
        return f"{percent(score.lower_bound)} to {percent(score.upper_bound)} (no headline)"
    return percent(score.mean)


def amount(score: Score) -> str:
    """Return what a score was taken on: `64 problems × 4 samples`."""
    samples, left = divmod(score.n_samples, score.n_problems)
    each = f"{count(samples)} sample" + ("" if samples == 1 else "s")
    if left:
        each = f"{score.n_samples / score.n_problems:.1f} samples"
    return f"{count(score.n_problems)} problems × {each}"
