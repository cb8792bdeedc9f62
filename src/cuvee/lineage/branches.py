"""Lines of the tree that `cuvee explain` shows, and its branches about grades and refining.

Records of a way in, lines and branches out. As in the whole tree every text of a model passes
`visible` and is put in as plain text. Not here: the tree (`cuvee.lineage.tree`).
"""

from rich.text import Text
from rich.tree import Tree

from cuvee.lineage.requests import Asked
from cuvee.lineage.sources import UNKNOWN
from cuvee.lineage.text import fold, one_line
from cuvee.lineage.way import Change, Grading, Pass, Refining

SHORT = 60
"""Characters of a text that stands on the line of its label."""


def line(label: str, value: str, *, style: str = "") -> Text:
    """Return `label value` with the label in bold; the value is made one visible line."""
    text = Text(label, style="bold")
    return text.append(f" {one_line(value)}", style=style or "not bold") if value else text


def block(label: str, value: str, *, full: bool) -> Text:
    """Return a text beside its label, or under it and folded (unless `full`) where it is long."""
    if len(value) <= SHORT and "\n" not in value:
        return line(label, value)
    text = Text(f"{label} ({len(value):,} characters)\n", style="bold")
    return text.append(fold(value, full=full), style="not bold")


def request(asked: Asked) -> Text:
    """Return the line about the request of a trace, or why there is none to show."""
    found = asked.request
    if found is None:
        return line("request", f"{asked.trace.request} {asked.no_request}".strip())
    paid = "bought by this run" if found.own else f"bought by {found.account or UNKNOWN}"
    sampling = ", ".join(f"{name} {value}" for name, value in found.sampling.items())
    text = f"{found.key}, seed {found.seed}, {sampling}; received {found.created}, {paid}"
    system = [m["content"] for m in found.messages if m.get("role") == "system"]
    return line("request", text + "".join(f"; system message: {one}" for one in system))


def cost(asked: Asked) -> Text:
    """Return the line about the tokens, seconds and dollars that a trace took."""
    trace = asked.trace
    counted = (trace.prompt_tokens, trace.completion_tokens)
    tokens = " + ".join(UNKNOWN if n is None else f"{n:,}" for n in counted)
    cost = f"cost {UNKNOWN}" if trace.usd is None else f"{trace.usd:.6f} USD"
    return line("took", f"{tokens} tokens (prompt + answer), {trace.seconds:.2f} s, {cost}")


def add_answer(branch: Tree, answer: Asked, *, of: str, full: bool) -> None:
    """Add what a teacher answered as `of` (`judge`, `refiner`), and the request of it."""
    trace = answer.trace
    inner = branch.add(line(of, f"{trace.id} by {trace.model}", style="cyan"))
    inner.add(request(answer))
    inner.add(cost(answer))
    if trace.error is not None:
        inner.add(line("failed", trace.error, style="red"))
        return
    inner.add(block(f"{of}'s answer", trace.answer, full=full))


def add_grading(branch: Tree, grading: Grading, *, full: bool) -> None:
    """Add the grade of a trace, that of each point, and what the teacher wrote."""
    grade = grading.grade
    if grade.grade is None or grade.mean is None:
        told = f"none by {grade.judge}: {grade.reason}"
        inner = branch.add(line("grade", told, style="magenta"))
        if grade.detail:
            inner.add(block("detail", grade.detail, full=full))
    else:
        answers = "" if grade.samples == 1 else f", of {grade.samples} answers"
        told = f"{grade.grade:g} of 5 (the lowest point) by {grade.judge}"
        inner = branch.add(line("grade", f"{told}; mean {grade.mean:.2f}{answers}"))
    for name, value in grading.points:
        inner.add(Text(f"{value:g}  ").append(fold(one_line(name), full=full)))
    for answer in grading.answers:
        add_answer(inner, answer, of="judge", full=full)


def add_refining(branch: Tree, refining: Refining, *, full: bool) -> None:
    """Add what became of an example: its lengths, and of each pass what went or why it stayed."""
    lengths = f"{refining.tokens_before:,} -> {refining.tokens:,} tokens"
    changed = any(one.row.accepted for one in refining.passes)
    inner = branch.add(line("refined" if changed else "not refined", lengths))
    for one in refining.passes:
        _add_pass(inner, one, full=full)
    if changed:
        inner.add(block("reasoning as it is trained on", refining.reasoning, full=full))


def _add_pass(branch: Tree, one: Pass, *, full: bool) -> None:
    row = one.row
    who = row.way if one.asked is None else f"{row.way} {one.asked.trace.model}"
    if row.accepted:
        took = ", ".join(f"{rule} {count}" for rule, count in one.applied.items())
        told = f"accepted, {row.tokens_before:,} -> {row.tokens:,} tokens"
        text = line(who, f"{told}; left out: {took}" if took else told, style="green")
    else:
        text = line(who, f"the text before stayed: {row.reason}", style="yellow")
        if row.detail:
            text.append(f" ({one_line(row.detail)})", style="not bold")
    inner = branch.add(text)
    for change in one.changes:
        inner.add(_change(change, full=full))
    if one.asked is not None:
        add_answer(inner, one.asked, of="refiner", full=full)


def _change(change: Change, *, full: bool) -> Text:
    text = Text("answer " if change.part == "answer" else "", style="bold")
    if change.gone.strip():
        text.append(f"- {fold(one_line(change.gone), full=full)}", style="not bold red")
    if change.new.strip():
        text.append("\n" if change.gone.strip() else "")
        text.append(f"+ {fold(one_line(change.new), full=full)}", style="not bold green")
    return text
