"""The report: one HTML file that works offline.

Facts in, text out. All that a model, a data set or a user wrote is escaped, and its
invisible characters are made visible; the page holds no script and loads nothing. What is
computed here are layouts, not results.
"""

import functools
import math
import os
import platform
import re
from typing import Any

from markupsafe import Markup, escape

from cuvee import __version__
from cuvee.evaluate.counted import miscounted
from cuvee.merge.diagnostics.heatmap import module_label
from cuvee.recipe import MIXTURE
from cuvee.release import claims, figures, scored_figures, wording
from cuvee.release.facts import Facts
from cuvee.release.fusions import fusions_of
from cuvee.release.protocols import protocol_groups
from cuvee.release.sampled import largest, sampled
from cuvee.release.tables import by_benchmark, by_domain, curves, stage_costs, teacher_rows
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


def render_report(facts: Facts) -> str:
    """Return the report as one HTML document."""
    templates = environment("cuvee.release", html=True)
    templates.filters.update(
        percent=wording.percent,
        points=wording.points,
        count=wording.count,
        duration=wording.duration,
        size=wording.size,
        usd=wording.usd,
        visible=visible,
    )
    templates.tests["finite"] = math.isfinite
    fusions = fusions_of(facts.adopted)
    return templates.get_template("report.html.j2").render(
        facts=facts,
        colour=_colours(facts),
        label=functools.partial(
            wording.model_label, teachers={teacher.name for teacher in facts.teachers}
        ),
        result=wording.result,
        figures=figures,
        module_label=module_label,
        fusions=fusions,
        heat_top=max([0.01, *(cell.share for f in fusions for cell in f.layers)]),
        teachers=teacher_rows(facts),
        stages=stage_costs(facts.tasks),
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        cuvee_version=__version__,
        **_scored(facts),
    )


def _scored(facts: Facts) -> dict[str, Any]:
    """Return what the page says of what was evaluated."""
    scores, comparisons = facts.scores, facts.comparisons
    standings = claims.standings(scores, comparisons)
    shown = [row for standing in standings for row in standing.rows]
    return {
        "headline": claims.headline(scores, comparisons),
        "worth": claims.worth(scores, comparisons),
        "findings": claims.findings(scores, comparisons),
        "has_mixture": claims.has_mixture(scores),
        "outcome": claims.outcome,
        "benchmarks": by_benchmark(scores),
        "domains": by_domain(standings),
        "reach": figures.reach([comparison for _, comparison in shown]),
        "unclear": [c for _, c in shown if claims.outcome(c) == "unclear"],
        "settling": claims.settling,
        "compared": by_benchmark(comparisons),
        "protocols": protocol_groups(scores),
        "miscounted": miscounted(facts.recipe, scores),
        "sampled": sampled(scores),
        "largest": largest,
        "curves": curves,
        "pair_plot": scored_figures.pair_plot,
        "sample_curves": scored_figures.sample_curves,
    }


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


def _colours(facts: Facts) -> dict[str, str]:
    """Return model -> CSS class of its colour."""
    places = enumerate(facts.recipe.domains)
    specialists = {domain: f"specialist{place % COLOURS}" for place, domain in places}
    teachers = {teacher.name: "teacher" for teacher in facts.teachers}
    return {**teachers, "base": "base", **specialists, MIXTURE: "mixture", "merged": "merged"}
