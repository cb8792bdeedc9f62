"""The train stage: examples of each domain in, one specialist a domain out.

Reads `Run.examples(NAME)` and the base; writes the folder `Run.specialist(NAME)`. With
`baseline: mixture` one more model is made just so, from the examples of all domains. A
training that fails keeps its work folder beside it, `.NAME.partial`, to go on from.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cuvee.atomic import remove
from cuvee.models.checkpoint import resolve
from cuvee.runfolder import Run, Task
from cuvee.train.job import Job, settings
from cuvee.train.launch import train


def tasks(run: Run, resources: ExitStack) -> list[Task]:
    """Return one task a model. The base is resolved now: its files are an input."""
    base = resolve(run.recipe.base)
    return [_task(run, name, base) for name in run.recipe.trained()]


def job(run: Run, name: str, *, base: Path) -> Job:
    """Return what makes one of `Recipe.trained()`: all with the same hyper-parameters.

    `base` is the folder of the recipe's base.
    """
    out = run.specialist(name)
    return Job(
        base=base,
        examples=run.examples(name),
        folder=out.with_name(f".{name}.partial"),  # a domain's name cannot begin with a dot
        train=run.recipe.train,
        seed=run.recipe.seed,
    )


def _task(run: Run, name: str, base: Path) -> Task:
    recipe = run.recipe
    return Task(
        stage="train",
        name=name,
        inputs=(run.examples(name), base),
        outputs=(run.specialist(name),),
        settings={**settings(recipe.train, recipe.seed), "base": recipe.base},
        work=lambda: _make(run, name, base),
    )


def _make(run: Run, name: str, base: Path) -> Mapping[str, Any]:
    made = job(run, name, base=base)
    counts = train(made, name=f"train {name}", log=run.engines() / f"train-{name}.log")
    made.model.rename(run.specialist(name))
    remove(made.folder)
    return counts
