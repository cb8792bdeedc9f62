"""The stage `merge` as a task of a run."""

import contextlib
import json
from pathlib import Path

import pytest

from cuvee.merge.stage import tasks
from cuvee.models.random_model import write_random_model
from cuvee.recipe import Recipe, parse_recipe
from cuvee.runfolder import Run, execute, is_done, read_manifest


def recipe(**merge: object) -> Recipe:
    domain = {"problems": [{"source": "generator:arithmetic", "count": 1}], "verifier": "math"}
    data = {
        "name": "blend",
        "base": "random:two-layer",
        "domains": {"math": domain, "algebra": domain},
        "teachers": [{"name": "t", "scripted": {}}],
        "merge": merge,
    }
    return parse_recipe(data, where="test")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, domain in enumerate(("math", "algebra")):
        path = Run(tmp_path, recipe()).specialist(domain)
        write_random_model(path, seed=seed)
        (path / "train_log.jsonl").write_text("{}\n")
    return tmp_path


def test_the_task_merges_in_the_recipe_s_order_and_is_done_then(folder: Path) -> None:
    run = Run(folder, recipe(order=["algebra", "math"]))
    [task] = tasks(run, contextlib.ExitStack())
    assert task.key == "merge/merged"
    assert task.inputs == (run.specialist("algebra"), run.specialist("math"))
    counts = execute(run, task)
    assert counts["specialists"] == 2
    assert 0 < counts["share_adopted"] < 1
    assert is_done(run, task, read_manifest(folder))
    record = json.loads((run.merged() / "cuvee_merge.json").read_text())
    assert [source["name"] for source in record["order"]] == ["algebra", "math"]
    assert not (run.merged() / "train_log.jsonl").exists()


def test_another_anchor_or_order_or_specialist_makes_it_undone(folder: Path) -> None:
    run = Run(folder, recipe())
    [task] = tasks(run, contextlib.ExitStack())
    execute(run, task)
    manifest = read_manifest(folder)
    for changed in ({"anchor": "earlier"}, {"order": ["algebra", "math"]}):
        [other] = tasks(Run(folder, recipe(**changed)), contextlib.ExitStack())
        assert not is_done(run, other, manifest)
    write_random_model(run.specialist("math"), seed=9)
    assert not is_done(run, task, manifest)
