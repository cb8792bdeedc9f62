"""What is measured and with what."""

import json
from typing import Any

import pytest

from cuvee.errors import RecipeError
from cuvee.evaluate.protocol import benchmarks, compared, models, protocol_of
from cuvee.recipe import Recipe, parse_recipe


def recipe(*, baseline: str | None = None, **evaluate: Any) -> Recipe:
    domain = {"problems": [{"source": "generator:arithmetic", "count": 1}], "verifier": "math"}
    return parse_recipe(
        {
            "name": "blend",
            "base": "random:two-layer",
            "domains": {"math": domain, "algebra": domain},
            "teachers": [{"name": "t", "scripted": {}}],
            "baseline": baseline,
            "evaluate": evaluate,
        },
        where="test",
    )


HELD = {"problems": {"source": "generator:arithmetic", "count": 4}, "domain": "math", "samples": 2}
FITTING: dict[str, Any] = {"sampling": {"max_tokens": 100}, "serve": {"context": 512}}


def test_models_and_pairs_are_those_of_the_run() -> None:
    found = recipe()
    assert models(found) == ["base", "math", "algebra", "merged"]
    assert compared(found) == [
        ("math", "base"),
        ("algebra", "base"),
        ("merged", "base"),
        ("merged", "math"),
        ("merged", "algebra"),
    ]


def test_the_mixture_is_a_model_like_a_specialist_and_the_merged_one_is_held_against_it() -> None:
    found = recipe(baseline="mixture")
    assert models(found) == ["base", "math", "algebra", "mixture", "merged"]
    assert compared(found) == [
        ("math", "base"),
        ("algebra", "base"),
        ("mixture", "base"),
        ("merged", "base"),
        ("merged", "math"),
        ("merged", "algebra"),
        ("merged", "mixture"),
    ]


def test_a_score_s_protocol_says_what_it_was_taken_with() -> None:
    found = recipe(benchmarks={"held": HELD}, **FITTING)
    [benchmark] = benchmarks(found)
    protocol = json.loads(json.dumps(protocol_of(found, benchmark)))
    assert protocol["samples"] == 2
    assert protocol["sampling"] == {"temperature": 0.6, "top_p": 0.95, "max_tokens": 100}
    assert protocol["serve"]["quantization"] == "Q8_0"
    assert protocol["serve"]["context"] == 512
    assert "{question}" in protocol["prompt"]
    assert "threads" not in protocol["serve"]


def test_an_engine_without_export_has_no_quantization() -> None:
    serve = {"engine": "vllm", "command": "vllm", "context": 512}
    found = recipe(benchmarks={"held": HELD}, sampling={"max_tokens": 100}, serve=serve)
    assert protocol_of(found, benchmarks(found)[0])["serve"]["quantization"] is None


def test_max_tokens_that_fill_the_context_are_refused_before_anything_runs() -> None:
    with pytest.raises(RecipeError, match=r"max_tokens: 512 .*context: 512"):
        benchmarks(
            recipe(benchmarks={"held": HELD}, sampling={"max_tokens": 512}, serve={"context": 512})
        )
    assert benchmarks(recipe(sampling={"max_tokens": 512}, serve={"context": 512})) == []
