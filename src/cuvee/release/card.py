"""The model card: README.md with the front matter that the Hugging Face hub reads.

Facts in, Markdown out; the same numbers as the report. Nothing a model wrote stands in it.
What is not known (a licence, a hub id of a local base) is left out of the front matter and
said in the text, never guessed.
"""

import functools
import json
from typing import Any

import yaml

from cuvee import __version__
from cuvee.evaluate.counted import miscounted
from cuvee.models.files import is_hub_id
from cuvee.recipe import Recipe
from cuvee.records import Score
from cuvee.release import claims, wording
from cuvee.release.facts import Facts
from cuvee.release.merge_yaml import merge_yaml
from cuvee.release.protocols import conditions, conditions_of, samples_by_llama
from cuvee.release.sampled import Sampled, largest, sampled
from cuvee.release.tables import by_benchmark
from cuvee.serve.commands import Command, Files, commands, notes
from cuvee.serve.facts import ServingFacts
from cuvee.templates import environment


def render_card(facts: Facts, serving: ServingFacts) -> str:
    """Return the merged model's card as Markdown with YAML front matter.

    `serving` is how the merged model is to be served. A file that did not pass its comparison
    is in no command.
    """
    templates = environment("cuvee.release", html=False)
    templates.filters.update(
        percent=wording.percent,
        points=wording.points,
        count=wording.count,
        size=wording.size,
        usd=wording.usd,
        cell=_cell,
    )
    front = yaml.safe_dump(front_matter(facts), sort_keys=False, allow_unicode=True)
    return templates.get_template("card.md.j2").render(
        front=front,
        facts=facts,
        recipe=facts.recipe,
        headline=claims.headline(facts.scores, facts.comparisons),
        worth=claims.worth(facts.scores, facts.comparisons),
        standings=claims.standings(facts.scores, facts.comparisons),
        outcome=claims.outcome,
        settling=claims.settling,
        label=functools.partial(
            wording.model_label, teachers={teacher.name for teacher in facts.teachers}
        ),
        result=wording.result,
        benchmarks=by_benchmark(facts.scores),
        sampled=_several(facts),
        conditions=conditions_of(facts.scores),
        miscounted=miscounted(facts.recipe, facts.scores),
        samples_by_llama=samples_by_llama(facts.scores),
        merge_config=merge_yaml(facts.recipe),
        cuvee_version=__version__,
        commands=_commands(facts, serving),
        notes=notes(serving),
        base_is_hub_id=is_hub_id(facts.recipe.base),
        traces_total=sum(f.traces for f in facts.funnels),
        trained_total=sum(f.trained for f in facts.funnels),
    )


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
        # Of one domain the merged model is a copy of its specialist.
        front["base_model_relation"] = "merge" if len(recipe.domains) > 1 else "finetune"
    if datasets := [source for source in sources(recipe) if is_hub_id(source)]:
        front["datasets"] = datasets
    merged = [s for s in facts.scores if s.model == "merged" and s.mean is not None]
    if merged:
        results = [_result(score) for score in merged]
        front["model-index"] = [{"name": recipe.name, "results": results}]
    return front


def sources(recipe: Recipe) -> list[str]:
    """Return the sources of the training problems, each once, in the recipe's order."""
    named = [s.source for domain in recipe.domains.values() for s in domain.problems]
    return list(dict.fromkeys(named))


def _result(score: Score) -> dict[str, Any]:
    """Return one entry of a model index; a metric's name carries n and the interval."""
    protocol = json.loads(score.protocol)
    dataset = {"name": score.benchmark, "type": protocol.get("source") or score.benchmark}
    for key in ("config", "split", "revision"):
        if protocol.get(key):
            dataset[key] = protocol[key]
    metrics = [_metric("accuracy", score.mean or 0.0, score.low, score.high, score)]
    [row] = sampled([score])[score.benchmark]
    for kind, estimates in (("pass@", row.pass_at), ("maj@", row.maj_at)):
        if estimates and estimates[-1].k > 1:
            at = estimates[-1]
            metrics.append(_metric(f"{kind}{at.k}", at.mean, at.low, at.high, score))
    return {
        "task": {"type": "text-generation", "name": score.domain},
        "dataset": dataset,
        "metrics": metrics,
    }


def _metric(kind: str, mean: float, low: float, high: float, score: Score) -> dict[str, Any]:
    interval = f"{wording.percent(low)} to {wording.percent(high)}"
    taken = f"{wording.amount(score)}; {conditions(score.protocol)}"
    return {
        "type": kind,
        "value": round(100 * mean, 2),
        "name": f"{'% right' if kind == 'accuracy' else kind}; 95 % interval {interval}; {taken}",
    }


def _several(facts: Facts) -> dict[str, tuple[Sampled, ...]]:
    """Return the benchmarks of which problems were sampled several times."""
    return {name: rows for name, rows in sampled(facts.scores).items() if largest(rows) > 1}


def _commands(facts: Facts, serving: ServingFacts) -> tuple[Command, ...]:
    """Return how to serve the weights, and the first file that is as good as they are."""
    good = [e for e in facts.exports if e.parity is None or e.parity.passed]
    files = Files(checkpoint=".")
    if good:  # of several types, each has a Modelfile of its own
        files = Files(".", good[0].file, modelfile=f"Modelfile.{good[0].quantization}")
    return commands(serving, files, name=facts.recipe.name)


def _cell(text: str) -> str:
    """Return text that stays inside one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
