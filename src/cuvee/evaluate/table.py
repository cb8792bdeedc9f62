"""The score table: traces and verdicts of models on benchmarks -> rows of scores, comparisons.

Counts and fits together; the mathematics stands in `cuvee.evaluate.statistics`. No files.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cuvee.errors import DataError
from cuvee.evaluate.ballots import ballots
from cuvee.evaluate.statistics import (
    Outcomes,
    has_headline,
    maj_at_k,
    paired_difference,
    pass_at_1,
    pass_at_k,
    sizes,
    standard_errors,
)
from cuvee.progress import warn
from cuvee.records import Comparison, Score, Trace, Verdict, VerdictName, dumps

Results = Mapping[tuple[str, str], Outcomes]
"""(model, benchmark) -> the verdicts by problem."""

OF_ONE_SIDE = ("outputs",)
"""Keys of a protocol that name what was scored, not how: they are no difference."""


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

    `mean_tokens` is of the traces that say their tokens, None where none does. pass@k, maj@k and
    the standard errors are left out where the score has no mean; maj@k for k that some
    problem has too few checked samples for.
    Raises DataError where traces and verdicts do not belong together, or there are none.
    """
    _require_pairs(model, benchmark, traces, verdicts)
    by_problem = outcomes(verdicts)
    estimate = pass_at_1(by_problem)
    counts = Counter(verdict.verdict for verdict in verdicts)
    cut = {trace.id for trace in traces if trace.finish_reason == "length"}
    tokens = [t.completion_tokens for t in traces if t.completion_tokens is not None]
    row = Score(
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
        mean_tokens=sum(tokens) / len(tokens) if tokens else None,
        protocol=protocol,
    )
    return row if estimate.mean is None else _with_several(row, by_problem, verdicts)


def _with_several(row: Score, by_problem: Outcomes, verdicts: Sequence[Verdict]) -> Score:
    """Return a score with what several samples a problem say beyond its mean."""
    errors, found = standard_errors(by_problem), ballots(verdicts)
    every_k = sizes(min(len(names) for names in by_problem.values()))
    voters = min((ballot.samples for ballot in found), default=0)
    pass_at = {str(k): dataclasses.asdict(pass_at_k(by_problem, k=k)) for k in every_k}
    maj_at = {str(k): dataclasses.asdict(maj_at_k(found, k=k)) for k in every_k if k <= voters}
    return dataclasses.replace(
        row,
        pass_at=dumps(pass_at),
        maj_at=dumps(maj_at),
        se_problems=errors.problems,
        se_samples=errors.samples,
    )


def comparison_rows(
    results: Results,
    pairs: Sequence[tuple[str, str]],
    *,
    protocols: Mapping[tuple[str, str], str] | None = None,
) -> list[Comparison]:
    """Return each pair (model, against) compared on every benchmark both have results on.

    `protocols` are the scores' own, by (model, benchmark): what differs between two is said in
    the row. A pair of which one has too many `not_checked` for a mean is left out with a
    warning. Raises DataError where the two were asked different problems.
    """
    rows = []
    for benchmark in dict.fromkeys(name for _, name in results):
        for model, against in pairs:
            sides = [(name, benchmark) for name in (model, against)]
            if not all(side in results for side in sides):
                continue
            if unsure := [side[0] for side in sides if not has_headline(results[side])]:
                warn(
                    f"{model} is not compared with {against} on {benchmark}: too many answers of "
                    f"{' and '.join(unsure)} could not be checked"
                )
                continue
            found = paired_difference(results[sides[0]], results[sides[1]])
            said = [(protocols or {}).get(side, "{}") for side in sides]
            rows.append(
                Comparison(
                    model=model,
                    against=against,
                    benchmark=benchmark,
                    **dataclasses.asdict(found),
                    protocols=dumps(protocol_differences(*said)),
                )
            )
    return rows


def protocol_differences(model: str, against: str) -> dict[str, list[Any]]:
    """Return what differs between two protocols (JSON objects): key path -> both values.

    A path joins nested keys by dots, as in `sampling.temperature`; a key that one side lacks
    has None there. Raises DataError for what is no JSON object.
    """
    sides = [dict(leaves(_object(text))) for text in (model, against)]
    pairs = {path: [side.get(path) for side in sides] for path in sides[0] | sides[1]}
    return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DataError(f"a score's protocol is not JSON: {text[:80]!r}") from error
    if not isinstance(found, dict):
        raise DataError(f"a score's protocol is not a JSON object: {text[:80]!r}")
    return {key: value for key, value in found.items() if key not in OF_ONE_SIDE}


def leaves(found: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what stands in nested mappings, each with its key path: `sampling.top_p`, 0.95."""
    for key, value in found.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _require_pairs(
    model: str, benchmark: str, traces: Sequence[Trace], verdicts: Sequence[Verdict]
) -> None:
    asked, checked = {t.id for t in traces}, {v.trace_id for v in verdicts}
    if asked != checked or len(traces) != len(verdicts) or not traces:
        raise DataError(
            f"{model} on {benchmark}: {len(traces)} traces and {len(verdicts)} verdicts, of which "
            f"{len(asked & checked)} belong together; run `cuvee evaluate` again"
        )
