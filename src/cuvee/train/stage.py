"""The train stage: examples of each domain in, one specialist a domain out.

Reads `Run.examples(domain)` and the base; writes the folder `Run.specialist(domain)`. A
training that fails keeps its work folder beside it, `.DOMAIN.partial`, to go on from.
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
    """Return one task a domain. The base is resolved now: its files are an input."""
    base = resolve(run.recipe.base)
    return [_task(run, domain, base) for domain in run.recipe.domains]


def _task(run: Run, domain: str, base: Path) -> Task:
    recipe = run.recipe

    def work() -> Mapping[str, Any]:
        return _make(run, domain, base)

    return Task(
        stage="train",
        name=domain,
        inputs=(run.examples(domain), base),
        outputs=(run.specialist(domain),),
        settings={**settings(recipe.train, recipe.seed), "base": recipe.base},
        work=work,
    )


def _make(run: Run, domain: str, base: Path) -> Mapping[str, Any]:
    out = run.specialist(domain)
    job = Job(
        base=base,
        examples=run.examples(domain),
        folder=out.with_name(f".{domain}.partial"),  # a domain's name cannot begin with a dot
        train=run.recipe.train,
        seed=run.recipe.seed,
    )
    counts = train(job, name=f"train {domain}", log=run.engines() / f"train-{domain}.log")
    job.model.rename(out)
    remove(job.folder)
    return counts
