"""Numbers and comparisons in words: one wording for the report, the card and the terminal.

Scores and comparisons in, plain text out. It computes no statistics: a sentence says
`better` or `worse` only where the interval it was given excludes 0.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from cuvee.recipe import MIXTURE
from cuvee.records import Comparison, Score

NBSP = "\u00a0"
"""Stands between a number and its unit, so that a line never breaks there."""

Outcome = Literal["better", "worse", "unclear"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one comparison says."""

    outcome: Outcome
    text: str


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


def model_label(model: str) -> str:
    """Return how people call a model: `base`, `math specialist`, `mixture`, `merged`."""
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


def outcome(comparison: Comparison) -> Outcome:
    """Return what the comparison's interval allows to say of `model` against `against`."""
    if comparison.low > 0:
        return "better"
    return "worse" if comparison.high < 0 else "unclear"


def headline(scores: Sequence[Score], comparisons: Sequence[Comparison]) -> str:
    """Return some sentences with numbers: did it work, what the merge cost, was it worth it.

    The specialists are judged on the benchmarks of their own domain alone; the merged model
    against the base, against each benchmark's specialist, and against the mixture if any.
    """
    if not scores:
        return "No benchmark was evaluated: nothing is known about how well these models answer."
    own = own_specialist(scores)
    sentences = [
        _tally(
            "Against the base, each benchmark’s specialist is",
            comparisons,
            {benchmark: (specialist, "base") for benchmark, specialist in own.items()},
        ),
        _tally(
            "The merged model, against the base, is",
            comparisons,
            dict.fromkeys(own, ("merged", "base")),
        ),
        _tally(
            "The merged model, against the specialists, is",
            comparisons,
            {benchmark: ("merged", specialist) for benchmark, specialist in own.items()},
        ),
    ]
    if has_mixture(scores):
        sentences.append(
            _tally(
                "The merged model, against the mixture (one model trained on all domains), is",
                comparisons,
                dict.fromkeys(own, ("merged", MIXTURE)),
            )
        )
    return " ".join(sentences)


def findings(scores: Sequence[Score], comparisons: Iterable[Comparison]) -> list[Finding]:
    """Return one sentence for each comparison the headline rests on, in its order."""
    own = own_specialist(scores)
    by_key = {(s.model, s.benchmark): s for s in scores}
    wanted = [
        c
        for c in comparisons
        if (c.model, c.against)
        in {
            (own[c.benchmark], "base"),
            ("merged", "base"),
            ("merged", own[c.benchmark]),
            ("merged", MIXTURE),
        }
    ]
    rank = {name: place for place, name in enumerate(own)}
    wanted.sort(key=lambda c: (rank[c.benchmark], c.model == "merged", c.against != "base"))
    return [_finding(c, by_key) for c in wanted]


def has_mixture(scores: Iterable[Score]) -> bool:
    """Return whether the mixture, the baseline of the method, was evaluated."""
    return any(score.model == MIXTURE for score in scores)


def own_specialist(scores: Iterable[Score]) -> dict[str, str]:
    """Return benchmark -> the specialist of its domain, in the order of the scores."""
    return {s.benchmark: s.domain for s in scores}


def _tally(
    opening: str, comparisons: Sequence[Comparison], pairs: Mapping[str, tuple[str, str]]
) -> str:
    """Return one sentence: `opening better on a (...); worse on b (...); not compared on c`.

    `pairs` is benchmark -> (model, against). A pair without a comparison has too many answers
    that could not be checked: it is named, not passed over.
    """
    wanted = [c for c in comparisons if pairs.get(c.benchmark) == (c.model, c.against)]
    phrases: dict[Outcome, str] = {
        "better": "better on",
        "worse": "worse on",
        "unclear": "not shown to differ on",
    }
    parts = []
    for kind, phrase in phrases.items():
        named = [_short(c) for c in wanted if outcome(c) == kind]
        if named:
            parts.append(f"{phrase} {' and '.join(named)}")
    if missing := sorted(set(pairs) - {c.benchmark for c in wanted}):
        parts.append(f"not compared on {' and '.join(missing)} (too much could not be checked)")
    return f"{opening} {'; '.join(parts)}."


def _short(comparison: Comparison) -> str:
    """Return a benchmark with its difference; the interval too where it includes 0."""
    text = f"{comparison.benchmark} ({points(comparison.difference)}{NBSP}points"
    if outcome(comparison) == "unclear":
        text += f", interval {points(comparison.low)} to {points(comparison.high)}"
    return text + ")"


def _finding(comparison: Comparison, scores: dict[tuple[str, str], Score]) -> Finding:
    model, against = model_label(comparison.model), model_label(comparison.against)
    mine = scores.get((comparison.model, comparison.benchmark))
    other = scores.get((comparison.against, comparison.benchmark))
    values = f"{result(mine)} against {result(other)}, " if mine and other else ""
    interval = f"{points(comparison.low)} to {points(comparison.high)}"
    numbers = f"{values}{points(comparison.difference)}{NBSP}points"
    problems = f"{count(comparison.n_problems)} problems"
    kind = outcome(comparison)
    if kind == "unclear":
        text = (
            f"{comparison.benchmark}: no difference between the {model} model and the {against} "
            f"model is shown: {numbers} (95{NBSP}% interval {interval} includes 0; {problems})."
        )
    else:
        text = (
            f"{comparison.benchmark}: the {model} model is {kind} than the {against} model: "
            f"{numbers} (95{NBSP}% interval {interval}; {problems})."
        )
    return Finding(kind, text.replace("specialist model", "specialist"))
