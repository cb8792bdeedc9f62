"""Recipes are checked key by key, and errors say what to do."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cuvee.errors import RecipeError
from cuvee.recipe import dump_recipe, load_recipe, parse_recipe

ROOT = Path(__file__).parent.parent
MATH = {"verifier": "math", "problems": [{"source": "generator:arithmetic", "count": 5}]}
REMOTE = {"name": "ann", "url": "https://host/v1", "model": "m"}


def small() -> dict[str, Any]:
    return {
        "name": "small",
        "base": "random:two-layer",
        "domains": {"math": dict(MATH)},
        "teachers": [{"name": "ann", "scripted": {}}],
    }


def error_of(data: dict[str, Any]) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(data, where="r.yaml")
    return str(caught.value)


def test_defaults_are_filled_in_and_dumped() -> None:
    recipe = parse_recipe(small(), where="r.yaml")
    again = yaml.safe_load(dump_recipe(recipe))
    assert again["train"]["learning_rate"] == 1e-5
    assert parse_recipe(again, where="dump") == recipe


def test_unknown_key_is_refused_with_the_nearest_known_one() -> None:
    data = small() | {"train": {"learing_rate": 1}}
    assert "train.learing_rate: unknown key; did you mean 'learning_rate'?" in error_of(data)


def test_unknown_key_deep_in_a_list_names_its_place() -> None:
    data = small()
    data["teachers"][0]["scripted"] = {"skil": 1}
    assert "teachers.0.scripted.skil: unknown key; did you mean 'skill'?" in error_of(data)


def test_missing_key_is_named() -> None:
    data = small()
    del data["base"]
    assert "base: missing" in error_of(data)


def test_value_out_of_range_is_named_with_the_value() -> None:
    message = error_of(small() | {"train": {"epochs": -1}})
    assert "train.epochs" in message
    assert "greater than 0" in message
    assert "-1" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"merge": {"order": ["math", "code"]}}, "merge.order must name each domain once"),
        ({"teachers": [{"name": "a", "scripted": {}, "domains": ["cod"]}]}, "no domain ['cod']"),
        ({"teachers": [{"name": "a", "scripted": {}}] * 2}, "teachers of the same name: ['a']"),
        ({"teachers": [{"name": "a"}]}, "exactly one of url, serve, scripted, published; got none"),
        ({"teachers": [{"name": "a", "url": "https://x/v1"}]}, "a teacher with url needs model"),
        ({"train": {"batch_size": 5, "micro_batch": 2}}, "multiple of train.micro_batch"),
        ({"workers": "dask"}, "workers"),
        ({"address": "auto"}, "address 'auto': only with workers: ray"),
        ({"workers": "ray", "address": "ray://h:10001"}, "is not supported"),
        ({"budget": {"usd": 5}, "teachers": [REMOTE]}, "budget.usd needs the price"),
        ({"budget": {"requests": 0}}, "budget.requests"),
        ({"teachers": [REMOTE, {"name": "a", "published": True}]}, "published teachers ['a']: no"),
        (
            {"teachers": [{"name": "a", "published": True, "samples": 2, "key_env": "K"}]},
            "a published teacher is never asked; remove key_env, samples",
        ),
        ({"domains": {"traces": MATH}}, "reserved names"),
        ({"domains": {"mixture": MATH, "math": MATH}}, "domain or benchmark: ['mixture']"),
        ({"baseline": "mixture"}, "baseline: mixture needs two domains or more; of ['math'] alone"),
        ({"baseline": "blend"}, "baseline"),
        ({"domains": {"math": MATH | {"verifier": "judge", "judge": "no"}}}, "no teacher that can"),
    ],
)
def test_what_does_not_fit_together_is_refused(change: dict[str, Any], message: str) -> None:
    assert message in error_of(small() | change)


def test_the_mixture_is_trained_after_the_specialists_where_it_is_asked_for() -> None:
    two = small() | {"domains": {"math": MATH, "code": MATH}}
    assert parse_recipe(two, where="r.yaml").trained() == ["math", "code"]
    asked = parse_recipe(two | {"baseline": "mixture"}, where="r.yaml")
    assert asked.trained() == ["math", "code", "mixture"]
    assert asked.merge_order() == ["math", "code"]


def published(**teacher: Any) -> dict[str, Any]:
    """Return a recipe of two domains; the traces of `r1` stand in the sources of `math`."""
    with_traces = {"source": "generator:arithmetic", "count": 5, "traces": "r1"}
    return small() | {
        "domains": {"math": MATH | {"problems": [with_traces]}, "more": MATH},
        "teachers": [{"name": "ann", "scripted": {}}, {"name": "r1", "published": True} | teacher],
    }


def test_a_published_teacher_answers_where_a_source_has_its_traces() -> None:
    recipe = parse_recipe(published(), where="r.yaml")
    assert [t.name for t in recipe.teachers_of("math")] == ["ann", "r1"]
    assert [t.name for t in recipe.teachers_of("more")] == ["ann"]
    assert parse_recipe(recipe.model_dump(mode="json"), where="again") == recipe


def test_published_traces_and_teachers_must_fit_together() -> None:
    assert "domains.math: traces of 'r1'" in error_of(published(domains=["more"]))
    assert "no source of 'more'" in error_of(published(domains=["math", "more"]))
    assert "traces of 'r1', which is no teacher" in error_of(published(name="r2"))
    judged = published()
    judged["domains"]["more"] = MATH | {"verifier": "judge", "judge": "r1"}
    assert "no teacher that can be asked is called 'r1'" in error_of(judged)


@pytest.mark.parametrize(
    ("serve", "message"),
    [
        ({"engine": "vllm", "devices": [0, 1, 0]}, "devices are GPU numbers >= 0, each once"),
        ({"engine": "vllm", "devices": [-1]}, "devices are GPU numbers"),
        ({"devices": [0, 1, 2], "replicas": 2}, "[0, 1, 2] cannot be shared out so"),
        ({"args": {"seed": 1}}, "args is for engine vllm alone"),
        ({"engine": "vllm", "threads": 4}, "threads is for engine llama.cpp alone"),
        (
            {
                "engine": "vllm",
                "devices": [0, 1, 2],
                "replicas": 2,
                "args": {"tensor-parallel-size": 2},
            },
            "2 replica(s) with {'tensor_parallel_size': 2} need 4 GPUs, got [0, 1, 2]",
        ),
    ],
)
def test_serve_is_refused_where_engine_and_devices_do_not_fit(
    serve: dict[str, Any], message: str
) -> None:
    teacher = {"name": "carl", "model": "owner/name", "serve": serve}
    assert message in error_of(small() | {"teachers": [teacher]})
    assert message in error_of(small() | {"evaluate": {"serve": serve}})


def test_replicas_share_out_the_devices() -> None:
    args = {"tensor_parallel_size": 2, "pipeline_parallel_size": 2}
    serve = {"engine": "vllm", "devices": list(range(8)), "replicas": 2, "args": args}
    recipe = parse_recipe(small() | {"evaluate": {"serve": serve}}, where="r.yaml")
    assert recipe.evaluate.serve.replicas == 2


def test_prompt_without_the_question_is_refused() -> None:
    data = small()
    data["domains"]["math"]["prompt"] = "Solve it."
    assert "prompt must contain {question}" in error_of(data)


def test_prompt_keeps_latex_braces() -> None:
    recipe = parse_recipe(small(), where="r.yaml")
    assert recipe.domains["math"].ask("1+1?").endswith("within \\boxed{}.")


def test_overrides_reach_sections_lists_and_new_sections(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(small()))
    recipe = load_recipe(
        path, ["train.epochs=2", "teachers.0.samples=3", "evaluate.sampling.max_tokens=9"]
    )
    assert (recipe.train.epochs, recipe.teachers[0].samples) == (2, 3)
    assert recipe.evaluate.sampling.max_tokens == 9


def test_an_address_set_on_a_dumped_recipe_reaches_what_is_served_over_ray(tmp_path: Path) -> None:
    serve = {"over": "ray", "threads": 1}
    carl = {"name": "carl", "model": "owner/name", "serve": serve}
    dora = carl | {"name": "dora", "serve": serve | {"address": "other:1"}}
    data = small() | {"teachers": [carl, dora], "workers": "ray", "address": "old:6379"}
    path = tmp_path / "r.yaml"
    path.write_text(dump_recipe(parse_recipe(data, where="r.yaml")))
    for overrides, address in (([], "old:6379"), (["address=new:6379"], "new:6379")):
        teachers = load_recipe(path, overrides).teachers
        assert [t.serve and t.serve.address for t in teachers] == [address, "other:1"]


@pytest.mark.parametrize("override", ["train.epochs", "=1", "name.x=1", "teachers.7.samples=1"])
def test_broken_override_is_refused(tmp_path: Path, override: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(small()))
    with pytest.raises(RecipeError, match="--set"):
        load_recipe(path, [override])


@pytest.mark.parametrize("text", ["a: [", "- 1", "\xff"])
def test_what_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(RecipeError, match=r"r\.yaml"):
        load_recipe(path)


RECIPES = [*sorted((ROOT / "recipes").glob("*.yaml")), ROOT / "src/cuvee/recipe/starter.yaml"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_published_recipes_load(path: Path) -> None:
    assert load_recipe(path).domains


def test_fairyr1_recipe_holds_what_is_known_of_it() -> None:
    recipe = load_recipe(ROOT / "recipes" / "fairyr1-32b.yaml")
    assert recipe.base == "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B"
    assert recipe.domains["math"].select.tokens == (2000, 8000)
    assert recipe.domains["code"].select.tokens == (4000, 8000)
    assert recipe.train.epochs == 5


def test_tinyr1_recipe_merges_in_the_published_order() -> None:
    recipe = load_recipe(ROOT / "recipes" / "tinyr1-32b.yaml")
    assert recipe.merge_order() == ["math", "science", "code"]
    assert recipe.merge.anchor == "later"
    assert recipe.domains["science"].select.accept == ("correct", "not_checked")
