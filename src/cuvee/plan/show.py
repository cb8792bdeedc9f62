"""A plan as text for a terminal, at most 100 columns, and as JSON with stable keys.

Each number's origin is seen: `~` before what is assumed, nothing before what is measured or
known. Model-written text is not in a plan; names are the recipe's.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cuvee.plan.assumptions import Assumption
from cuvee.plan.figures import NOTHING, Figure
from cuvee.plan.rows import Plan, Row
from cuvee.plan.wording import count, hours, ranged, size, usd

SCHEMA = 1
"""Of the JSON; raised where a key is renamed, removed or means something else."""
HEADINGS = ("work", "requests", "prompt", "answer", "dollars", "time", "disk", "memory", "gpus")
LEGEND = (
    "~ assumed; without it measured or known. prompt, answer: tokens; of train: tokens trained on"
)


def text(plan: Plan) -> RenderableType:
    """Return the whole plan for a terminal."""
    parts: list[RenderableType] = [
        Text(f"{plan.name}: {plan.headline}"),
        _table(plan),
        Text(LEGEND),
    ]
    parts += [_ranges(plan)]
    parts += _list("examples", [each.words for each in plan.expected])
    parts += _list("budget", [each.words for each in plan.budget])
    parts += _list(
        "does not fit here", [f"{each.words}. Nearest: {each.nearest}" for each in plan.misfits]
    )
    parts += _list("notes", plan.notes)
    if plan.assumptions:
        parts += [Text("\nassumed (change one with --assume NAME=VALUE or NAME=LOW..HIGH)")]
        parts += [_assumed(plan.assumptions)]
    if plan.measured_in:
        parts.append(Text(f"\nmeasured in {plan.measured_in}"))
    return Group(*parts)


def as_json(plan: Plan) -> dict[str, Any]:
    """Return the plan as JSON values. Units: hours, bytes, US dollars; None is unknown."""
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "name": plan.name,
        "limit": plan.limit,
        "headline": plan.headline,
        "measured_in": plan.measured_in,
        "fits": not plan.misfits,
        "rows": [_row(row) for row in plan.rows],
        "total": _row(plan.total),
        "left": _row(plan.left),
        "spent_usd": dict(plan.spent),
    }
    for key in ("expected", "budget", "misfits", "assumptions"):
        found[key] = [dataclasses.asdict(each) for each in getattr(plan, key)]
    found["notes"] = list(plan.notes)
    found["machine"] = dataclasses.asdict(plan.machine)
    return found


def _row(row: Row) -> dict[str, Any]:
    found = dataclasses.asdict(row)
    del found["lane"], found["turn"], found["on_nodes"]
    found["tasks"] = list(row.tasks)
    return found


def _table(plan: Plan) -> Table:
    rows = [_cells(row, f"{row.stage}/{row.name.replace('benchmarks/', '')}") for row in plan.rows]
    sums = [_cells(plan.total, "total")]
    if plan.total.scratch not in (None, NOTHING):
        more = Row("", "", disk=plan.total.scratch)
        sums.append(_cells(more, "while training, more"))
    if plan.left != dataclasses.replace(plan.total, stage="left"):
        sums.append(_cells(plan.left, "left"))
    used = [any(row[number] for row in (*rows, *sums)) for number in range(len(HEADINGS))]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in itertools.compress(HEADINGS, used):
        table.add_column(heading, justify="left" if heading == "work" else "right",
                         overflow="fold", no_wrap=heading != "work")  # fmt: skip
    for number, row in enumerate(plan.rows):
        if number and row.stage != plan.rows[number - 1].stage:
            table.add_section()
        table.add_row(*itertools.compress(rows[number], used))
    table.add_section()
    for number, cells in enumerate(sums):
        table.add_row(*itertools.compress(cells, used), style="" if number else "bold")
    return table


def _cells(row: Row, name: str) -> list[str]:
    done = " [done]" if row.done else ""
    return [
        escape(name + done), _cell(row.requests, count), _cell(row.prompt_tokens, count),
        _cell(row.answer_tokens, count), _cell(row.usd, usd), _cell(row.hours, hours),
        _cell(row.disk, size), _cell(row.memory, size), str(row.gpus or ""),
    ]  # fmt: skip


def _cell(figure: Figure | None, say: Callable[[float], str]) -> str:
    if figure is None:
        return "?"
    if figure == NOTHING:
        return ""
    return ("~" if figure.origin == "assumed" else "") + say(figure.value)


def _ranges(plan: Plan) -> Text:
    """Return the totals with their ranges, and what is done of them."""
    whole, left = plan.total, plan.left
    lines = [
        f"dollars {ranged(whole.usd, usd)}, time {ranged(whole.hours, hours)}, "
        f"disk {ranged(whole.disk, size)}",
        f"and while training {ranged(whole.scratch, size)} more on disk for checkpoints",
    ]
    if plan.spent:
        lines.append(f"spent so far: {usd(sum(plan.spent.values()))}")
    if left.hours != whole.hours:
        done = sum(row.done for row in plan.rows)
        lines.append(
            f"done: {done} of {len(plan.rows)} rows; left: {ranged(left.usd, usd)}, "
            f"{ranged(left.hours, hours)}"
        )
    return Text("\n" + "\n".join(lines))


def _list(title: str, lines: Sequence[str]) -> list[RenderableType]:
    return [Text(f"\n{title}\n" + "\n".join(f"- {line}" for line in lines))] if lines else []


def _assumed(assumptions: Sequence[Assumption]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("name", overflow="fold")
    table.add_column("value", justify="right")
    table.add_column("range", justify="right")
    table.add_column("what", overflow="fold")
    for each in assumptions:
        low, high = _number(each.low), _number(each.high)
        table.add_row(
            escape(each.name), _number(each.value), "" if low == high else f"{low}..{high}",
            escape(each.words + (" (given)" if each.given else "")),
        )  # fmt: skip
    return table


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else count(value)
