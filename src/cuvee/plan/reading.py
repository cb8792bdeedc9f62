"""Reading what a run folder has measured so far: of a pilot, or of a run under way.

The folder's recipe, manifest, traces, verdicts, examples and training summaries in; per-problem
numbers out (`cuvee.plan.measured`), and the reasons why something was not taken. What a teacher
or domain measured counts only where it would be asked the same way by the recipe that is
planned; a file that is broken, or of another version, counts as not there. Reads only: a
ledger is opened to read. Not here: what follows from it (`cuvee.plan.estimate`).
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

from cuvee.errors import DataError, RecipeError
from cuvee.plan.look import Look, alike, answers_in, manifest_of, reason
from cuvee.plan.measured import NOTHING_YET, Answers, Measured, evaluate_flight, in_flight
from cuvee.plan.outcomes import about, selected
from cuvee.recipe import Recipe, load_recipe
from cuvee.records import count_rows
from cuvee.runfolder import Run


def read(folder: Path, recipe: Recipe) -> Measured:
    """Return what a run folder says for a recipe; nothing where there is no run.

    What cannot be read is noted and counts as not there.
    """
    if not (folder / "recipe.yaml").exists():
        return NOTHING_YET
    try:
        old = load_recipe(folder / "recipe.yaml")
    except (RecipeError, OSError, UnicodeDecodeError) as error:
        why = f"nothing of {folder} was taken: its recipe.yaml is none of this version"
        return Measured(notes=(reason(why, error),))
    notes: list[str] = []
    domains, teachers = alike(old, recipe, notes)
    look = Look(Run(folder.absolute(), old), recipe, domains, teachers,
                 manifest_of(folder, notes), notes)  # fmt: skip
    return Measured(
        folder=folder,
        limit=old.limit,
        manifest=look.manifest,
        problems=_problems(look),
        teach=_taught(look),
        about=about(look),
        evaluate=_evaluated(look),
        selected=selected(look),
        train=look.attempt("train", lambda: _trained(look)) or {},
        spent=look.attempt("what was spent", lambda: _spent(look)) or {},
        notes=tuple(notes),
    )


def _entries(look: Look, stage: str) -> dict[tuple[str, str], Any]:
    """Return a stage's entries whose name has two parts: those of further rounds have more."""
    found = {}
    for key, entry in look.manifest.items():
        room, *parts = key.split("/")
        if room == stage and len(parts) == 2 and parts[0] != "export":
            found[parts[0], parts[1]] = entry
    return found


def _problems(look: Look) -> dict[str, int]:
    run = look.run
    files = {name: run.problems(name) for name in look.domains}
    files |= {name: run.benchmark(name) for name in run.recipe.evaluate.benchmarks}
    found = {
        name: look.attempt(f"problems of {name}", partial(count_rows, file))
        for name, file in files.items()
        if file.exists()
    }
    return {name: count for name, count in found.items() if count is not None}


def _taught(look: Look) -> dict[tuple[str, str], Answers]:
    run = look.run
    flights = {teacher.name: in_flight(teacher) for teacher in run.recipe.teachers}
    found = {}
    for (domain, teacher), entry in _entries(look, "teach").items():
        file = run.traces(domain, teacher)
        if domain in look.domains and teacher in look.teachers and file.exists():
            taken = partial(
                answers_in, file, wall=entry["seconds"], in_flight=flights.get(teacher, 1)
            )
            if (answers := look.attempt(f"teach/{domain}/{teacher}", taken)) is not None:
                found[domain, teacher] = answers
    return found


def _evaluated(look: Look) -> dict[tuple[str, str], Answers]:
    run, entries = look.run, _entries(look, "evaluate")
    same = {"serve", "sampling"}
    before = run.recipe.evaluate.model_dump(include=same)
    if before != look.recipe.evaluate.model_dump(include=same):
        if entries:
            look.notes.append("evaluate: not measured: engine or sampling differs")
        return {}
    found = {}
    for (model, name), entry in entries.items():
        file = run.score_traces(model, name)
        if file.exists():
            flight = evaluate_flight(run.recipe)
            taken = partial(answers_in, file, wall=entry["seconds"], in_flight=flight)
            if (answers := look.attempt(f"evaluate/{model}/{name}", taken)) is not None:
                found[model, name] = answers
    return found


def _trained(look: Look) -> dict[str, tuple[float, float, float]]:
    found = {}
    run, recipe = look.run, look.recipe
    indifferent = {"epochs", "learning_rate", "save_every", "keep_checkpoints"}
    before = (run.recipe.base, run.recipe.train.model_dump(exclude=indifferent))
    alike = before == (recipe.base, recipe.train.model_dump(exclude=indifferent))
    for name in run.recipe.trained():
        file = run.specialist(name) / "train_summary.json"
        entry = look.manifest.get(f"train/{name}")
        if entry is None or not file.exists():
            continue
        if not alike:
            look.notes.append("train: not measured: base or settings differ")
            return {}
        tokens, seconds = _tokens_and_seconds(file)
        if tokens > 0 and seconds > 0:
            found[name] = (tokens, seconds, max(0.0, float(entry["seconds"]) - seconds))
    return found


def _tokens_and_seconds(file: Path) -> tuple[float, float]:
    try:
        summary = json.loads(file.read_text(encoding="utf-8"))
        return float(summary["tokens"]), float(summary["seconds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: no tokens and seconds to read: {error}") from error


def _spent(look: Look) -> dict[str, float]:
    run = look.run
    if not (run.path / "account.txt").exists():
        return {}
    from cuvee.teach.ledger import Ledger, located

    place = located(run.recipe.ledger)
    if isinstance(place, Path) and not place.exists():
        look.notes.append(f"what was spent is unknown: no ledger at {place}")
        return {}
    with Ledger.open_to_read(place) as ledger:
        spent = ledger.spent(run.account())
    return {name: spending.bought.usd for name, spending in spent.teachers.items()}
