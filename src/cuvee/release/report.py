"""The report: one HTML file that works offline; and the score table for the terminal.

Facts in, text out. All that a model, a data set or a user wrote is escaped, and its
invisible characters are made visible; the page holds no script and loads nothing. What is
computed here are layouts, not results.
"""

import dataclasses
import json
import math
import os
import platform
import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

from markupsafe import Markup, escape
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from cuvee import __version__
from cuvee.merge.diagnostics.heatmap import module_label, module_order
from cuvee.recipe import MIXTURE
from cuvee.records import Comparison, Score
from cuvee.release import figures, wording
from cuvee.release.facts import Adopted, Facts, TaskTime
from cuvee.runfolder import STAGES
from cuvee.templates import environment

SHOWN_CHARACTERS = 6000
"""Of one text of a sample; what is left out is counted on the page."""
COLOURS = 5
"""Colours for specialists on the page; the sixth begins again."""
INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
"""Control, bidirectional and zero-width characters: what could make a text look like another."""

R = TypeVar("R", Score, Comparison)


@dataclasses.dataclass(frozen=True)
class _Fusion:
    """One fusion's shares adopted, as the page shows them."""

    name: str
    share: float
    """Over all elements."""
    layers: tuple[Adopted, ...]
    outside: tuple[Adopted, ...]
    """Of weights that belong to no layer."""
    modules: tuple[tuple[str, float], ...]
    """Module -> share over all layers."""
    identical: bool
    """No weight of the two models differs."""
    degenerate: int
    """Tensors whose threshold was 0."""


@dataclasses.dataclass(frozen=True)
class _StageTime:
    """What one stage did and took."""

    stage: str
    seconds: float
    tasks: tuple[TaskTime, ...]


def render_report(facts: Facts) -> str:
    """Return the report as one HTML document."""
    templates = environment("cuvee.release", html=True)
    templates.filters.update(
        percent=wording.percent,
        points=wording.points,
        count=wording.count,
        duration=wording.duration,
        visible=visible,
    )
    templates.tests["finite"] = math.isfinite
    fusions = _fusions(facts.adopted)
    return templates.get_template("report.html.j2").render(
        facts=facts,
        headline=wording.headline(facts.scores, facts.comparisons),
        findings=wording.findings(facts.scores, facts.comparisons),
        benchmarks=_by_benchmark(facts.scores),
        compared=_by_benchmark(facts.comparisons),
        protocols={s.benchmark: _indented(s.protocol) for s in facts.scores},
        colour=_colours(facts),
        label=wording.model_label,
        result=wording.result,
        outcome=wording.outcome,
        has_mixture=wording.has_mixture(facts.scores),
        figures=figures,
        module_label=module_label,
        reach=figures.reach(facts.comparisons),
        fusions=fusions,
        heat_top=max([0.01, *(cell.share for f in fusions for cell in f.layers)]),
        stages=_stages(facts.tasks),
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        cuvee_version=__version__,
    )


def score_table(scores: Sequence[Score], comparisons: Sequence[Comparison]) -> Table:
    """Return the scores as a table for a terminal of 80 columns, one section a benchmark.

    Below it, where there is a mixture, what the merged model is worth against it.
    """
    title = "Scores in percent, with 95 % intervals"
    table = Table(title=title, box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("benchmark")
    table.add_column("model")
    for name in ("score", "against base", "n", "no answer/\nunchecked"):
        table.add_column(name, justify="right")
    differences = {(c.model, c.benchmark): c for c in comparisons if c.against == "base"}
    for benchmark, rows in _by_benchmark(scores).items():
        for place, score in enumerate(rows):
            difference = differences.get((score.model, benchmark))
            table.add_row(
                benchmark if place == 0 else "",
                score.model,
                _score_cell(score),
                _difference_cell(difference) if difference else "",
                f"{score.n_problems}×{score.n_samples / score.n_problems:g}",
                f"{_hundredths(score.no_answer, score)}/{_hundredths(score.not_checked, score)}",
                end_section=place == len(rows) - 1,
            )
    table.caption = _against_mixture(comparisons)
    return table


def visible(text: str, limit: int = SHOWN_CHARACTERS) -> Markup:
    """Return hostile text as escaped markup, its invisible characters as marked code points.

    Tabs and line feeds stay. At most `limit` characters are shown; the rest is counted.
    """
    shown = INVISIBLE.sub(_code_point, str(escape(text[:limit])))
    if len(text) <= limit:
        return Markup(shown)
    more = Markup('<span class="more"> … {} more characters</span>')
    return Markup(shown) + more.format(wording.count(len(text) - limit))


def _code_point(match: re.Match[str]) -> str:
    return f'<span class="control">U+{ord(match[0]):04X}</span>'


def _hundredths(samples: int, score: Score) -> str:
    return f"{100 * samples / score.n_samples:.1f}"


def _score_cell(score: Score) -> str:
    if score.mean is None:
        return f"{100 * score.lower_bound:.1f}–{100 * score.upper_bound:.1f} bounds"
    return f"{100 * score.mean:.1f} [{100 * score.low:.1f}, {100 * score.high:.1f}]"


def _difference_cell(comparison: Comparison) -> Text:
    styles = {"better": "green", "worse": "red", "unclear": "dim"}
    low, high = wording.points(comparison.low), wording.points(comparison.high)
    text = f"{wording.points(comparison.difference)} [{low}, {high}]"
    return Text(text, style=styles[wording.outcome(comparison)])


def _against_mixture(comparisons: Sequence[Comparison]) -> Text | None:
    """Return a line a benchmark: the merged model against the mixture; None without one."""
    wanted = [c for c in comparisons if (c.model, c.against) == ("merged", MIXTURE)]
    lines = [
        Text(f"merged against mixture on {c.benchmark}: ") + _difference_cell(c) for c in wanted
    ]
    return Text("\n").join(lines) if lines else None


def _by_benchmark(rows: Iterable[R]) -> dict[str, list[R]]:
    groups: dict[str, list[R]] = {}
    for row in rows:
        groups.setdefault(row.benchmark, []).append(row)
    return groups


def _indented(text: str) -> str:
    return json.dumps(json.loads(text), indent=1, ensure_ascii=False)


def _colours(facts: Facts) -> dict[str, str]:
    """Return model -> CSS class of its colour."""
    places = enumerate(facts.recipe.domains)
    specialists = {domain: f"specialist{place % COLOURS}" for place, domain in places}
    return {"base": "base", **specialists, MIXTURE: "mixture", "merged": "merged"}


def _fusions(adopted: Sequence[Adopted]) -> list[_Fusion]:
    fusions = []
    for name in dict.fromkeys(cell.fusion for cell in adopted):
        cells = [cell for cell in adopted if cell.fusion == name]
        layers = sorted(
            (cell for cell in cells if cell.layer is not None),
            key=lambda c: module_order(c.module),
        )
        modules = dict.fromkeys(cell.module for cell in layers)
        fusions.append(
            _Fusion(
                name=name,
                share=_share(cells),
                layers=tuple(layers),
                outside=tuple(cell for cell in cells if cell.layer is None),
                modules=tuple((m, _share(c for c in layers if c.module == m)) for m in modules),
                identical=not any(cell.differing for cell in cells),
                degenerate=sum(cell.degenerate for cell in cells),
            )
        )
    return fusions


def _share(cells: Iterable[Adopted]) -> float:
    """Return the share adopted over all elements of `cells`, which are not empty."""
    listed = list(cells)
    return sum(c.share * c.elements for c in listed) / sum(c.elements for c in listed)


def _stages(tasks: Sequence[TaskTime]) -> list[_StageTime]:
    stages = []
    for stage in STAGES:
        own = tuple(task for task in tasks if task.stage == stage)
        if own:
            stages.append(_StageTime(stage, sum(task.seconds for task in own), own))
    return stages
