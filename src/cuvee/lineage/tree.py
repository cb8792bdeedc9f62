"""A `Way` as a tree for the terminal: source, problem, traces, verdicts, filters, training set.

Ways in, rich trees out. Every text of a model or a published file passes `visible` and is put
in as plain text, so that neither escape sequences nor rich's own markup in it do anything.
Not here: what is shown (`cuvee.lineage.explain`).
"""

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from cuvee.lineage.branches import add_answer, add_grading, add_refining, block, cost, line, request
from cuvee.lineage.decisions import Decision
from cuvee.lineage.listing import Listing
from cuvee.lineage.sources import UNKNOWN, SourceRecord, revision_text
from cuvee.lineage.text import fold, one_line
from cuvee.lineage.way import Sibling, Step, Way
from cuvee.records import Dropped, Problem, Verdict

STYLES = {
    "correct": "green", "wrong": "red", "no_answer": "yellow", "not_checked": "magenta",
    "passed": "green", "dropped": "red", "not reached": "dim",
}  # fmt: skip


def show(way: Way, *, full: bool) -> Tree:
    """Return the tree of a way; long texts are folded unless `full`."""
    what = {"judge": "a judge's answer", "refiner": "a refiner's answer"}.get(way.kind, way.kind)
    tree = Tree(line(what, f"{way.id} of the {way.stands_in} {way.name}", style="bold"))
    _add_source(tree, way)
    _add_problem(tree, way, full=full)
    for step in way.steps:
        _add_step(tree, step, way, full=full)
    if way.siblings:
        branch = tree.add(line("other traces of this problem", f"{len(way.siblings):,}"))
        for sibling in way.siblings:
            branch.add(_sibling(sibling))
    if way.missing:
        branch = tree.add(line("not there yet", ""))
        for name in way.missing:
            branch.add(Text(one_line(name), style="dim"))
    return tree


def show_listing(listing: Listing) -> Table:
    """Return the table of a listing: rows and first ids by domain, stage and outcome."""
    table = Table(box=None, pad_edge=False)
    for name in ("domain", "stage", "outcome"):
        table.add_column(name, no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("first ids", overflow="fold")
    for group in listing.groups:
        outcome = f"{group.outcome}: {group.reason}" if group.reason else group.outcome
        cells = (group.domain, group.stage, outcome, f"{group.count:,}", " ".join(group.ids))
        table.add_row(*(Text(one_line(cell)) for cell in cells))
    return table


def _add_source(tree: Tree, way: Way) -> None:
    if way.problem is None:
        branch = tree.add(line("source", "one of these" if len(way.sources) > 1 else ""))
    else:
        row = way.problem.place or "row not recorded"
        branch = tree.add(line("source", f"{way.problem.source}: {row}"))
    if not way.sources:
        branch.add(line("revision and licence", UNKNOWN))
    for record in way.sources:
        branch.add(_record(record, named=way.problem is None))


def _record(record: SourceRecord, *, named: bool) -> Text:
    parts = [record.source] if named else []
    parts += [f"config {record.config}"] if record.config else []
    parts += [f"split {record.split}"] if record.split else []
    parts.append(f"revision {revision_text(record)}")
    parts.append(f"licence {record.licence or UNKNOWN}")
    if not record.recorded:
        parts.append("(as the recipe asks; nothing was recorded)")
    return Text(one_line(", ".join(parts)))


def _add_problem(tree: Tree, way: Way, *, full: bool) -> None:
    if way.problem is None:
        branch = tree.add(line("problem", f"{way.problem_id}, not among the kept ones"))
        if not way.drops:
            branch.add(Text("neither kept nor dropped: its file is of another run or version"))
    else:
        branch = tree.add(line("problem", f"{way.problem_id}, kept"))
        _add_question(branch, way.problem, way.vote, full=full)
    for row in way.drops:
        copy = "" if way.problem is None else "a copy of it was "
        branch.add(_dropped(row, begin=f"{copy}dropped:"))


def _add_question(
    branch: Tree, problem: Problem, vote: Mapping[str, Any] | None, *, full: bool
) -> None:
    branch.add(block("question", problem.question, full=full))
    if problem.gold is not None:
        branch.add(block("gold", problem.gold, full=full))
    if problem.tests is not None:
        branch.add(block("tests", problem.tests, full=full))
    if problem.gold is None and problem.tests is None:
        branch.add(line("gold", "none: the source has no answer"))
    if vote is not None:
        told = f"{vote.get('outcome')}: {vote.get('answer')}"
        branch.add(line("vote", f"{told}, by {vote.get('agree')} of {vote.get('traces')} traces"))
    branch.add(line("checked by", problem.verifier))


def _dropped(row: Dropped, *, begin: str) -> Text:
    text = Text(f"{begin} ", style="bold").append(one_line(row.reason), style="red")
    return text.append(f" ({one_line(row.detail)})") if row.detail else text


def _add_step(tree: Tree, step: Step, way: Way, *, full: bool) -> None:
    trace = step.asked.trace
    who = f"{trace.id} by {trace.model}, sample {trace.sample}{_round(step.in_round)}"
    branch = tree.add(line("trace", who, style="cyan"))
    branch.add(request(step.asked))
    branch.add(cost(step.asked))
    if trace.error is not None:
        branch.add(line("failed", trace.error, style="red"))
    else:
        branch.add(line("finished", trace.finish_reason))
        branch.add(block("reasoning", trace.reasoning, full=full))
        branch.add(block("answer", trace.answer, full=full))
    for judged in step.judged:
        add_answer(branch, judged, of="judge", full=full)
    branch.add(_verdict(step.verdict))
    if step.grading is not None:
        add_grading(branch, step.grading, full=full)
    if way.stands_in == "domain":
        _add_end(branch, step, way, full=full)


def _verdict(verdict: Verdict | None) -> Text:
    if verdict is None:
        return line("verdict", "none yet", style="dim")
    text = line("verdict", f"{verdict.verdict}: {verdict.reason}", style=STYLES[verdict.verdict])
    for name in ("extracted", "expected", "detail"):
        value = getattr(verdict, name)
        if value is not None:
            text.append(f"; {name} {fold(one_line(value), full=False)}", style="not bold")
    return text.append(f"; by {one_line(verdict.checker)}", style="not bold")


def _add_end(branch: Tree, step: Step, way: Way, *, full: bool) -> None:
    for outcome in ("passed", "dropped", "not reached"):
        same = [decision for decision in step.decisions if decision.outcome == outcome]
        if same:
            text = line(f"filters {outcome}:", "")
            told = ", ".join(_decision(decision) for decision in same)
            branch.add(text.append(f" {told}", style=f"not bold {STYLES[outcome]}"))
    branch.add(_training(step, way))
    if step.refining is not None:
        add_refining(branch, step.refining, full=full)


def _decision(decision: Decision) -> str:
    told = [part for part in (decision.reason, decision.detail) if part]
    return one_line(f"{decision.filter} ({': '.join(told)})" if told else decision.filter)


def _training(step: Step, way: Way) -> Text:
    if step.chosen is None:
        return line("training set", "not decided yet", style="dim")
    if not step.chosen:
        return line("training set", f"not chosen{_instead(way)}")
    told = f"chosen for the specialist {way.name}, {step.tokens:,} tokens"
    if step.too_long:
        told += "; training left it out: longer than train.max_tokens"
    if step.held_out:
        told += "; held out: training measured the loss on it and did not learn it"
    return line("training set", told, style="green")


def _instead(way: Way) -> str:
    """Return which traces of the problem were chosen."""
    chosen = [(s.id, s.teacher, s.tokens) for s in way.siblings if s.end == "chosen"]
    steps = [step for step in way.steps if step.chosen]
    chosen += [(s.asked.trace.id, s.asked.trace.model, s.tokens) for s in steps]
    named = [f"{name} by {teacher} ({tokens:,} tokens)" for name, teacher, tokens in chosen]
    return f"; of this problem {', '.join(named)}" if named else ""


def _round(number: int | None) -> str:
    return "" if number is None else f", round {number}"


def _sibling(sibling: Sibling) -> Text:
    text = Text(f"{one_line(sibling.id)} ", style="cyan")
    told = [f"{sibling.teacher}, sample {sibling.sample}{_round(sibling.in_round)}"]
    told += [sibling.finish_reason]
    told += [sibling.verdict or "no verdict yet"]
    told += [sibling.end] if sibling.end else []
    return text.append(one_line(", ".join(told)), style="not cyan")
