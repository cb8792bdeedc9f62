"""The choice among fit traces: complete, deterministic, balanced."""

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.recipe import Select
from cuvee.select.choose import Candidate, Choice, choose, turns

SOURCES = {"p": "one", "q": "one", "r": "two", "s": "three"}
BANDS = {"p": "easy", "q": "hard", "r": "easy", "s": "easy"}


def a_candidate(
    problem: str, teacher: str, tokens: int, sample: int = 0, text: str | None = None
) -> Candidate:
    name = f"{problem}/{teacher}/{sample}"
    return Candidate(name, problem, teacher, tokens, text=name if text is None else text)


def choose_from(candidates: list[Candidate], *, seed: int = 0, **keys: Any) -> Choice:
    select = Select.model_validate(keys)
    grouped = {"source": SOURCES, "difficulty": BANDS}
    groups = {
        c.problem_id: tuple(grouped[over].get(c.problem_id, "?") for over in select.balance)
        for c in candidates
    }
    return choose(candidates, select=select, groups=groups, seed=seed)


def names(candidates: list[Candidate]) -> list[str]:
    return sorted(candidate.id for candidate in candidates)


CANDIDATES = st.lists(
    st.builds(
        a_candidate,
        st.sampled_from("pqrs"),
        st.sampled_from(["alice", "bob", "carol"]),
        st.integers(1, 5),
        st.integers(0, 3),
        st.none() | st.sampled_from("xy"),
    ),
    unique_by=lambda candidate: candidate.id,
)
POLICY = st.sampled_from(
    [{"policy": "shortest"}, {"policy": "round_robin"}, {"policy": "closest", "length": 3}]
)
BALANCE = st.sampled_from([(), ("source",), ("difficulty",), ("source", "difficulty")])
ANYHOW = st.builds(
    lambda policy, per_problem, target, seed, balance: {
        **policy,
        "per_problem": per_problem,
        "seed": seed,
        "target": target,
        "balance": balance if target else (),
    },
    POLICY,
    st.integers(1, 3),
    st.none() | st.integers(1, 8),
    st.integers(0, 3),
    BALANCE,
)


@given(CANDIDATES, ANYHOW)
def test_every_candidate_ends_in_exactly_one_list_within_the_limits(
    candidates: list[Candidate], how: dict[str, Any]
) -> None:
    choice = choose_from(candidates, **how)
    ended = choice.chosen + choice.over_target + choice.not_chosen + choice.same_text
    assert names(ended) == names(candidates)
    each = Counter(candidate.problem_id for candidate in choice.chosen + choice.over_target)
    texts = {(candidate.problem_id, candidate.text) for candidate in candidates}
    there = Counter(problem for problem, _ in texts)
    assert each == {p: min(how["per_problem"], count) for p, count in there.items()}
    enough = sum(each.values())
    assert len(choice.chosen) == min(how["target"] or enough, enough), "met exactly"


@given(CANDIDATES, ANYHOW, st.integers())
def test_the_order_of_the_candidates_changes_nothing(
    candidates: list[Candidate], how: dict[str, Any], shuffle: int
) -> None:
    shuffled = random.Random(shuffle).sample(candidates, len(candidates))
    assert choose_from(shuffled, **how).chosen == choose_from(candidates, **how).chosen


@given(CANDIDATES, ANYHOW, st.integers(1, 8))
def test_a_lower_target_takes_the_beginning_of_the_same_choice(
    candidates: list[Candidate], how: dict[str, Any], target: int
) -> None:
    everything = choose_from(candidates, **(how | {"target": 1000}))
    capped = choose_from(candidates, **(how | {"target": target}))
    assert capped.chosen == everything.chosen[:target]
    assert capped.over_target == everything.chosen[target:]


def test_shortest_takes_the_shortest_of_each_problem() -> None:
    candidates = [
        a_candidate("p", "alice", 9),
        a_candidate("p", "bob", 4),
        a_candidate("p", "bob", 7, sample=1),
        a_candidate("q", "alice", 2),
    ]
    one = choose_from(candidates, policy="shortest")
    assert names(one.chosen) == ["p/bob/0", "q/alice/0"]
    two = choose_from(candidates, policy="shortest", per_problem=2)
    assert names(two.chosen) == ["p/bob/0", "p/bob/1", "q/alice/0"]
    assert names(two.not_chosen) == ["p/alice/0"]


def test_closest_takes_the_nearest_length_and_the_shorter_of_two_as_near() -> None:
    candidates = [a_candidate("p", "alice", tokens, sample=tokens) for tokens in (1, 4, 8, 20)]
    assert names(choose_from(candidates, policy="closest", length=9).chosen) == ["p/alice/8"]
    assert names(choose_from(candidates, policy="closest", length=6).chosen) == ["p/alice/4"]
    assert names(choose_from(candidates, policy="closest", length=99).chosen) == ["p/alice/20"]


def test_round_robin_balances_teachers_where_the_shortest_would_be_one_alone() -> None:
    candidates = [
        a_candidate(f"p{number}", teacher, tokens, sample)
        for number in range(30)
        for teacher, tokens in (("terse", 1), ("plain", 5), ("verbose", 9))
        for sample in range(2)
    ]
    balanced = choose_from(candidates, policy="round_robin")
    each = {"terse": 10, "plain": 10, "verbose": 10}
    assert Counter(c.teacher for c in balanced.chosen) == each
    shortest = choose_from(candidates, policy="shortest")
    assert Counter(c.teacher for c in shortest.chosen) == {"terse": 30}


def test_round_robin_takes_the_shortest_of_the_teacher_whose_turn_it_is() -> None:
    candidates = [a_candidate("p", "alice", tokens, sample=tokens) for tokens in (7, 3, 5)]
    assert names(choose_from(candidates, policy="round_robin").chosen) == ["p/alice/3"]


def test_round_robin_gives_a_rare_teacher_its_turn_whenever_it_can() -> None:
    candidates = [a_candidate(f"p{number}", "common", 1) for number in range(20)]
    candidates += [a_candidate(f"p{number}", "rare", 9) for number in range(5)]
    choice = choose_from(candidates, policy="round_robin")
    assert Counter(c.teacher for c in choice.chosen)["rare"] >= 4


@pytest.mark.parametrize("policy", ["shortest", "round_robin"])
def test_a_target_covers_every_problem_once_before_any_twice(policy: str) -> None:
    candidates = [
        a_candidate(f"p{number}", "alice", 1, sample) for number in range(10) for sample in range(3)
    ]
    choice = choose_from(candidates, policy=policy, per_problem=3, target=12)
    each = Counter(candidate.problem_id for candidate in choice.chosen)
    assert sorted(each.values()) == [1] * 8 + [2] * 2
    assert len(choice.over_target) == 18


Group = tuple[str, ...]


def filled(places: dict[Group, int], target: int) -> dict[Group, int]:
    """Return how many places each group gets of a target; each problem has one place."""
    problems = {f"{group}{n}": group for group, count in places.items() for n in range(count)}
    order = list(turns(dict.fromkeys(problems, 1), problems, seed=0))
    return dict(Counter(problems[problem] for problem in order[:target]))


def test_balance_over_sources_worked_by_hand() -> None:
    # 12 places over 10, 2 and 5 problems: the small source gives all it has, and the other
    # two share the 10 that are left.
    there: dict[Group, int] = {("big",): 10, ("small",): 2, ("middle",): 5}
    assert filled(there, 12) == {("big",): 5, ("small",): 2, ("middle",): 5}
    assert filled(there, 16) == {("big",): 9, ("small",): 2, ("middle",): 5}
    assert sorted(filled(there, 4).values()) == [1, 1, 2]


def test_balance_over_difficulty_within_sources_worked_by_hand() -> None:
    # 10 places: 5 a source. In the first 1 hard one is all there is; in the second 2 + 3.
    there: dict[Group, int] = {
        ("a", "easy"): 9,
        ("a", "hard"): 1,
        ("b", "easy"): 9,
        ("b", "hard"): 9,
    }
    found = filled(there, 10)
    assert (found["a", "easy"], found["a", "hard"]) == (4, 1)
    assert sorted((found["b", "easy"], found["b", "hard"])) == [2, 3]


@given(
    st.dictionaries(
        st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), st.integers(1, 9), min_size=1
    ),
    st.integers(1, 60),
)
def test_no_group_has_two_more_than_another_that_had_something_left(
    there: dict[tuple[str, ...], int], target: int
) -> None:
    got = filled(there, target)
    assert sum(got.values()) == min(target, sum(there.values()))
    for level in (1, 2):
        count: Counter[tuple[str, ...]] = Counter()
        most: Counter[tuple[str, ...]] = Counter()
        for group, places in there.items():
            count[group[:level]] += got.get(group, 0)
            most[group[:level]] += places
        for group in count:
            beside = [other for other in count if other[:-1] == group[:-1]]
            if count[group] < most[group]:
                assert max(count[other] for other in beside) <= count[group] + 1


def test_a_text_that_two_samples_share_is_chosen_once() -> None:
    twins = [Candidate(str(n), "p", "alice", 5, text="same") for n in range(3)]
    other = a_candidate("p", "bob", 9)
    choice = choose_from([*twins, other], policy="shortest", per_problem=4)
    assert len(choice.chosen) == 2
    assert other in choice.chosen
    assert len(choice.same_text) == 2


def test_of_a_text_that_two_teachers_share_the_teacher_whose_turn_it_is_gets_it() -> None:
    candidates = [
        Candidate(f"{number}/{teacher}", f"p{number}", teacher, 5, text="same")
        for number in range(20)
        for teacher in ("alice", "bob")
    ]
    choice = choose_from(candidates, policy="round_robin", per_problem=2)
    assert Counter(c.teacher for c in choice.chosen) == {"alice": 10, "bob": 10}
    assert len(choice.same_text) == 20


def test_another_seed_takes_other_problems() -> None:
    candidates = [a_candidate(f"p{number}", "alice", 1) for number in range(100)]

    def chosen(seed: int) -> list[str]:
        return names(choose_from(candidates, target=10, seed=seed).chosen)

    assert chosen(1) == chosen(1)
    assert chosen(1) != chosen(2)


def test_nothing_gives_nothing() -> None:
    assert choose_from([], target=5) == Choice([], [], [], [])
