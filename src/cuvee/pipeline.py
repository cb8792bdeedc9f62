"""The stages in order, and what runs them: tasks whose manifest entry matches are skipped.

A stage's tasks form lanes (`Task.lane`): where one lane fails the others go on, and the stage
fails when they have ended. A lane `apart` has a thread of its own; all others are done one
after another in the main thread, because a process that cuvee starts dies with the thread
that started it. The rounds of asking again (`cuvee.rounds`) are waves of `verify`: a wave is
begun when the one before is done, and closes what it opened. A stage's module is imported
when its turn comes (the one place where imports of cuvee stand in a function), so that
`cuvee --help` and a refused recipe cost no torch. Not here: what a task does (`stage.py` in
each room) and when it is done (`runfolder`).
"""

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from cuvee.atomic import hold, write_text
from cuvee.errors import BudgetError, CuveeError, RecipeError
from cuvee.models.engines import end_stale
from cuvee.progress import log, log_to, say, warn
from cuvee.recipe import Recipe, dump_recipe, load_recipe
from cuvee.runfolder import STAGES, Run, Task, execute, is_done, is_incomplete, read_manifest

Wave = Callable[[ExitStack], list[Task]]
"""Returns tasks; its argument closes what they open."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How many tasks a run, or a lane of it, did and how many it found done."""

    done: int
    skipped: int
    error: CuveeError | OSError | None = None
    """What ended the lane before its end."""


@dataclasses.dataclass(frozen=True)
class TaskState:
    """One line of `cuvee status`."""

    key: str
    state: str
    """`done`, `outdated` (its inputs or settings changed), `incomplete` (requests failed; the
    next run asks them again) or `to do`."""
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
    if "train" in stages:  # and what its processes could never do together
        from cuvee.train.accelerate_config import check

        check(recipe.train)
    _check_quantizer(recipe, stages)
    with hold(run.path), log_to(run.path / "log.txt"):
        _end_stale_engines(run)
        write_text(run.path / "recipe.yaml", dump_recipe(recipe))
        outcomes = [_run_stage(run, stage) for stage in stages]
    return Outcome(sum(o.done for o in outcomes), sum(o.skipped for o in outcomes))


def _check_quantizer(recipe: Recipe, stages: Sequence[str]) -> None:
    """Raise RecipeError where a type of file needs the quantiser, and that is not installed."""
    types = list(recipe.release.gguf) if "release" in stages else []
    if "evaluate" in stages and recipe.evaluate.serve.engine == "llama.cpp":
        types.append(recipe.evaluate.serve.quantization)
    from cuvee.models.gguf_quantize import FILE_TYPES, require_quantizer

    for quantization in types:
        if quantization in FILE_TYPES:
            require_quantizer(quantization)


def states(recipe: Recipe, path: Path) -> list[TaskState]:
    """Return the state of every task of a run, in order. Reads only."""
    run = Run(path.absolute(), recipe)
    manifest = read_manifest(run.path)
    found = []
    for stage in STAGES:
        with ExitStack() as resources:
            for task in stage_tasks(run, stage, resources):
                entry = manifest.get(task.key)
                if entry is None:
                    found.append(TaskState(task.key, "to do", None, {}))
                    continue
                state = "incomplete" if is_incomplete(entry) else "outdated"
                if is_done(run, task, manifest):
                    state = "done"
                found.append(TaskState(task.key, state, entry["seconds"], entry["counts"]))
    return found


def stage_tasks(run: Run, stage: str, resources: ExitStack) -> list[Task]:
    """Return the tasks of a stage, of all its waves; `resources` closes what they open."""
    return [task for wave in _waves(run, stage) for task in wave(resources)]


def _waves(run: Run, stage: str) -> list[Wave]:
    """Return what gives a stage's tasks: those of one wave need the files of the one before."""
    if stage != "verify" or run.recipe.rounds is None:
        return [lambda resources: _tasks(run, stage, resources)]
    from cuvee.rounds.stage import waves
    from cuvee.teach.grading import rubric_tasks
    from cuvee.teach.judging import asking

    return [
        lambda resources: _tasks(run, stage, resources, graded=False),
        *waves(run),
        lambda resources: rubric_tasks(run, asking(run, resources)),
    ]


def _tasks(run: Run, stage: str, resources: ExitStack, *, graded: bool = True) -> list[Task]:
    """Return the tasks of a stage's first, or only, wave; `graded`: with those of rubrics."""
    module = importlib.import_module(f"cuvee.{stage}.stage")
    if stage == "verify" and any(d.judge or d.rubric for d in run.recipe.domains.values()):
        # verify stands before teach and asks nobody
        from cuvee.teach.grading import rubric_tasks
        from cuvee.teach.judging import asking, judges

        ask = asking(run, resources)
        return [
            *module.tasks(run, resources, judges=judges(run, ask)),
            *(rubric_tasks(run, ask) if graded else []),
        ]
    tasks: list[Task] = module.tasks(run, resources)
    return tasks


def _run_stage(run: Run, stage: str) -> Outcome:
    outcomes = [outcome for wave in _waves(run, stage) for outcome in _run_wave(run, wave)]
    done, skipped = sum(o.done for o in outcomes), sum(o.skipped for o in outcomes)
    if skipped:
        say(f"{stage}: {skipped} of {skipped + done} tasks were done already")
    return Outcome(done, skipped)


def _run_wave(run: Run, wave: Wave) -> list[Outcome]:
    lanes: dict[str, list[Task]] = {}
    with ExitStack() as resources:
        for task in wave(resources):
            lanes.setdefault(task.lane, []).append(task)
        outcomes = _run_lanes(run, list(lanes.values()))
        # Within the block: an engine that died says so itself when it is ended.
        _raise_first([outcome.error for outcome in outcomes if outcome.error is not None])
    return outcomes


def _run_lanes(run: Run, lanes: list[list[Task]]) -> list[Outcome]:
    """Run lanes side by side where they are `apart`, the others one after another."""
    apart = [lane for lane in lanes if lane[0].apart]
    here = [lane for lane in lanes if not lane[0].apart]
    with ThreadPoolExecutor(max(1, len(apart)), "lane") as threads:
        try:
            futures = [threads.submit(_run_lane, run, lane) for lane in apart]
            outcomes = [_run_lane(run, lane) for lane in here]
            return outcomes + [future.result() for future in futures]
        except BaseException:  # Ctrl-C as well: the threads are waited for when this block ends
            run.stop.set()
            raise


def _run_lane(run: Run, lane: list[Task]) -> Outcome:
    done = skipped = 0
    for task in lane:
        if is_done(run, task, read_manifest(run.path)):
            skipped += 1
            continue
        say(task.key)
        try:
            counts = execute(run, task)
        except (CuveeError, OSError) as error:
            if task.lane:
                log.error("%s: %s", task.key, error)
                say(f"{task.key}: stopped; why is said when the others have ended")
            return Outcome(done, skipped, error)
        shown = ", ".join(f"{name} {value}" for name, value in counts.items()) or "done"
        say(f"{task.key}: {shown}" if task.lane else f"  {shown}")
        done += 1
    return Outcome(done, skipped)


def _raise_first(errors: list[CuveeError | OSError]) -> None:
    """Raise the first error, after warnings of the others; a spent budget is said last."""
    errors = sorted(errors, key=lambda error: isinstance(error, BudgetError))
    for other in errors[1:]:
        # Every lane meets the same limit, and the same mistake of the recipe.
        if not isinstance(other, BudgetError) and str(other) != str(errors[0]):
            warn(str(other))
    if errors:
        raise errors[0]


def _end_stale_engines(run: Run) -> None:
    if ended := end_stale(run.engines()):
        say(f"ended {ended} engine(s) that an earlier run left behind")
