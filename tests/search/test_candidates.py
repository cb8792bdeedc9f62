"""Which ways to merge are tried: the usual ones, a user's file, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.errors import RecipeError
from cuvee.merge.stage import merge_config
from cuvee.recipe import Recipe, parse_recipe
from cuvee.runfolder import Run
from cuvee.search.candidates import (
    candidate,
    candidates,
    expand,
    label_of,
    read_candidates,
    usual,
)


def recipe(*domains: str, **merge: Any) -> Recipe:
    domain = {"problems": [{"source": "generator:arithmetic", "count": 1}], "verifier": "math"}
    data = {
        "name": "blend",
        "base": "base",
        "domains": dict.fromkeys(domains, domain),
        "teachers": [{"name": "t", "scripted": {}}],
        "merge": merge,
    }
    return parse_recipe(data, where="test")


def written(folder: Path, text: str) -> Path:
    file = folder / "mine.yaml"
    file.write_text(text)
    return file


@pytest.mark.parametrize("domains", [("a",), ("a", "b"), ("a", "b", "c")])
def test_every_usual_way_is_one_that_cuvee_merges(domains: tuple[str, ...]) -> None:
    own = recipe(*domains)
    for section in usual(own):
        checked = candidate(own, section, where="usual")
        assert checked.section == section, "what is written is what was checked"
        merge_config(Run(Path("run"), checked.recipe), base=Path("base"))


def test_the_recipes_own_comes_first_and_nothing_twice() -> None:
    own = recipe("a", "b", method="ties", parameters={"weight": 1.0, "density": 0.5})
    sections, repeated = candidates(own, None)
    assert sections[0]["method"] == "ties"
    assert len({json.dumps(s, sort_keys=True) for s in sections}) == len(sections)
    # Its own is a usual one too, and two of the four fusions of two are the other two.
    assert repeated == 3
    assert len(sections) + repeated == len(usual(own)) + 1


def test_two_fused_the_other_way_round_with_the_other_anchor_are_one_candidate() -> None:
    one = candidate(recipe("a", "b"), {"order": ["a", "b"], "anchor": "later"}, where="x")
    same = candidate(recipe("a", "b"), {"order": ["b", "a"], "anchor": "earlier"}, where="x")
    other = candidate(recipe("a", "b"), {"order": ["b", "a"], "anchor": "later"}, where="x")
    assert one.name == same.name != other.name


def test_three_domains_are_fused_in_every_order_and_with_both_anchors() -> None:
    fusions = [s for s in usual(recipe("a", "b", "c")) if s["method"] == "arcee_fusion"]
    assert len({(*s["order"], s["anchor"]) for s in fusions}) == 12


def test_a_cap_leaves_one_of_each_method_before_a_second_of_any() -> None:
    methods = [s["method"] for s in usual(recipe("a", "b", "c"))]
    assert len(set(methods)) == len(set(methods[: len(set(methods))]))


def test_a_grid_is_multiplied_out_and_a_list_within_a_list_is_a_value(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
candidates:
  - {method: linear, specialists: {a: {weight: 2}, b: {weight: 1}}}
grid:
  - {method: [ties, dare_ties], parameters: {weight: 1, density: [0.2, [1, 0.5]]}}
  - {order: every, anchor: [later, earlier]}
""",
    )
    found = read_candidates(file, recipe("a", "b", out_dtype="float32"))
    assert [label_of(section) for section in found] == [
        "linear a.weight=2 b.weight=1",
        "ties density=0.2 weight=1",
        "ties density=[1, 0.5] weight=1",
        "dare_ties density=0.2 weight=1",
        "dare_ties density=[1, 0.5] weight=1",
        "arcee_fusion a > b, anchor later",
        "arcee_fusion a > b, anchor earlier",
        "arcee_fusion b > a, anchor later",
        "arcee_fusion b > a, anchor earlier",
    ]
    assert {section["out_dtype"] for section in found} == {"float32"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- 1", "a mapping with candidates or grid"),
        ("tries: []", "a mapping with candidates or grid"),
        ("{", "not YAML"),
        ("grid: {method: ties}", "grid: a list of `merge:` sections"),
        ("candidates: [{metod: ties}]", "candidate 1:\n  merge.metod: unknown key"),
        ("candidates: [{order: [a]}]", "merge.order must name each domain once"),
        ("grid: [{parameters: {t: [" + "1," * 1001 + "]}}]", "1001 candidates; at most 1000"),
    ],
)
def test_a_file_that_is_not_allowed_is_refused_by_name(
    tmp_path: Path, text: str, said: str
) -> None:
    file = written(tmp_path, text)
    with pytest.raises(RecipeError) as raised:
        candidates(recipe("a", "b"), file)
    assert said in str(raised.value)
    assert str(file) in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"gone.yaml: cannot read"):
        candidates(recipe("a", "b"), tmp_path / "gone.yaml")


VALUES = st.lists(st.integers(), min_size=1, max_size=3)


@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=6))  # more would be millions
def test_a_grid_has_as_many_choices_as_the_product_of_its_lists(grid: dict[str, Any]) -> None:
    choices = list(expand(grid))
    count = 1
    for values in grid.values():
        count *= len(values)
    assert len(choices) == count
    assert all(choice[key] in grid[key] for choice in choices for key in grid)
