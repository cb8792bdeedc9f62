"""What a preflight found, in words: headline, figures, memory; for the page and the terminal.

`Findings` in, plain text out. Numbers have separators and units; nothing is computed that the
findings do not say.
"""

from collections import Counter

from cuvee.lineage.text import one_line
from cuvee.train.preflight import Finding, Findings

UNITS = ("B", "KB", "MB", "GB", "TB", "PB")
MEMORY = ("weights", "gradients", "optimizer", "activations", "logits", "overhead", "total")
"""Parts of the memory estimate, in bytes."""

SHOWN_IDS = 5
"""Rows a finding names in a line of text."""

Figure = tuple[str, str]
"""Name and value, as people read them."""


def headline(findings: Findings) -> str:
    """Return the outcome as one sentence."""
    levels = Counter(finding.level for finding in findings.findings)
    trained = f"{findings.kept - findings.held_out:,} of {plural(findings.examples, 'example')}"
    warnings = plural(levels["warning"], "warning")
    if levels["error"]:
        with_warnings = f" and {warnings}" if levels["warning"] else ""
        return f"{plural(levels['error'], 'error')}{with_warnings}: training would not start."
    if levels["warning"]:
        return f"{trained} would be trained on as shown; {warnings}."
    return f"{trained} would be trained on as shown; nothing is wrong."


def figures(findings: Findings) -> list[Figure]:
    """Return what was counted, in the order to read it."""
    share = findings.answer_tokens / findings.tokens if findings.tokens else 0.0
    dropped = f"{len(findings.dropped_too_long):,}"
    if findings.dropped_too_long:
        dropped += f", with {plural(findings.answer_tokens_dropped, 'token')} to be learned"
    found = [
        ("examples", f"{findings.examples:,}"),
        (f"dropped: longer than {findings.max_tokens:,} tokens", dropped),
        ("kept", f"{findings.kept:,}"),
        ("held out to measure the loss", f"{findings.held_out:,}"),
        ("the same as an earlier row", f"{findings.duplicates:,}"),
        ("without reasoning", f"{findings.without_reasoning:,}"),
        ("longest row that is trained on", plural(findings.longest, "token")),
        ("tokens an epoch", f"{findings.tokens:,}"),
        ("of them trained", f"{findings.answer_tokens:,} ({100 * share:.1f} %)"),
        *_packing(findings),
        ("optimizer steps an epoch", f"{findings.steps_per_epoch:,}"),
        ("optimizer steps in all", f"{findings.steps:,}"),
        ("end of a turn", one_line(findings.end_of_turn)),
        ("<think> is opened by", "the prompt" if findings.think_opened_by_prompt else "the model"),
    ]
    return found


def estimates(findings: Findings) -> list[Figure]:
    """Return the estimates of memory and time; both may be unknown."""
    memory = findings.memory or {}
    lines = [(f"memory: {name}", size(int(memory[name]))) for name in MEMORY if name in memory]
    if "moment" in memory:
        lines.append(("fullest at", one_line(str(memory["moment"]))))
    if not memory:
        lines.append(("memory", "not estimated"))
    known = findings.seconds is not None
    lines.append(("time", duration(findings.seconds or 0) if known else "not estimated"))
    return lines


def assumptions(findings: Findings) -> list[str]:
    """Return what the estimates rest on, in words."""
    return [one_line(str(said)) for said in (findings.memory or {}).get("assumptions", ())]


def quoted_ids(finding: Finding) -> str:
    """Return the rows a finding concerns, the first by id; "" where it is the whole set."""
    if not finding.count:
        return ""
    named = ", ".join(one_line(name) for name in finding.ids[:SHOWN_IDS])
    more = finding.count - len(finding.ids[:SHOWN_IDS])
    others = f" and {more:,} more" if more > 0 and named else ""
    return f"{plural(finding.count, 'row')}{': ' if named else ''}{named}{others}"


def plural(number: int, noun: str) -> str:
    """Return `1 row`, `2,000 rows`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def size(amount: int) -> str:
    """Return bytes as people say them, in powers of 1,000: `640 B`, `1.6 GB`."""
    value, unit = float(amount), 0
    while value >= 999.5 and unit < len(UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return (
        f"{value:.0f} {UNITS[unit]}" if value >= 99.5 or not unit else f"{value:.1f} {UNITS[unit]}"
    )


def duration(seconds: float) -> str:
    """Return seconds as people say them: `8 s`, `12 min`, `3.2 h`, `5.1 days`."""
    if seconds < 1:
        return "under 1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def _packing(findings: Findings) -> list[Figure]:
    if findings.packing_efficiency is None:
        return [("rows an epoch (not packed)", f"{findings.rows:,}")]
    full = f"{100 * findings.packing_efficiency:.1f} % full"
    return [(f"packed rows of {findings.max_tokens:,} tokens", f"{findings.rows:,}, {full}")]
