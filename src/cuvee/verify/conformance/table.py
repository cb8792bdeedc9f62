"""The results of the suite as a table for people and as JSON for programs.

Results in, text or a JSON value out. Not here: how a result is graded
(`cuvee.verify.conformance.run`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cuvee.verify.conformance import VERSION
from cuvee.verify.conformance.run import GOOD, Result

_COLUMNS = (
    "agrees", "contained", "other_reason", "false_correct", "false_wrong", "not_checked",
    "forged", "escaped", "unsupported",
)  # fmt: skip
_LONGEST_REPLY = 60


def render(results: Sequence[Result]) -> str:
    """Return the counts by kind, then every case that was not answered as it should be."""
    groups = {f"{result.case.part}/{result.case.kind}": 0 for result in results}
    counts = {name: Counter[str]() for name in [*groups, "all"]}
    for result in results:
        counts[f"{result.case.part}/{result.case.kind}"][result.grade] += 1
        counts["all"][result.grade] += 1
    shown = [name for name in _COLUMNS if counts["all"][name]]
    rows = [["", "cases", *shown]]
    for group, of_group in counts.items():
        cells = [str(of_group[name] or "-") for name in shown]
        rows.append([group, str(of_group.total()), *cells])
    lines = _aligned(rows)
    bad = [result for result in results if result.grade not in GOOD]
    return "\n".join([*lines, "", *(_line(result) for result in bad)]).rstrip()


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _line(result: Result) -> str:
    case, said = result.case, result.said
    wanted = " or ".join(case.verdicts) + (f" ({case.reason})" if case.reason else "")
    got = said.verdict + (f" ({said.reason})" if said.reason else "")
    detail = f"; {result.detail}" if result.detail else ""
    shown = ""
    if "gold" in case.item:
        reply = case.item["reply"]
        cut = reply if len(reply) <= _LONGEST_REPLY else f"{reply[:_LONGEST_REPLY]}..."
        shown = f"  gold {str(case.item['gold'])[:_LONGEST_REPLY]!r}, reply {cut!r}"
    return f"{result.grade}: {case.id}: wanted {wanted}, said {got}{detail}{shown}"


def as_json(results: Sequence[Result], *, verifier: str) -> Mapping[str, Any]:
    """Return the results as a JSON value: suite version, verifier, one object a case."""
    return {
        "suite": VERSION,
        "verifier": verifier,
        "counts": dict(sorted(Counter(result.grade for result in results).items())),
        "results": [
            {
                "id": result.case.id,
                "wanted": list(result.case.verdicts),
                "wanted_reason": result.case.reason,
                "verdict": result.said.verdict,
                "reason": result.said.reason,
                "grade": result.grade,
                "detail": result.detail,
            }
            for result in results
        ],
    }
