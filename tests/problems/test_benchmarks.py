from typing import Any

import pytest

from cuvee.errors import RecipeError
from cuvee.problems.benchmarks import KNOWN, asked, resolve_benchmark
from cuvee.recipe import Benchmark, Recipe, parse_recipe


def recipe(**domains: dict[str, Any]) -> Recipe:
    sections = {
        name: {"problems": [{"source": "generator:arithmetic", "count": 9}], **keys}
        for name, keys in domains.items()
    }
    teacher = {"name": "t", "scripted": {}}
    data = {"name": "r", "base": "random:two-layer", "domains": sections, "teachers": [teacher]}
    return parse_recipe(data, where="test")


def test_a_named_benchmark_goes_to_the_first_domain_with_its_verifier() -> None:
    made = recipe(
        c={"verifier": "code"},
        m={"verifier": "math", "prompt": "Do: {question}"},
        n={"verifier": "math"},
    )
    found = resolve_benchmark("aime24", 64, made)
    assert (found.domain, found.verifier, found.samples) == ("m", "math", 64)
    assert found.source.source == "HuggingFaceH4/aime_2024"
    assert asked(found).ask("why?") == "Do: why?"


def test_a_declared_benchmark_inherits_from_its_domain() -> None:
    made = recipe(m={"verifier": "math", "prompt": "Do: {question}"})
    source = {"source": "generator:arithmetic", "count": 3}
    declared = Benchmark.model_validate({"problems": source, "domain": "m", "samples": 2})
    found = resolve_benchmark("sums", declared, made)
    assert (found.domain, found.verifier, found.prompt, found.samples) == (
        "m",
        "math",
        "Do: {question}",
        2,
    )
    told = {"problems": {"source": "b.jsonl", "traces": "t"}, "domain": "m", "samples": 2}
    with pytest.raises(RecipeError, match=r"sums.problems.traces: a benchmark is answered by"):
        resolve_benchmark("sums", Benchmark.model_validate(told), made)
    other = declared.model_copy(update={"verifier": "none"})
    assert asked(resolve_benchmark("sums", other, made)).ask("why?") == "why?"


def test_what_cannot_be_resolved_is_refused_by_name() -> None:
    made = recipe(c={"verifier": "code"})
    with pytest.raises(RecipeError, match="no domain has its verifier 'math'"):
        resolve_benchmark("math500", 1, made)
    with pytest.raises(RecipeError, match=r"evaluate.benchmarks.aime26: not a benchmark.*aime24"):
        resolve_benchmark("aime26", 1, made)
    with pytest.raises(RecipeError, match=r"livecodebench: cannot be run by name: .*test\*.jsonl"):
        resolve_benchmark("livecodebench", 1, made)
    chosen = resolve_benchmark("gpqa_diamond", 1, recipe(g={"verifier": "choice"}))
    assert (chosen.verifier, chosen.source.config) == ("choice", "gpqa_diamond")


def test_a_prompt_without_a_question_is_refused() -> None:
    made = recipe(m={"verifier": "math"})
    source = {"source": "generator:arithmetic", "count": 3}
    declared = Benchmark.model_validate({"problems": source, "domain": "m", "prompt": "Hello"})
    with pytest.raises(RecipeError, match=r"benchmarks.sums.prompt"):
        asked(resolve_benchmark("sums", declared, made))


def test_every_known_benchmark_states_where_it_comes_from() -> None:
    for known in KNOWN.values():
        assert known.note
        assert "/" in known.source.source
