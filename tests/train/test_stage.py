from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from cuvee.models.checkpoint import weight_files
from cuvee.recipe import Recipe
from cuvee.records import Example, write_rows
from cuvee.runfolder import Run, execute, is_done, read_manifest
from cuvee.train.stage import tasks

pytestmark = pytest.mark.usefixtures("one_thread")


def recipe(base: Path, **train: object) -> Recipe:
    domain = {"problems": [{"source": "generator:arithmetic"}], "verifier": "math"}
    teacher = {"name": "alice", "scripted": {}}
    return Recipe.model_validate(
        {
            "name": "tiny",
            "base": str(base),
            "domains": {"math": domain, "code": domain},
            "teachers": [teacher],
            "train": {"epochs": 1, "warmup": 0, "batch_size": 2, "max_tokens": 256, **train},
        }
    )


def test_a_task_makes_one_specialist_and_leaves_nothing_else(
    base: Path, tmp_path: Path, sums: Callable[[int], list[Example]]
) -> None:
    run = Run(tmp_path, recipe(base))
    write_rows(run.examples("math"), sums(4), Example)
    with ExitStack() as resources:
        math, code = tasks(run, resources)
    assert [math.key, code.key] == ["train/math", "train/code"]
    counts = execute(run, math)
    assert counts["examples"] == 4
    assert weight_files(run.specialist("math"))
    assert [p.name for p in run.folder("train").iterdir()] == ["math"]
    assert is_done(run, math, read_manifest(run.path))


def test_only_what_decides_the_weights_makes_a_task_outdated(base: Path, tmp_path: Path) -> None:
    def settings(given: Recipe) -> object:
        with ExitStack() as resources:
            return tasks(Run(tmp_path, given), resources)[0].settings

    plain = settings(recipe(base))
    assert settings(recipe(base, save_every=50)) == plain
    assert settings(recipe(base, learning_rate=1e-4)) != plain
    assert settings(recipe(base).model_copy(update={"seed": 1})) != plain
