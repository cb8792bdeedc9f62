"""A benchmark scored on other problems than were published is said to be, and no other is."""

from pathlib import Path
from typing import Any

import pytest

from cuvee.evaluate.counted import miscounted
from cuvee.recipe import Recipe, parse_recipe
from cuvee.records import Score


def recipe(entry: Any, *, name: str = "gsm8k", limit: int | None = None) -> Recipe:
    return parse_recipe(
        {
            "name": "r",
            "base": "random:two-layer",
            "limit": limit,
            "domains": {
                "math": {
                    "problems": [{"source": "generator:arithmetic", "count": 9}],
                    "verifier": "math",
                }
            },
            "teachers": [{"name": "t", "scripted": {}}],
            "evaluate": {"benchmarks": {name: entry}},
        },
        where="the test",
    )


def score(problems: int, *, model: str = "merged", benchmark: str = "gsm8k") -> Score:
    return Score(
        model=model, benchmark=benchmark, domain="math", mean=0.5, low=0.4, high=0.6,
        lower_bound=0.5, upper_bound=0.5, n_problems=problems, n_samples=problems, correct=1,
        wrong=problems - 1, no_answer=0, truncated=0, not_checked=0, mean_tokens=1.0,
        protocol="{}",
    )  # fmt: skip


def test_other_problems_than_the_published_are_said() -> None:
    scores = [score(1319, model="base"), score(1316)]
    (said,) = miscounted(recipe(1), scores)
    assert said.startswith("gsm8k: scored on 1,316 or 1,319 problems, and published with 1,319")
    assert miscounted(recipe(1), [score(1319)]) == ()


@pytest.mark.parametrize(
    "entry",
    [
        {"count": 100},
        {"where": {"level": 5}},
        {"problems": {"source": "generator:arithmetic", "count": 4}, "domain": "math"},
    ],
)
def test_where_the_recipe_chooses_problems_nothing_is_compared(entry: Any) -> None:
    assert miscounted(recipe(entry), [score(4)]) == ()


def test_a_pilot_is_not_compared() -> None:
    assert miscounted(recipe(1, limit=5), [score(5)]) == ()


def test_a_user_s_declaration_and_a_file_of_the_same_are_compared(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("title: Own\nsource: own.jsonl\nverifier: math\nproblems: 3\n")
    found = miscounted(recipe(str(file), name="own"), [score(2, benchmark="own")])
    assert "own: scored on 2 problems, and published with 3" in found[0]
    assert miscounted(recipe({"source": "gsm8k.jsonl"}), [score(1318)])
