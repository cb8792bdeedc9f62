"""The stage `train`: one task a model, and only what decides its weights redoes it."""

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from cuvee.models.checkpoint import weight_files
from cuvee.recipe import Recipe
from cuvee.records import Example, content_hash, write_rows
from cuvee.runfolder import Run, Task, execute, is_done, read_manifest
from cuvee.select.mixture import mixture_task
from cuvee.train.stage import job, tasks

pytestmark = pytest.mark.usefixtures("one_thread")


def recipe(base: Path, *, baseline: str | None = None, **train: object) -> Recipe:
    domain = {"problems": [{"source": "generator:arithmetic"}], "verifier": "math"}
    teacher = {"name": "alice", "scripted": {}}
    return Recipe.model_validate(
        {
            "name": "tiny",
            "base": str(base),
            "domains": {"math": domain, "code": domain},
            "teachers": [teacher],
            "baseline": baseline,
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


def test_an_old_run_s_training_stays_done(base: Path, tmp_path: Path) -> None:
    """Keys that the recipe got later change nothing where they have their defaults."""
    with ExitStack() as resources:
        [math, _] = tasks(Run(tmp_path, recipe(base)), resources)
    old = {
        "epochs": 1.0, "learning_rate": 1e-5, "scheduler": "constant_with_warmup", "warmup": 0.0,
        "batch_size": 2, "micro_batch": 1, "max_tokens": 256, "packing": True,
        "weight_decay": 0.01, "adam_beta2": 0.95, "max_grad_norm": 1.0,
        "gradient_checkpointing": True, "precision": "auto", "lora": None,
    }  # fmt: skip
    first_version = {"train": old, "seed": 42, "base": str(base)}
    assert content_hash(dict(math.settings)) == content_hash(first_version)


def trained(run: Run) -> dict[str, Task]:
    with ExitStack() as resources:
        return {task.name: task for task in tasks(run, resources)}


def pretend(run: Run, task: Task) -> None:
    """Do a task without its training: its output is a folder that names its input."""

    def work() -> dict[str, int]:
        run.specialist(task.name).mkdir(parents=True)
        said = run.examples(task.name).read_bytes()
        (run.specialist(task.name) / "model.safetensors").write_bytes(said)
        return {"examples": 1}

    execute(run, dataclasses.replace(task, work=work))


def test_the_mixture_is_trained_as_the_specialists_are(base: Path, tmp_path: Path) -> None:
    run = Run(tmp_path, recipe(base, baseline="mixture"))
    found = trained(run)
    assert list(found) == ["math", "code", "mixture"]
    assert found["mixture"].settings == found["math"].settings
    assert found["mixture"].inputs == (tmp_path / "04_examples" / "mixture.parquet", base)
    assert found["mixture"].outputs == (tmp_path / "05_specialists" / "mixture",)
    made, other = job(run, "mixture", base=base), job(run, "math", base=base)
    assert (made.train, made.seed, made.base) == (other.train, other.seed, other.base)
    assert made.folder == tmp_path / "05_specialists" / ".mixture.partial"


def test_changed_examples_of_a_domain_retrain_that_specialist_and_the_mixture_alone(
    base: Path, tmp_path: Path, sums: Callable[[int], list[Example]]
) -> None:
    run = Run(tmp_path, recipe(base, baseline="mixture"))
    for domain in run.recipe.domains:
        write_rows(run.examples(domain), sums(3), Example)
    execute(run, mixture_task(run))
    for task in trained(run).values():
        pretend(run, task)

    def done() -> list[str]:
        manifest = read_manifest(run.path)
        return [name for name, task in trained(run).items() if is_done(run, task, manifest)]

    assert done() == ["math", "code", "mixture"]
    write_rows(run.examples("code"), sums(4), Example)
    execute(run, mixture_task(run))
    assert done() == ["math"]


def test_without_a_mixture_what_was_trained_before_stays_done(
    base: Path, tmp_path: Path, sums: Callable[[int], list[Example]]
) -> None:
    plain, asked = (Run(tmp_path, recipe(base, baseline=b)) for b in (None, "mixture"))
    for domain in plain.recipe.domains:
        write_rows(plain.examples(domain), sums(3), Example)
    for task in trained(plain).values():
        pretend(plain, task)
    manifest = read_manifest(tmp_path)
    states = {name: is_done(asked, task, manifest) for name, task in trained(asked).items()}
    assert states == {"math": True, "code": True, "mixture": False}
