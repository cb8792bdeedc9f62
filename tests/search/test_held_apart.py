"""The problems merges are tried on: none that was trained on, none of a benchmark."""

import dataclasses

import pytest

from cuvee.errors import DataError, RecipeError
from cuvee.records import Example, Problem, read_rows, write_rows
from cuvee.search.held_apart import MINIMUM, hold_apart, refuse_benchmarks

from .conftest import DOMAINS, EXAMPLES, PROBLEMS, MakeRun, example, problem


def test_no_problem_that_an_example_of_any_domain_was_chosen_from_is_asked(
    make_run: MakeRun,
) -> None:
    run = make_run(models=False)
    shared = read_rows(run.problems("math"), Problem)[-1]
    algebra = read_rows(run.examples("algebra"), Example)
    write_rows(run.examples("algebra"), [*algebra, example(shared)], Example)
    found = {held.domain: held for held in hold_apart(run, wanted=5)}
    trained = {row.problem_id for d in DOMAINS for row in read_rows(run.examples(d), Example)}
    for held in found.values():
        assert len(held.problems) == 5
        assert not trained & {p.id for p in held.problems}
    assert found["algebra"].remaining == PROBLEMS - EXAMPLES
    assert found["math"].remaining == PROBLEMS - EXAMPLES - 1


def test_fewer_problems_are_a_part_of_more_and_another_seed_draws_others(
    make_run: MakeRun,
) -> None:
    run = make_run(models=False)
    three, five = (hold_apart(run, wanted=n)[0].problems for n in (3, 5))
    assert three == five[:3]
    other = dataclasses.replace(run, recipe=run.recipe.model_copy(update={"seed": 43}))
    assert hold_apart(other, wanted=5)[0].problems != five


def test_too_few_are_refused_with_their_number_unless_fewer_are_asked_for(
    make_run: MakeRun,
) -> None:
    run = make_run(models=False)
    with pytest.raises(RecipeError, match=f"6 of the 6 problems.*least {MINIMUM}.*--problems 6"):
        hold_apart(run, wanted=None)
    with pytest.raises(RecipeError, match="At least 7 are needed"):
        hold_apart(run, wanted=7)
    assert [len(held.problems) for held in hold_apart(run, wanted=6)] == [6, 6]


def test_a_problem_that_cannot_be_checked_is_left_out_and_counted(make_run: MakeRun) -> None:
    run = make_run(models=False)
    rows = read_rows(run.problems("math"), Problem)
    write_rows(run.problems("math"), [*rows, problem("Who is 7?", None)], Problem)
    math = hold_apart(run, wanted=6)[0]
    assert math.without_gold == 1
    assert "1 cannot be checked" in math.told


@pytest.mark.parametrize("verifier", ["judge", "none"])
def test_a_domain_without_scores_is_left_out_and_all_of_them_refused(
    make_run: MakeRun, verifier: str
) -> None:
    run = make_run(models=False)

    def unscored(*domains: str) -> dict[str, object]:
        changed = {d: run.recipe.domains[d].model_copy(update={"verifier": verifier})
                   for d in domains}  # fmt: skip
        return {"domains": run.recipe.domains | changed}

    one = dataclasses.replace(run, recipe=run.recipe.model_copy(update=unscored("math")))
    assert [held.domain for held in hold_apart(one, wanted=5)] == ["algebra"]
    every = dataclasses.replace(run, recipe=run.recipe.model_copy(update=unscored(*DOMAINS)))
    with pytest.raises(RecipeError, match="no domain can be scored"):
        hold_apart(every, wanted=5)


def test_a_benchmarks_problem_is_refused_by_its_id_and_by_its_text(make_run: MakeRun) -> None:
    text = "A farmer has 731 cats and sells 52 of them to each of 9 towns. How many are left?"
    bench = problem(text, "263")
    other_gold = problem(text.upper(), "264")
    assert other_gold.id != bench.id
    with pytest.raises(DataError, match="is a problem of benchmark held"):
        refuse_benchmarks([bench], {"held": [bench]})
    with pytest.raises(DataError, match="in_benchmark: held"):
        refuse_benchmarks([other_gold], {"held": [bench]})
    refuse_benchmarks([problem("What is 2 + 2?", "4")], {"held": [bench]})

    run = make_run(models=False)
    rows = read_rows(run.problems("math"), Problem)
    write_rows(run.benchmark("held"), [bench], Problem)
    write_rows(run.problems("math"), [*rows[: EXAMPLES + 2], other_gold], Problem)
    with pytest.raises(DataError, match="Merges are never tried on benchmarks"):
        hold_apart(run, wanted=3)


def test_a_benchmark_that_the_recipe_no_longer_names_is_kept_out_too(make_run: MakeRun) -> None:
    run = make_run(models=False)
    asked = hold_apart(run, wanted=5)[0].problems[0]
    write_rows(run.benchmark("former"), [asked], Problem)
    with pytest.raises(DataError, match="benchmark former"):
        hold_apart(run, wanted=5)


def test_a_benchmark_that_was_not_loaded_is_an_error(make_run: MakeRun) -> None:
    run = make_run(models=False)
    run.benchmark("held").unlink()
    with pytest.raises(DataError, match="missing; `cuvee problems` writes it"):
        hold_apart(run, wanted=5)
