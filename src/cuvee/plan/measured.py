"""What a run folder has measured so far: of a pilot, or of a run under way.

The folder's recipe, manifest, traces, verdicts, examples and training summaries in; per-problem
numbers out, and the reasons why something was not taken. What a teacher or domain measured
counts only where it would be asked the same way by the recipe that is planned. Reads only: a
ledger is opened to read. Not here: what follows from it (`cuvee.plan.estimate`).
"""

import dataclasses
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cuvee.errors import DataError, RecipeError
from cuvee.recipe import Recipe, Teacher, load_recipe
from cuvee.records import Dropped, Example, count_rows, iter_rows, iter_values
from cuvee.runfolder import Run, is_incomplete, read_manifest

COLUMNS = ("id", "problem_id", "model", "prompt_tokens", "completion_tokens", "seconds", "usd")
NOT_ASKED_ALIKE = {"samples", "concurrency", "domains", "usd_per_mtok", "retries", "timeout",
                   "deadline", "stream", "key_env", "terms"}  # fmt: skip
"""Keys of a teacher that change neither its answers nor how long one of them takes."""


@dataclasses.dataclass(frozen=True)
class Answers:
    """What one model answered in one domain or benchmark: means a problem, in order."""

    requests: int
    prompt: tuple[float, ...]
    """Tokens; of problems with a counted answer."""
    completion: tuple[float, ...]
    seconds: tuple[float, ...]
    """Of one request."""
    wall: float
    """Seconds the whole task took."""
    around: float
    """Of those, what was not spent at the full number of requests in flight: start and tail."""
    usd: float | None

    @property
    def problems(self) -> int:
        """Return how many problems have an answer."""
        return len(self.seconds)


@dataclasses.dataclass(frozen=True)
class Selected:
    """What became of a domain's answers, problem by problem."""

    right: tuple[float, ...]
    """Share of each problem's answers that are correct."""
    answers: int
    usable: tuple[float, ...] = ()
    """Examples each problem could give (before `target`); empty where select has not run."""
    tokens: tuple[float, ...] = ()
    """Of the examples, as trained."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """All that a run folder says."""

    folder: Path | None
    limit: int | None
    """The pilot's problems a domain; None: the folder is of the whole run."""
    manifest: Mapping[str, Any]
    problems: Mapping[str, int]
    """Domain or benchmark -> problems loaded."""
    teach: Mapping[tuple[str, str], Answers]
    """(domain, teacher)."""
    evaluate: Mapping[tuple[str, str], Answers]
    """(model, benchmark)."""
    selected: Mapping[str, Selected]
    train: Mapping[str, tuple[float, float, float]]
    """Name -> tokens trained, seconds of it, seconds around it; same base and settings."""
    spent: Mapping[str, float]
    """Teacher -> dollars the ledger has booked for this folder."""
    notes: tuple[str, ...]

    def seconds(self, task: str) -> float | None:
        """Return what a task took; None where it is not done."""
        entry = self.manifest.get(task)
        return None if entry is None or is_incomplete(entry) else float(entry["seconds"])

    def is_done(self, task: str, limit: int | None) -> bool:
        """Return whether a task of a plan with this limit has been done in the folder."""
        return self.limit == limit and self.seconds(task) is not None


NOTHING_YET = Measured(None, None, {}, {}, {}, {}, {}, {}, {}, ())


def read(folder: Path, recipe: Recipe) -> Measured:
    """Return what a run folder says for a recipe; nothing where there is no run.

    Raises DataError where a file of it cannot be read.
    """
    if not (folder / "recipe.yaml").exists():
        return NOTHING_YET
    try:
        old = load_recipe(folder / "recipe.yaml")
    except RecipeError as error:
        why = f"nothing of {folder} was taken: its recipe.yaml is none of this version: {error}"
        return dataclasses.replace(NOTHING_YET, notes=(why,))
    run = Run(folder.absolute(), old)
    manifest = read_manifest(folder)
    notes: list[str] = []
    alike = _alike(old, recipe, notes)
    flights = {teacher.name: in_flight(teacher) for teacher in old.teachers}
    teach = {
        (domain, teacher): _answers(
            run.traces(domain, teacher), entry["seconds"], in_flight=flights.get(teacher, 1)
        )
        for (domain, teacher), entry in _entries(manifest, "teach").items()
        if domain in alike[0] and teacher in alike[1] and run.traces(domain, teacher).exists()
    }
    return Measured(
        folder=folder,
        limit=old.limit,
        manifest=manifest,
        problems=_problems(run, alike[0]),
        teach=teach,
        evaluate=_evaluated(run, manifest, recipe, notes),
        selected={domain: _selected(run, domain) for domain in alike[0] if _verified(run, domain)},
        train=_trained(run, manifest, recipe, notes),
        spent=_spent(run, notes),
        notes=tuple(notes),
    )


def in_flight(teacher: Teacher) -> int:
    """Return how many requests a teacher answers at once: no more than its engine has slots."""
    if teacher.serve is None:
        return teacher.concurrency
    return min(teacher.concurrency, teacher.serve.slots * teacher.serve.replicas)


def evaluate_flight(recipe: Recipe) -> int:
    """Return how many requests a model of the run answers at once while it is evaluated."""
    serve = recipe.evaluate.serve
    return min(recipe.evaluate.concurrency, serve.slots * serve.replicas)


def _alike(old: Recipe, new: Recipe, notes: list[str]) -> tuple[set[str], set[str]]:
    """Return the domains and teachers that are asked alike by both recipes."""
    domains = set()
    for name, domain in new.domains.items():
        other = old.domains.get(name)
        if other is not None and _asked(domain) == _asked(other):
            domains.add(name)
        elif other is not None:
            notes.append(f"{name}: not measured: sources, prompt, verifier or select differ")
    before = {teacher.name: teacher for teacher in old.teachers}
    teachers = set()
    for teacher in new.teachers:
        if teacher.name in before and _asking(teacher) == _asking(before[teacher.name]):
            teachers.add(teacher.name)
        elif teacher.name in before:
            notes.append(f"{teacher.name}: not measured: the model or its sampling differs")
    return domains, teachers


def _asked(domain: Any) -> dict[str, Any]:
    """Return what decides a domain's numbers; how many problems and examples does not."""
    found: dict[str, Any] = domain.model_dump(mode="json")
    del found["select"]["target"]
    for source in found["problems"]:
        del source["count"]
    return found


def _asking(teacher: Teacher) -> dict[str, Any]:
    return teacher.model_dump(mode="json", exclude=NOT_ASKED_ALIKE)


def _entries(manifest: Mapping[str, Any], stage: str) -> dict[tuple[str, str], Any]:
    """Return a stage's entries whose name has two parts."""
    found = {}
    for key, entry in manifest.items():
        room, *parts = key.split("/")
        if room == stage and len(parts) == 2 and parts[0] != "export":
            found[parts[0], parts[1]] = entry
    return found


def _answers(file: Path, wall: float, *, in_flight: int) -> Answers:
    by_problem: dict[str, list[dict[str, Any]]] = defaultdict(list)
    requests, usd = 0, None
    for row in iter_values(file, COLUMNS):
        requests += 1
        by_problem[row["problem_id"]].append(row)
        if row["usd"] is not None:
            usd = (usd or 0.0) + row["usd"]
    groups = list(by_problem.values())
    in_requests = sum(row["seconds"] for group in groups for row in group)
    seconds = tuple(mean for group in groups if (mean := _mean(group, "seconds")) is not None)
    return Answers(
        requests=requests,
        prompt=tuple(m for group in groups if (m := _mean(group, "prompt_tokens")) is not None),
        completion=tuple(
            m for group in groups if (m := _mean(group, "completion_tokens")) is not None
        ),
        seconds=seconds,
        wall=wall,
        around=max(0.0, wall - in_requests / in_flight),
        usd=usd,
    )


def _mean(rows: Sequence[Mapping[str, Any]], column: str) -> float | None:
    values = [row[column] for row in rows if row[column] is not None]
    return sum(values) / len(values) if values else None


def _problems(run: Run, domains: set[str]) -> dict[str, int]:
    files = {name: run.problems(name) for name in domains}
    files |= {name: run.benchmark(name) for name in run.recipe.evaluate.benchmarks}
    return {name: count_rows(file) for name, file in files.items() if file.exists()}


def _verified(run: Run, domain: str) -> bool:
    return run.verdicts(domain).exists() and (run.folder("teach") / domain).is_dir()


def _selected(run: Run, domain: str) -> Selected:
    problem_of: dict[str, str] = {}
    for file in sorted((run.folder("teach") / domain).glob("*.parquet")):
        rows = iter_values(file, ("id", "problem_id"))
        problem_of |= {row["id"]: row["problem_id"] for row in rows}
    right: dict[str, list[bool]] = defaultdict(list)
    for row in iter_values(run.verdicts(domain), ("problem_id", "verdict")):
        right[row["problem_id"]].append(row["verdict"] == "correct")
    shares = tuple(sum(flags) / len(flags) for flags in right.values())
    answers = sum(len(flags) for flags in right.values())
    if not (run.examples(domain).exists() and run.dropped("select", domain).exists()):
        return Selected(shares, answers)
    usable = dict.fromkeys(right, 0)
    tokens = []
    for example in iter_rows(run.examples(domain), Example):
        usable[example.problem_id] = usable.get(example.problem_id, 0) + 1
        tokens.append(float(example.tokens))
    for dropped in iter_rows(run.dropped("select", domain), Dropped):
        problem = problem_of.get(dropped.id)
        if dropped.reason == "over_target" and problem is not None:
            usable[problem] = usable.get(problem, 0) + 1
    return Selected(shares, answers, tuple(float(n) for n in usable.values()), tuple(tokens))


def _evaluated(
    run: Run, manifest: Mapping[str, Any], recipe: Recipe, notes: list[str]
) -> dict[tuple[str, str], Answers]:
    entries = _entries(manifest, "evaluate")
    same = {"serve", "sampling"}
    if run.recipe.evaluate.model_dump(include=same) != recipe.evaluate.model_dump(include=same):
        if entries:
            notes.append("evaluate: not measured: engine or sampling differs")
        return {}
    return {
        (model, name): _answers(
            run.score_traces(model, name), entry["seconds"], in_flight=evaluate_flight(run.recipe)
        )
        for (model, name), entry in entries.items()
        if run.score_traces(model, name).exists()
    }


def _trained(
    run: Run, manifest: Mapping[str, Any], recipe: Recipe, notes: list[str]
) -> dict[str, tuple[float, float, float]]:
    found = {}
    indifferent = {"epochs", "learning_rate", "save_every", "keep_checkpoints"}
    before = (run.recipe.base, run.recipe.train.model_dump(exclude=indifferent))
    alike = before == (recipe.base, recipe.train.model_dump(exclude=indifferent))
    for name in run.recipe.trained():
        file, entry = run.specialist(name) / "train_summary.json", manifest.get(f"train/{name}")
        if entry is None or not file.exists():
            continue
        if not alike:
            notes.append("train: not measured: base or settings differ")
            return {}
        summary = _json(file)
        tokens, seconds = float(summary["tokens"]), float(summary["seconds"])
        if tokens > 0 and seconds > 0:
            found[name] = (tokens, seconds, max(0.0, float(entry["seconds"]) - seconds))
    return found


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from error


def _spent(run: Run, notes: list[str]) -> dict[str, float]:
    if not (run.path / "account.txt").exists():
        return {}
    from cuvee.teach.ledger import Ledger, located

    place = located(run.recipe.ledger)
    if isinstance(place, Path) and not place.exists():
        notes.append(f"what was spent is unknown: no ledger at {place}")
        return {}
    with Ledger.open_to_read(place) as ledger:
        spent = ledger.spent(run.account())
    return {name: spending.bought.usd for name, spending in spent.teachers.items()}
