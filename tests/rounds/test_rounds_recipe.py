"""The recipe's `rounds:`: what rises, and what it cannot be combined with."""

from typing import Any

import pytest

from cuvee.errors import RecipeError
from cuvee.recipe import Recipe, Rounds, parse_recipe

ANN = {"name": "ann", "url": "http://localhost/v1", "model": "m"}
PRICES = {"usd_per_mtok": {"input": 1, "output": 2}}


def a_recipe(rounds: dict[str, Any] | None, *teachers: dict[str, Any], **domain: Any) -> Recipe:
    source = {"source": "generator:arithmetic", "count": 6}
    name = domain.pop("name", "math")
    values: dict[str, Any] = {
        "name": "test",
        "base": "random:two-layer",
        "domains": {name: {"problems": [source], "verifier": "math"} | domain},
        "teachers": list(teachers) or [ANN],
    }
    return parse_recipe(values | ({} if rounds is None else {"rounds": rounds}), where="test")


def test_the_last_of_the_rising_numbers_stands_for_the_rest() -> None:
    rounds = Rounds(most=5, samples=[2, 8], temperature=[0.8])
    assert [rounds.samples_in(number, 3) for number in range(1, 6)] == [3, 2, 8, 8, 8]
    assert [rounds.first_sample(number, 3) for number in range(1, 6)] == [0, 3, 5, 13, 21]
    assert [rounds.temperature_in(number, 0.6) for number in (1, 2, 5)] == [0.6, 0.8, 0.8]
    plain = Rounds()
    assert (plain.samples_in(2, 3), plain.temperature_in(2, 0.6)) == (3, 0.6)


def test_without_rounds_the_recipe_is_written_as_before() -> None:
    assert "rounds" not in a_recipe(None).model_dump(mode="json")


@pytest.mark.parametrize(
    ("rounds", "why"),
    [
        ({"samples": [2, 0]}, "each at least 1"),
        ({"temperature": [0.0]}, "each above 0"),
        ({"most": 2, "samples": [2, 4]}, r"2 values.*at most 1 rounds"),
        ({"most": 2, "temperature": [0.7, 0.9]}, r"2 values.*at most 1 rounds"),
        ({"most": 1}, "rounds.most"),
        ({"usd_per_example": 1}, r"needs the price .*\['ann'\]"),
    ],
)
def test_it_is_refused_by_name(rounds: dict[str, Any], why: str) -> None:
    with pytest.raises(RecipeError, match=why):
        a_recipe(rounds)


@pytest.mark.parametrize(
    ("select", "why"),
    [
        ({"agreement": 0.75}, "agrees by chance"),
        ({"pass_rate": [0.2, 1]}, "when the asking stopped"),
        ({"rubric_min": 3}, "when the rounds are over"),
    ],
)
def test_filters_that_depend_on_when_asking_stopped_are_refused(
    select: dict[str, Any], why: str
) -> None:
    rubric = {"rubric": {"teacher": "ann"}} if "rubric_min" in select else {}
    a_recipe(None, select=select, **rubric)
    with pytest.raises(RecipeError, match=rf"domains\.math\.select\.{next(iter(select))}.*{why}"):
        a_recipe({}, select=select, **rubric)


def test_a_teacher_that_would_say_the_same_again_is_refused() -> None:
    cold = ANN | {"sampling": {"temperature": 0}}
    with pytest.raises(RecipeError, match=r"\['ann'\] would say the same again"):
        a_recipe({"samples": [8]}, cold)
    a_recipe({"temperature": [0.6]}, cold)


def test_a_limit_on_cost_needs_somebody_who_costs() -> None:
    a_recipe({"usd_per_example": 1}, ANN | PRICES)
    local = {"name": "bo", "scripted": {}}
    with pytest.raises(RecipeError, match="no teacher has a price"):
        a_recipe({"usd_per_example": 1}, local)
    a_recipe({"usd_per_example": 1}, ANN | PRICES, local)


def test_somebody_must_be_there_to_be_asked_again() -> None:
    source = {"source": "generator:arithmetic", "count": 6, "traces": "r1"}
    with pytest.raises(RecipeError, match="nobody can be asked again"):
        a_recipe({}, {"name": "r1", "published": True}, problems=[source])


def test_no_domain_takes_the_name_of_their_folder() -> None:
    with pytest.raises(RecipeError, match="'asked'"):
        a_recipe({}, name="asked")
