"""What a search says in the end: the table, the sentences below it, and `best.yaml`.

Rows of `Tried`, the best first, in; text out. Nothing is decided here that the rows do not
hold.
"""

from collections.abc import Sequence

import yaml
from rich.table import Table
from rich.text import Text

from cuvee.evaluate.scored import interval, percent
from cuvee.progress import printable
from cuvee.search.held_apart import HeldApart
from cuvee.search.tried import LEVEL, Result, Tried

HARDER = (
    "No example was chosen from these problems, often because the teachers failed on them: they "
    "are harder than most, so compare merges by these scores and read nothing else from them."
)


def tried_table(rows: Sequence[Tried]) -> Table:
    """Return the rows as a table: scores by domain, and the difference to the recipe's own."""
    domains = list(rows[0].domains) if rows else []
    table = Table(box=None, pad_edge=False)
    table.add_column("merge", overflow="fold", min_width=24)
    names = [*domains, "all %", "95 % interval", "against own", "95 % interval", "p", "p (Holm)"]
    for name in (*names, "seconds"):
        table.add_column(printable(name), justify="right", no_wrap=True)
    for row in rows:
        found = row.overall
        table.add_row(
            Text(printable(row.label)),
            *(_mean(row.domains[domain]) for domain in domains),
            _mean(found),
            interval(found.low, found.high),
            *_against(row),
            f"{row.seconds:.0f}",
        )
    return table


def _mean(found: Result) -> str:
    return "none" if found.mean is None else percent(found.mean)


def _against(row: Tried) -> tuple[str, str, str, str]:
    found = row.overall
    low, high, p_value = found.difference_low, found.difference_high, found.p_value
    if row.own:
        return "the recipe's own", "", "", ""
    if found.difference is None or low is None or high is None or p_value is None:
        return "not compared", "", "", ""
    corrected = "" if row.p_corrected is None else p_text(row.p_corrected)
    return points(found.difference), f"{points(low)} to {points(high)}", p_text(p_value), corrected


def points(share: float) -> str:
    """Return a difference of shares in percentage points, signed."""
    return f"{100 * share:+.1f}"


def p_text(value: float) -> str:
    """Return a p-value with four digits, none of them invented."""
    return f"{value:.4f}" if value >= 0.0001 else "<0.0001"


def conclusions(rows: Sequence[Tried], problems: Sequence[HeldApart]) -> list[str]:
    """Return what the rows say and what they do not, a sentence or two each."""
    tried = sum(not row.own for row in rows)
    asked = ", ".join(f"{len(held.problems)} {held.domain}" for held in problems)
    candidates = f"{tried} candidate{'' if tried == 1 else 's'}"
    said = [f"{candidates} beside the recipe's own, each on {asked} problems. {HARDER}"]
    if unsure := sum(row.overall.mean is None for row in rows):
        said.append(f"{unsure} without a score: over 1 % of its answers could not be checked.")
    best = rows[0]
    if any(row.own and row.overall.mean is None for row in rows):
        return [*said, "The recipe's own merge is one of them, so nothing is compared with it."]
    if best.own:
        said.append("No candidate scored higher than the recipe's own merge: nothing to change.")
        return said
    return [*said, _of_best(best, tried), _curse(tried)]


def _of_best(best: Tried, tried: int) -> str:
    found = best.overall
    what = f"The best, {best.label}, scored {points(found.difference or 0.0)} points to the"
    what += f" recipe's own ({_against(best)[1]})"
    if best.stands_out:
        return (
            f"{what}; corrected for {tried} tries p is {p_text(best.p_corrected or 0.0)}: it "
            "stands out."
        )
    if best.undecided:
        needed = found.problems_needed
        more = (
            f" About {needed} problems would tell, if it is as large as it looks." if needed else ""
        )
        return (
            f"{what}: the interval contains 0, so it is not distinguishable from the recipe's "
            f"own.{more}"
        )
    return (
        f"{what}; but the best of {tried} tries differs that much by chance: corrected p is "
        f"{p_text(best.p_corrected or 1.0)}, above {LEVEL}. It is not distinguishable from the "
        "recipe's own."
    )


def _curse(tried: int) -> str:
    return (
        f"Picked as the best of {tried + 1} on these very problems, its score is too high on "
        "average (the winner's curse), whatever its p-value. Score it once on the benchmarks, "
        "beside the recipe's own, before you believe it."
    )


def best_yaml(best: Tried, said: Sequence[str]) -> str:
    """Return the `merge:` section of a row, with what is to be known of it as comments."""
    comments = "".join(f"# {printable(line)}\n" for line in said)
    section = yaml.safe_dump({"merge": dict(best.section)}, sort_keys=False, allow_unicode=True)
    return f"{comments}{section}"
