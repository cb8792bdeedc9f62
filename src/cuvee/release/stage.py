"""The stage `release`: everything a run wrote -> GGUF files, report, model card, data card.

Tasks: `gguf/TYPE` and `parity/TYPE` -> one file each, compared with the merged model;
`modelfile` -> `Modelfile.TYPE`; `parity` -> the table of all; then, as they say what became of
those, `report` -> `report.html`, `card` -> `README.md` and `data_card` -> `DATA_CARD.md`, all in
`08_release`. The report takes from the manifest how long the earlier stages took; it does not
count as changed when only that does.
"""

import dataclasses
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cuvee.atomic import write_text
from cuvee.lineage.card_facts import card_facts, card_files
from cuvee.lineage.data_card import render_data_card
from cuvee.lineage.shelves import domain_shelf
from cuvee.release.card import render_card
from cuvee.release.export_tasks import export_files, export_tasks
from cuvee.release.gather import gather, kind_of, model_of
from cuvee.release.logs import merge_statistics, training_files
from cuvee.release.published import read_published
from cuvee.release.recommended import recommended
from cuvee.release.report import render_report
from cuvee.release.rounds import round_files
from cuvee.release.scored import scored_files
from cuvee.runfolder import Run, Task
from cuvee.serve.facts import serving_facts


def tasks(run: Run, resources: ExitStack) -> list[Task]:
    """Return the stage's tasks: the report, and what the recipe's `release:` asks for."""
    found = [*export_tasks(run), _report(run)]
    if run.recipe.release.card:
        found += [_card(run), _data_card(run)]
    return found


def _report(run: Run) -> Task:
    out = run.folder("release") / "report.html"

    def work() -> Mapping[str, Any]:
        text = render_report(gather(run))
        write_text(out, text)
        return {"bytes": len(text.encode())}

    # The page prints the whole recipe, so it depends on all of it.
    settings = run.recipe.model_dump(mode="json") | {"published": _published(run)}
    return Task("release", "report", _sources(run), (out,), settings, work)


def _card(run: Run) -> Task:
    out = run.folder("release") / "README.md"

    def work() -> Mapping[str, Any]:
        facts = gather(run)
        serving = serving_facts(run.merged(), sampling=recommended(facts.scores))
        text = render_card(facts, serving)
        write_text(out, text)
        return {"bytes": len(text.encode())}

    recipe = run.recipe.model_dump(mode="json")
    # Of `evaluate` it says what stands in the scores' own protocols, which are inputs.
    parts = ("name", "base", "limit", "domains", "train", "baseline", "merge")
    settings = {part: recipe[part] for part in parts} | {"published": _published(run)}
    settings |= _rounds(recipe)
    settings["release"] = {"gguf": recipe["release"]["gguf"], "compared": _is_compared(run)}
    settings["teachers"] = [
        {"name": t.name, "kind": kind_of(t), "model": model_of(t), "terms": t.terms,
         "domains": t.domains}
        for t in run.recipe.teachers
    ]  # fmt: skip
    inputs = (*_sources(run), run.merged())
    return Task("release", "card", inputs, (out,), settings, work)


def _data_card(run: Run) -> Task:
    out = run.folder("release") / "DATA_CARD.md"

    def work() -> Mapping[str, Any]:
        text = render_data_card(card_facts(run))
        write_text(out, text)
        return {"bytes": len(text.encode())}

    recipe = run.recipe.model_dump(mode="json")
    settings = {part: recipe[part] for part in ("name", "base", "seed", "limit", "domains")}
    settings |= _rounds(recipe)
    settings["benchmarks"] = recipe["evaluate"]["benchmarks"]
    teachers = ("name", "model", "terms", "domains")
    settings["teachers"] = [
        {key: t[key] for key in teachers} | {"served": t["serve"] and t["serve"]["model"]}
        for t in recipe["teachers"]
    ]
    return Task("release", "data_card", card_files(run), (out,), settings, work)


def _sources(run: Run) -> tuple[Path, ...]:
    """Return every file that `gather` reads, apart from the manifest."""
    paths: list[Path] = []
    for domain in run.recipe.domains:
        paths += [run.problems(domain), run.dropped("problems", domain)]
        paths += [*run.trace_files(domain), *run.verdict_files(domain)]
        paths += [run.examples(domain), run.dropped("select", domain)]
        shelf = domain_shelf(run, domain)
        paths += [path for path in (shelf.grades, shelf.refined) if path is not None]
        paths += round_files(run, domain)
    for model in run.recipe.trained():
        paths += training_files(run, model)
    return (*paths, *scored_files(run), merge_statistics(run), *export_files(run))


def _rounds(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe's rounds as a setting; nothing where it has none."""
    return {part: recipe[part] for part in ("rounds",) if part in recipe}


def _is_compared(run: Run) -> bool:
    return run.recipe.release.parity is not None


def _published(run: Run) -> dict[str, Any]:
    """Return what others published of the benchmarks, by cuvee's or a user's declarations."""
    found = read_published(run.recipe)
    return {name: [dataclasses.asdict(row) for row in rows] for name, rows in found.items()}
