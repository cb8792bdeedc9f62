"""What a preflight found, shown: one HTML file that works offline, and a view for a terminal.

`Findings` and `Sample`s in; out an HTML text, a rich renderable, or the file `preflight.html`.
The text of sample rows is coloured by loss mask. All texts are hostile: they are escaped, and
characters that nobody would see are written as their number. The page holds no script and
loads nothing. Nothing is checked here (`cuvee.train.preflight`).
"""

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup, escape
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from cuvee import __version__
from cuvee.atomic import write_text
from cuvee.lineage.text import one_line, visible
from cuvee.templates import environment
from cuvee.train.preflight import Finding, Findings, read_findings
from cuvee.train.preflight_histogram import bars, histogram
from cuvee.train.preflight_samples import Piece, Sample, samples
from cuvee.train.preflight_words import assumptions, estimates, figures, headline, quoted_ids

PAGE = "preflight.html"
PAGE_SAMPLES, TERMINAL_SAMPLES = 12, 3
HEAD, TAIL = 6000, 1500
"""Characters shown of a piece's beginning and end; what is between them is counted."""
TERMINAL_HEAD, TERMINAL_TAIL = 300, 120
STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
PIECE_STYLES = {"text": "", "token": " reverse", "split": " underline"}


def write_page(
    out: Path, tokenizer: PreTrainedTokenizerBase, *, title: str, examples: Path | None = None
) -> Path:
    """Write `preflight.html` beside a preflight's `preflight.json`, atomically; return its path.

    `examples` is the file the preflight read: rows that it dropped are shown from there. Raises
    DataError where a file cannot be read, OSError where the page cannot be written.
    """
    findings = read_findings(out)
    shown = samples(out, tokenizer, count=PAGE_SAMPLES, examples=examples)
    write_text(out / PAGE, page(findings, shown, title=title))
    return out / PAGE


def page(findings: Findings, samples: Sequence[Sample], *, title: str) -> str:
    """Return one HTML document; `title` says whose preflight it is, e.g. `demo, math`."""
    templates = environment("cuvee.train", html=True)
    templates.filters.update(visible=shown_text, count="{:,}".format, one_line=one_line)
    numbers = {sample.id: number for number, sample in reversed(list(enumerate(samples)))}
    return templates.get_template("preflight.html.j2").render(
        findings=findings.findings,
        title=one_line(title),
        headline=headline(findings),
        figures=figures(findings),
        estimates=estimates(findings),
        assumptions=assumptions(findings),
        histogram=histogram(findings.lengths, findings.max_tokens),
        template_changes=findings.template_changes,
        samples=samples,
        numbers=numbers,
        classes=_classes,
        cuvee_version=__version__,
    )


def terminal(findings: Findings, samples: Sequence[Sample], *, title: str = "") -> RenderableType:
    """Return the same for a terminal: findings, figures, lengths and the first few samples."""
    heading = f"{one_line(title)}: {headline(findings)}" if title else headline(findings)
    parts: list[RenderableType] = [Text(heading, style="bold"), Text()]
    parts += [_finding_line(finding) for finding in findings.findings]
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for name, value in [*figures(findings), *estimates(findings)]:
        table.add_row(Text(name, style="dim"), Text(value))
    parts += [Text(), table]
    parts += [Text(f"estimated: {said}", style="dim") for said in assumptions(findings)]
    parts += [Text(), Text("tokens a row", style="dim")]
    parts.append(_histogram_table(findings))
    if samples:
        parts += [Text(), Text("rows, with ⟦what is inside the loss⟧ in brackets", style="dim")]
    for sample in samples[:TERMINAL_SAMPLES]:
        parts += [Text(), *_sample_lines(sample)]
    return Group(*parts)


def shown_text(text: str, head: int = HEAD, tail: int = TAIL) -> Markup:
    """Return hostile text as markup: newlines marked and kept, unseen characters as numbers.

    Of a text longer than head + tail characters the middle is left out and counted.
    """
    if len(text) <= head + tail:
        return _marked(text)
    left_out = Markup('<span class="more"> … {:,} more characters … </span>').format(
        len(text) - head - tail
    )
    return _marked(text[:head]) + left_out + _marked(text[-tail:])


def _marked(text: str) -> Markup:
    lines = [Markup("").join(_character(c) for c in line) if not line.isprintable() else
             escape(line) for line in text.split("\n")]  # fmt: skip
    return Markup('<i class="newline"></i>\n').join(lines)


def _character(character: str) -> Markup:
    seen = visible(character)
    if seen == character:
        return escape(character)
    return Markup('<span class="control">U+{:04X}</span>').format(ord(character))


def _classes(piece: Piece) -> str:
    """Return the CSS classes of a piece."""
    kind = "" if piece.kind == "text" else f" {piece.kind}"
    return ("trained" if piece.trained else "prompt") + kind


def _finding_line(finding: Finding) -> Text:
    ids = quoted_ids(finding)
    return Text.assemble(
        (f"{finding.level}: ", STYLES[finding.level]),
        visible(finding.message),
        (f"\n  {ids}" if ids else "", "dim"),
    )


def _histogram_table(findings: Findings) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_column(no_wrap=True)
    for span, count, length, dropped in bars(findings.lengths, findings.max_tokens):
        style = "red" if dropped else "green"
        label = " dropped" if dropped and count else ""
        table.add_row(span, f"{count:,}", Text("█" * length, style=style).append(label))
    return table


def _sample_lines(sample: Sample) -> list[Text]:
    facts = f"{sample.tokens:,} tokens, {sample.trained_tokens:,} of them inside the loss"
    heading = Text.assemble(
        (f"row {one_line(sample.id)}", "bold"), (f" ({one_line(sample.why)}; {facts})", "dim")
    )
    body, inside = Text(), False
    for piece in sample.pieces:
        if piece.trained != inside:  # colours alone are lost in a file, and to some eyes
            body.append("⟦" if piece.trained else "⟧", style="bold")
            inside = piece.trained
        style = ("green" if piece.trained else "dim") + PIECE_STYLES[piece.kind]
        body.append(_shortened(piece.text), style=style)
    body.append("⟧" if inside else "", style="bold")
    if sample.undrawn:
        body.append(f" … {sample.undrawn:,} more tokens", style="italic")
    return [heading, body]


def _shortened(text: str) -> str:
    if len(text) <= TERMINAL_HEAD + TERMINAL_TAIL:
        return visible(text)
    left_out = len(text) - TERMINAL_HEAD - TERMINAL_TAIL
    begun, ended = visible(text[:TERMINAL_HEAD]), visible(text[-TERMINAL_TAIL:])
    return f"{begun} … {left_out:,} more characters … {ended}"
