"""Rows of the score table from traces and verdicts."""

import pytest

from cuvee.errors import DataError
from cuvee.evaluate.table import comparison_rows, outcomes, score_row
from cuvee.records import Trace, Verdict, VerdictName


def trace(number: int, *, finish: str = "stop", tokens: int | None = 10) -> Trace:
    return Trace(
        id=f"t{number}",
        problem_id=f"p{number // 2}",
        domain="math",
        model="base",
        sample=number % 2,
        reasoning="",
        answer="",
        finish_reason=finish,
        prompt_tokens=5,
        completion_tokens=tokens,
        seconds=0.1,
        request=f"r{number}",
        fingerprint=None,
        error=None,
    )


def verdict(number: int, name: VerdictName) -> Verdict:
    return Verdict(
        trace_id=f"t{number}",
        problem_id=f"p{number // 2}",
        domain="math",
        verdict=name,
        reason="equal",
        extracted=None,
        expected=None,
        detail=None,
        checker="test",
        seconds=0.0,
    )


NAMES: list[VerdictName] = ["correct", "correct", "correct", "wrong", "no_answer", "no_answer"]


def test_a_score_counts_every_sample_once() -> None:
    traces = [trace(n, tokens=10 * n) for n in range(5)]
    traces.append(trace(5, finish="length", tokens=None))
    verdicts = [verdict(n, name) for n, name in enumerate(NAMES)]
    row = score_row("base", "held", traces, verdicts, protocol="{}")
    assert row.mean == pytest.approx((1 + 0.5 + 0) / 3)
    assert (row.n_problems, row.n_samples) == (3, 6)
    assert (row.correct, row.wrong, row.no_answer, row.not_checked) == (3, 1, 2, 0)
    assert row.truncated == 1
    assert row.mean_tokens == pytest.approx(20)
    assert row.low < 0.5 < row.high


def test_traces_and_verdicts_that_do_not_belong_together_are_refused() -> None:
    traces = [trace(n) for n in range(3)]
    with pytest.raises(DataError, match="3 traces and 2 verdicts, of which 2 belong together"):
        score_row("base", "held", traces, [verdict(n, "wrong") for n in range(2)], protocol="{}")
    with pytest.raises(DataError, match="0 traces"):
        score_row("base", "held", [], [], protocol="{}")


def test_pairs_are_compared_on_every_benchmark_unless_too_much_was_not_checked() -> None:
    right = outcomes([verdict(n, "correct") for n in range(6)])
    wrong = outcomes([verdict(n, "wrong") for n in range(6)])
    unsure = outcomes([verdict(n, "not_checked" if n == 3 else "wrong") for n in range(6)])
    results = {
        ("base", "one"): wrong,
        ("merged", "one"): right,
        ("base", "two"): unsure,
        ("merged", "two"): right,
    }
    [row] = comparison_rows(results, [("merged", "base")])
    assert (row.model, row.against, row.benchmark) == ("merged", "base", "one")
    assert (row.difference, row.n_problems) == (1, 3)
