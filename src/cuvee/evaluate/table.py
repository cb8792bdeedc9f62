"""The score table: traces and verdicts of models on benchmarks -> rows of scores, comparisons.

Counts and fits together; the mathematics stands in `cuvee.evaluate.statistics`. No files.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from cuvee.errors import DataError
from cuvee.evaluate.statistics import Outcomes, has_headline, paired_difference, pass_at_1
from cuvee.progress import warn
from cuvee.records import Comparison, Score, Trace, Verdict, VerdictName

Results = Mapping[tuple[str, str], Outcomes]
"""(model, benchmark) -> the verdicts by problem."""


def outcomes(verdicts: Sequence[Verdict]) -> Outcomes:
    """Return the verdicts by problem."""
    found: dict[str, list[VerdictName]] = {}
    for verdict in verdicts:
        found.setdefault(verdict.problem_id, []).append(verdict.verdict)
    return found


def score_row(
    model: str,
    benchmark: str,
    traces: Sequence[Trace],
    verdicts: Sequence[Verdict],
    *,
    protocol: str,
) -> Score:
    """Return one model's result on one benchmark.

    Raises DataError where traces and verdicts do not belong together, there are none, or no
    trace says its tokens.
    """
    _require_pairs(model, benchmark, traces, verdicts)
    estimate = pass_at_1(outcomes(verdicts))
    counts = Counter(verdict.verdict for verdict in verdicts)
    cut = {trace.id for trace in traces if trace.finish_reason == "length"}
    tokens = [t.completion_tokens for t in traces if t.completion_tokens is not None]
    if not tokens:
        raise DataError(f"{model} on {benchmark}: no trace says how many tokens it has")
    return Score(
        model=model,
        benchmark=benchmark,
        domain=verdicts[0].domain,
        mean=estimate.mean,
        low=estimate.low,
        high=estimate.high,
        lower_bound=estimate.lower_bound,
        upper_bound=estimate.upper_bound,
        n_problems=estimate.n_problems,
        n_samples=estimate.n_samples,
        correct=counts["correct"],
        wrong=counts["wrong"],
        no_answer=counts["no_answer"],
        truncated=sum(v.verdict == "no_answer" and v.trace_id in cut for v in verdicts),
        not_checked=counts["not_checked"],
        mean_tokens=sum(tokens) / len(tokens),
        protocol=protocol,
    )


def comparison_rows(results: Results, pairs: Sequence[tuple[str, str]]) -> list[Comparison]:
    """Return each pair (model, against) compared on every benchmark both have results on.

    A pair of which one has too many `not_checked` for a mean is left out with a warning.
    """
    rows = []
    for benchmark in dict.fromkeys(name for _, name in results):
        for model, against in pairs:
            sides = {name: results[name, benchmark] for name in (model, against)}
            if unsure := [name for name, found in sides.items() if not has_headline(found)]:
                warn(
                    f"{model} is not compared with {against} on {benchmark}: too many answers of "
                    f"{' and '.join(unsure)} could not be checked"
                )
                continue
            found = paired_difference(sides[model], sides[against])
            rows.append(
                Comparison(
                    model=model,
                    against=against,
                    benchmark=benchmark,
                    difference=found.difference,
                    low=found.low,
                    high=found.high,
                    p_value=found.p_value,
                    n_problems=found.n_problems,
                )
            )
    return rows


def _require_pairs(
    model: str, benchmark: str, traces: Sequence[Trace], verdicts: Sequence[Verdict]
) -> None:
    asked, checked = {t.id for t in traces}, {v.trace_id for v in verdicts}
    if asked != checked or len(traces) != len(verdicts) or not traces:
        raise DataError(
            f"{model} on {benchmark}: {len(traces)} traces and {len(verdicts)} verdicts, of which "
            f"{len(asked & checked)} belong together; run `cuvee evaluate` again"
        )
