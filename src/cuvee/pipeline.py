"""The stages in order, and what runs them: tasks whose manifest entry matches are skipped.

A stage's module is imported when its turn comes (the one place where imports of cuvee stand
in a function), so that `cuvee --help` and a refused recipe cost no torch. Not here: what a
task does (`stage.py` in each room) and when it is done (`runfolder`).
"""

import dataclasses
import importlib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from cuvee.atomic import hold, write_text
from cuvee.errors import RecipeError
from cuvee.models.engines import end_stale
from cuvee.progress import log_to, say
from cuvee.recipe import Recipe, dump_recipe, load_recipe
from cuvee.runfolder import STAGES, Run, Task, execute, is_done, read_manifest


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How many tasks a run did and how many it found done."""

    done: int
    skipped: int


@dataclasses.dataclass(frozen=True)
class TaskState:
    """One line of `cuvee status`."""

    key: str
    state: str
    """`done`, `outdated` (its inputs or settings changed) or `to do`."""
    seconds: float | None
    counts: dict[str, object]


def open_recipe(place: Path, *, overrides: list[str], out: Path | None) -> tuple[Recipe, Path]:
    """Return the recipe and run folder that a recipe file, or an earlier run's folder, means.

    `out` is where the run goes; by default `runs/NAME`, or the folder itself. Raises
    RecipeError as `load_recipe` does.
    """
    if place.is_dir():
        if not (place / "recipe.yaml").exists():
            raise RecipeError(f"{place}: neither a recipe nor the folder of a run (no recipe.yaml)")
        recipe = load_recipe(place / "recipe.yaml", overrides)
        return recipe, out or place
    recipe = load_recipe(place, overrides)
    return recipe, out or Path("runs") / recipe.name


def run_stages(recipe: Recipe, path: Path, stages: Sequence[str]) -> Outcome:
    """Run stages in order in a run folder; what is done already is skipped.

    Raises CuveeError where another run holds the folder, and whatever a task raises: what
    is finished stays finished, and the same call goes on from there.
    """
    if unknown := sorted(set(stages) - set(STAGES)):
        raise RecipeError(f"no stage {unknown}; there are {', '.join(STAGES)}")
    run = Run(path.absolute(), recipe)
    if "merge" in stages:  # its parameters are checked before a token is bought
        from cuvee.merge.stage import merge_config

        merge_config(run, base=Path(recipe.base))
    with hold(run.path), log_to(run.path / "log.txt"):
        _end_stale_engines(run)
        write_text(run.path / "recipe.yaml", dump_recipe(recipe))
        outcomes = [_run_stage(run, stage) for stage in stages]
    return Outcome(sum(o.done for o in outcomes), sum(o.skipped for o in outcomes))


def states(recipe: Recipe, path: Path) -> list[TaskState]:
    """Return the state of every task of a run, in order. Reads only."""
    run = Run(path.absolute(), recipe)
    manifest = read_manifest(run.path)
    found = []
    for stage in STAGES:
        with ExitStack() as resources:
            for task in stage_tasks(run, stage, resources):
                entry = manifest.get(task.key)
                state = "done" if is_done(run, task, manifest) else "outdated"
                found.append(
                    TaskState(
                        task.key,
                        state if entry else "to do",
                        entry["seconds"] if entry else None,
                        entry["counts"] if entry else {},
                    )
                )
    return found


def stage_tasks(run: Run, stage: str, resources: ExitStack) -> list[Task]:
    """Return the tasks of a stage; `resources` closes what they open."""
    module = importlib.import_module(f"cuvee.{stage}.stage")
    more = {}
    if stage == "verify" and any(d.judge for d in run.recipe.domains.values()):
        from cuvee.teach.judging import judges  # verify stands before teach and asks nobody

        more = {"judges": judges(run, resources)}
    tasks: list[Task] = module.tasks(run, resources, **more)
    return tasks


def _run_stage(run: Run, stage: str) -> Outcome:
    done = skipped = 0
    with ExitStack() as resources:
        for task in stage_tasks(run, stage, resources):
            if is_done(run, task, read_manifest(run.path)):
                skipped += 1
                continue
            say(task.key)
            counts = execute(run, task)
            shown = ", ".join(f"{name} {value}" for name, value in counts.items())
            say(f"  {shown}" if shown else "  done")
            done += 1
    if skipped:
        say(f"{stage}: {skipped} of {skipped + done} tasks were done already")
    return Outcome(done, skipped)


def _end_stale_engines(run: Run) -> None:
    if ended := end_stale(run.engines()):
        say(f"ended {ended} engine(s) that an earlier run left behind")
