"""The model card: README.md with the front matter that the Hugging Face hub reads.

Facts in, Markdown out; the same numbers as the report. Nothing a model wrote stands in it.
What is not known (a licence, a hub id of a local base) is left out of the front matter and
said in the text, never guessed.
"""

import re
from typing import Any

import yaml

from cuvee.recipe import Benchmark, Recipe
from cuvee.records import Score
from cuvee.release import wording
from cuvee.release.facts import Facts
from cuvee.templates import environment

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
FILE_ENDINGS = (".gguf", ".parquet", ".jsonl", ".json", ".csv")


def render_card(facts: Facts) -> str:
    """Return the merged model's card as Markdown with YAML front matter."""
    templates = environment("cuvee.release", html=False)
    templates.filters.update(
        percent=wording.percent, points=wording.points, count=wording.count, cell=_cell
    )
    front = yaml.safe_dump(front_matter(facts), sort_keys=False, allow_unicode=True)
    return templates.get_template("card.md.j2").render(
        front=front,
        facts=facts,
        recipe=facts.recipe,
        headline=wording.headline(facts.scores, facts.comparisons),
        findings=wording.findings(facts.scores, facts.comparisons),
        label=wording.model_label,
        result=wording.result,
        base_is_hub_id=is_hub_id(facts.recipe.base),
        traces_total=sum(f.traces for f in facts.funnels),
        trained_total=sum(f.trained for f in facts.funnels),
    )


def is_hub_id(name: str) -> bool:
    """Return whether a base or source has the form of a hub id (`owner/name`), not of a file."""
    return HUB_ID.fullmatch(name) is not None and not name.endswith(FILE_ENDINGS)


def front_matter(facts: Facts) -> dict[str, Any]:
    """Return the card's front matter: base, tags, data sets, and the merged model's scores."""
    recipe = facts.recipe
    front: dict[str, Any] = {
        "tags": ["cuvee", "merge", "distillation", "reasoning"],
        "pipeline_tag": "text-generation",
        "library_name": "transformers",
    }
    if is_hub_id(recipe.base):
        front["base_model"] = recipe.base
    if datasets := [source for source in sources(recipe) if is_hub_id(source)]:
        front["datasets"] = datasets
    merged = [s for s in facts.scores if s.model == "merged" and s.mean is not None]
    if merged:
        results = [_result(recipe, score) for score in merged]
        front["model-index"] = [{"name": recipe.name, "results": results}]
    return front


def sources(recipe: Recipe) -> list[str]:
    """Return the sources of the training problems, each once, in the recipe's order."""
    named = [s.source for domain in recipe.domains.values() for s in domain.problems]
    return list(dict.fromkeys(named))


def _result(recipe: Recipe, score: Score) -> dict[str, Any]:
    """Return one entry of a model index; the metric's name carries n and the interval."""
    benchmark = recipe.evaluate.benchmarks.get(score.benchmark)
    source = benchmark.problems.source if isinstance(benchmark, Benchmark) else score.benchmark
    interval = f"{wording.percent(score.low)} to {wording.percent(score.high)}"
    return {
        "task": {"type": "text-generation", "name": score.domain},
        "dataset": {"name": score.benchmark, "type": source},
        "metrics": [
            {
                "type": "accuracy",
                "value": round(100 * (score.mean or 0.0), 2),
                "name": f"% right; {wording.amount(score)}; 95 % interval {interval}",
            }
        ],
    }


def _cell(text: str) -> str:
    """Return text that stays inside one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
