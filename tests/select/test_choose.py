"""The choice among fit traces: complete, deterministic, balanced."""

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.select.choose import Candidate, choose

from .conftest import a_trace


def a_candidate(problem: str, teacher: str, tokens: int, sample: int = 0) -> Candidate:
    name = f"{problem}/{teacher}/{sample}"
    return Candidate(a_trace(id=name, problem_id=problem, model=teacher, sample=sample), tokens)


def names(candidates: list[Candidate]) -> list[str]:
    return sorted(candidate.trace.id for candidate in candidates)


CANDIDATES = st.lists(
    st.builds(
        a_candidate,
        st.sampled_from("pqrs"),
        st.sampled_from(["alice", "bob", "carol"]),
        st.integers(1, 5),
        st.integers(0, 3),
    ),
    unique_by=lambda candidate: candidate.trace.id,
)
ANYHOW = {
    "policy": st.sampled_from(["shortest", "round_robin"]),
    "per_problem": st.integers(1, 3),
    "target": st.none() | st.integers(1, 6),
    "seed": st.integers(0, 3),
}


@given(CANDIDATES, st.fixed_dictionaries(ANYHOW))
def test_every_candidate_ends_in_exactly_one_list_within_the_limits(
    candidates: list[Candidate], how: dict[str, Any]
) -> None:
    choice = choose(candidates, **how)
    ended = choice.chosen + choice.over_target + choice.not_chosen
    assert names(ended) == names(candidates)
    assert len(choice.chosen) <= (how["target"] or len(candidates))
    each = Counter(candidate.trace.problem_id for candidate in choice.chosen)
    assert all(count <= how["per_problem"] for count in each.values())
    if how["target"] is None:
        assert choice.over_target == []


@given(CANDIDATES, st.fixed_dictionaries(ANYHOW), st.integers())
def test_the_order_of_the_candidates_changes_nothing(
    candidates: list[Candidate], how: dict[str, Any], shuffle: int
) -> None:
    shuffled = random.Random(shuffle).sample(candidates, len(candidates))
    assert choose(shuffled, **how).chosen == choose(candidates, **how).chosen


@given(CANDIDATES, st.fixed_dictionaries(ANYHOW))
def test_a_lower_target_takes_the_beginning_of_the_same_choice(
    candidates: list[Candidate], how: dict[str, Any]
) -> None:
    everything = choose(candidates, **(how | {"target": None}))
    capped = choose(candidates, **(how | {"target": 2}))
    assert capped.chosen == everything.chosen[:2]
    assert capped.over_target == everything.chosen[2:]


def test_shortest_takes_the_shortest_of_each_problem() -> None:
    candidates = [
        a_candidate("p", "alice", 9),
        a_candidate("p", "bob", 4),
        a_candidate("p", "bob", 7, sample=1),
        a_candidate("q", "alice", 2),
    ]
    one = choose(candidates, policy="shortest", per_problem=1, target=None, seed=0)
    assert names(one.chosen) == ["p/bob/0", "q/alice/0"]
    two = choose(candidates, policy="shortest", per_problem=2, target=None, seed=0)
    assert names(two.chosen) == ["p/bob/0", "p/bob/1", "q/alice/0"]
    assert names(two.not_chosen) == ["p/alice/0"]


def test_round_robin_balances_teachers_where_the_shortest_would_be_one_alone() -> None:
    problems = [f"p{number}" for number in range(30)]
    candidates = [
        a_candidate(problem, teacher, tokens, sample)
        for problem in problems
        for teacher, tokens in (("terse", 1), ("plain", 5), ("verbose", 9))
        for sample in range(2)
    ]
    balanced = choose(candidates, policy="round_robin", per_problem=1, target=None, seed=0)
    assert Counter(c.trace.model for c in balanced.chosen) == {
        "terse": 10,
        "plain": 10,
        "verbose": 10,
    }
    shortest = choose(candidates, policy="shortest", per_problem=1, target=None, seed=0)
    assert Counter(c.trace.model for c in shortest.chosen) == {"terse": 30}


def test_round_robin_takes_the_shortest_of_the_teacher_whose_turn_it_is() -> None:
    candidates = [a_candidate("p", "alice", tokens, sample=tokens) for tokens in (7, 3, 5)]
    choice = choose(candidates, policy="round_robin", per_problem=1, target=None, seed=0)
    assert names(choice.chosen) == ["p/alice/3"]


def test_round_robin_gives_a_rare_teacher_its_turn_whenever_it_can() -> None:
    candidates = [a_candidate(f"p{number}", "common", 1) for number in range(20)]
    candidates += [a_candidate(f"p{number}", "rare", 9) for number in range(5)]
    choice = choose(candidates, policy="round_robin", per_problem=1, target=None, seed=0)
    assert Counter(c.trace.model for c in choice.chosen)["rare"] >= 4


@pytest.mark.parametrize("policy", ["shortest", "round_robin"])
def test_a_target_covers_every_problem_once_before_any_twice(policy: Any) -> None:
    candidates = [
        a_candidate(f"p{number}", "alice", 1, sample) for number in range(10) for sample in range(3)
    ]
    choice = choose(candidates, policy=policy, per_problem=3, target=12, seed=0)
    each = Counter(candidate.trace.problem_id for candidate in choice.chosen)
    assert sorted(each.values()) == [1] * 8 + [2] * 2
    assert len(choice.over_target) == 18


def test_another_seed_takes_other_problems() -> None:
    candidates = [a_candidate(f"p{number}", "alice", 1) for number in range(100)]

    def chosen(seed: int) -> list[str]:
        return names(
            choose(candidates, policy="shortest", per_problem=1, target=10, seed=seed).chosen
        )

    assert chosen(1) == chosen(1)
    assert chosen(1) != chosen(2)


def test_nothing_gives_nothing() -> None:
    choice = choose([], policy="shortest", per_problem=1, target=5, seed=0)
    assert (choice.chosen, choice.over_target, choice.not_chosen) == ([], [], [])
