"""The stage `merge` as a task of a run."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cuvee.errors import RecipeError
from cuvee.merge.stage import merge_config, tasks
from cuvee.models.adapted import copy_adapted
from cuvee.models.checkpoint import load_tokenizer
from cuvee.models.random_model import write_random_model
from cuvee.models.template import end_of_turn
from cuvee.recipe import Recipe, parse_recipe
from cuvee.runfolder import Run, execute, is_done, read_manifest

BASE = "random:two-layer"


def recipe(*, base: str = BASE, **merge: Any) -> Recipe:
    domain = {"problems": [{"source": "generator:arithmetic", "count": 1}], "verifier": "math"}
    data = {
        "name": "blend",
        "base": base,
        "domains": {"math": domain, "algebra": domain},
        "teachers": [{"name": "t", "scripted": {}}],
        "merge": merge,
    }
    return parse_recipe(data, where="test")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run with two specialists, beside a base."""
    write_random_model(tmp_path / "base", seed=7)
    for seed, domain in enumerate(("math", "algebra")):
        path = Run(tmp_path / "run", recipe()).specialist(domain)
        write_random_model(path, seed=seed)
        (path / "train_log.jsonl").write_text("{}\n")
    return tmp_path / "run"


def merged(run: Run) -> dict[str, Any]:
    """Run the stage's one task; return the record of the merge."""
    [task] = tasks(run, contextlib.ExitStack())
    execute(run, task)
    found: dict[str, Any] = json.loads((run.merged() / "cuvee_merge.json").read_text())
    return found


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
    assert record["base"]["spec"] == record["config"]["reference"]["model"]
    assert not (run.merged() / "train_log.jsonl").exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"anchor": "earlier"},
        {"order": ["algebra", "math"]},
        {"out_dtype": "float32"},
        {"mode": "mergekit"},
        {"method": "linear", "parameters": {"weight": 1}},
    ],
)
def test_another_merge_makes_it_undone(folder: Path, changed: dict[str, Any]) -> None:
    run = Run(folder, recipe())
    [task] = tasks(run, contextlib.ExitStack())
    execute(run, task)
    [other] = tasks(Run(folder, recipe(**changed)), contextlib.ExitStack())
    assert not is_done(run, other, read_manifest(folder))


def test_another_specialist_makes_it_undone(folder: Path) -> None:
    run = Run(folder, recipe())
    [task] = tasks(run, contextlib.ExitStack())
    execute(run, task)
    write_random_model(run.specialist("math"), seed=9)
    assert not is_done(run, task, read_manifest(folder))


def test_another_anchor_is_another_model(folder: Path) -> None:
    found = []
    for anchor in ("later", "earlier"):
        run = Run(folder, recipe(anchor=anchor))
        assert merged(run)["anchor"] == anchor
        found.append(load_file(run.merged() / "model.safetensors"))
    assert any(not torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


def test_mode_mergekit_has_the_recipe_s_seed(folder: Path) -> None:
    record = merged(Run(folder, recipe(mode="mergekit")))
    assert (record["mode"], record["seed"]) == ("mergekit", recipe().seed)


def test_task_arithmetic_adds_each_domain_s_weight_of_its_change_to_the_recipe_s_base(
    folder: Path,
) -> None:
    section: dict[str, Any] = {
        "method": "task_arithmetic",
        "parameters": {"lambda": 0.5},
        "specialists": {"math": {"weight": 0.25}, "algebra": {"weight": 1}},
        "out_dtype": "float32",
    }
    base = folder.parent / "base"
    run = Run(folder, recipe(base=str(base), **section))
    record = merged(run)
    assert record["method"] == "task_arithmetic"
    assert record["base"]["name"] == "base"
    assert record["fusions"] == []
    anchor = load_file(base / "model.safetensors")
    math, algebra = (
        load_file(run.specialist(domain) / "model.safetensors") for domain in ("math", "algebra")
    )
    for name, tensor in load_file(run.merged() / "model.safetensors").items():
        change = 0.25 * (math[name] - anchor[name]) + algebra[name] - anchor[name]
        torch.testing.assert_close(tensor, anchor[name] + 0.5 * change, rtol=1e-5, atol=1e-6)


def test_ties_has_a_density_for_each_domain_and_one_for_the_rest(folder: Path) -> None:
    section: dict[str, Any] = {
        "method": "ties",
        "parameters": {"weight": 1, "density": 0.2},
        "specialists": {"math": {"density": [{"filter": "mlp", "value": 0.9}, {"value": 0.5}]}},
    }
    run = Run(folder, recipe(**section))
    [task] = tasks(run, contextlib.ExitStack())
    counts = execute(run, task)
    assert (counts["specialists"], counts["share_adopted"]) == (2, None)
    record = json.loads((run.merged() / "cuvee_merge.json").read_text())
    models = {model["model"]: model.get("parameters") for model in record["config"]["models"]}
    assert models[str(run.specialist("algebra"))] is None
    assert list(models[str(run.specialist("math"))]) == ["density"]
    assert is_done(run, task, read_manifest(folder))


def test_a_method_without_base_measures_from_the_recipe_s(folder: Path) -> None:
    config = merge_config(
        Run(folder, recipe(method="linear", parameters={"weight": 1})), base=Path("b")
    )
    assert config.base is None
    assert config.reference is not None
    assert config.reference.spec == "b"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"method": "tise"}, r"no method 'tise'; did you mean 'ties'\?"),
        ({"specialists": {"maths": {"weight": 1}}}, "merge.specialists: no such domain: maths"),
        ({"method": "ties"}, r"parameters\.weight: missing for .*math.*algebra"),
        (
            {"method": "ties", "specialists": {"math": {"weight": 1}}},
            r"parameters\.weight: missing for \S*algebra;",
        ),
        ({"method": "ties", "parameters": {"weight": 1, "densty": 1}}, "did you mean 'density'"),
        ({"method": "ties", "parameters": {"weight": 1, "density": 2}}, "density"),
        ({"method": "ties", "parameters": {"weight": 1}, "mode": "mergekit"}, "mode: of arcee_fus"),
        (
            {"method": "ties", "parameters": {"weight": 1}, "anchor": "earlier"},
            "anchor: of arcee_fusion",
        ),
        ({"parameters": {"weight": 1}}, "arcee_fusion has no parameters"),
        (
            {"method": "ties", "parameters": {"weight": 1}, "specialists": {"math": {"lambda": 1}}},
            "lambda: one for the whole merge",
        ),
        (
            {"method": "nearswap", "parameters": {"t": 1}},
            "nearswap takes exactly 1 beside the base",
        ),
    ],
)
def test_what_no_merge_can_be_is_refused_without_a_look_at_any_file(
    tmp_path: Path, section: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        merge_config(Run(tmp_path, recipe(**section)), base=tmp_path / "base")


def test_a_mended_tokenizer_is_the_merged_model_s_too(folder: Path) -> None:
    base = folder.parent / "base"
    tokenizer = load_tokenizer(base)
    tokenizer.eos_token = "<|endoftext|>"  # as Qwen2.5's base, whose template ends turns otherwise
    tokenizer.save_pretrained(base)
    for name in ("config.json", "generation_config.json"):
        config = json.loads((base / name).read_text()) | {"eos_token_id": 0}
        (base / name).write_text(json.dumps(config))
    run = Run(folder, recipe(base=str(base), method="ties", parameters={"weight": 1, "density": 1}))
    for domain in ("math", "algebra"):
        copy_adapted(base, run.specialist(domain))
    merged(run)
    assert end_of_turn(load_tokenizer(run.merged())) == "<|im_end|>"
    said = json.loads((run.merged() / "generation_config.json").read_text())
    assert said["eos_token_id"] == [2, 0]
