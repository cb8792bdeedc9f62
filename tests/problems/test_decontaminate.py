"""Overlaps with benchmarks: each rule, its limits, real sets, and all pairs compared in Python."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.problems import decontaminate, functions
from cuvee.problems.decontaminate import Overlap, build_index, find_overlap, find_overlaps
from cuvee.problems.wording import count_words, numbers, skeleton, tokens
from cuvee.records import Problem, problem_id

LONG = (
    "A farmer has 12 fields, and on each of them he grows one of three crops, so that no two "
    "fields that touch each other carry the same crop; the fields lie in a ring around his "
    "house. How many different lists of crops could he write down in his book of 48 pages?"
)


def problem(question: str, source: str = "file.jsonl") -> Problem:
    identity = problem_id(question, "1", None)
    return Problem(identity, "math", source, question, question, "math", "1", None, "{}")


def overlap(question: str, held_out: str, **keys: str) -> Overlap | None:
    return find_overlap(problem(question, **keys), build_index({"b": [problem(held_out, **keys)]}))


def reason(question: str, held_out: str, **keys: str) -> str | None:
    found = overlap(question, held_out, **keys)
    return found.reason if found else None


def test_a_benchmark_question_is_found_whatever_its_typography() -> None:
    found = overlap("What is 17 + 5?", "what is  $17+5$")
    assert found is not None
    assert (found.reason, found.benchmark, found.share) == ("in_benchmark", "b", 1.0)


def test_a_benchmark_question_inside_a_longer_text_is_found_and_named() -> None:
    found = overlap(f"Solve this one with care. {LONG} Give 3 reasons.", LONG)
    assert found is not None
    assert (found.reason, found.share) == ("overlaps_benchmark", 1.0)
    assert found.problem.id in found.detail
    assert "A farmer has 12 fields" in found.detail


def test_a_short_question_inside_a_longer_text_is_found_whole() -> None:
    short = "How many positive perfect squares less than 2023 are multiples of 5?"
    story = "Two friends walk home from school in the rain and talk of what they learned today."
    assert reason(f"{story} {short} {story.replace('rain', 'snow')}", short) == "overlaps_benchmark"
    assert reason(f"{story} {short.replace('5', '7')}", short) is None


def test_a_part_of_a_benchmark_question_is_found() -> None:
    assert reason(LONG[:180], LONG) == "overlaps_benchmark"


def test_a_changed_word_and_renamed_variables_are_found() -> None:
    assert reason(LONG.replace("crop;", "plant;"), LONG) == "overlaps_benchmark"
    held_out = r"Positive reals $x$ and $y$ satisfy $y^3=x^2$ and $(y-x)^2=4y^2$. What is $x+y$?"
    renamed = "Positive reals a and b satisfy a^3 = b^2 and (a-b)^2 = 4a^{2}. What is b + a?"
    assert reason(renamed, held_out) == "overlaps_benchmark"


def test_typesetting_makes_no_difference() -> None:
    held_out = (
        r"If $\left(\dfrac{1}{2}\right)^{n} \leq \dfrac{3}{700}$, what is the least $n$ then?"
    )
    plain = r"If (\frac12)^n \le \frac 3{700} what is the least n then, if n is even?"
    assert reason(plain.replace("12", "1 2"), held_out) == "overlaps_benchmark"


def test_the_same_form_with_other_numbers_is_a_template() -> None:
    assert reason(LONG.replace("12", "15"), LONG) == "benchmark_template"
    assert reason(LONG.replace("12", "15").replace("48", "1,000"), LONG) == "benchmark_template"


def test_a_template_of_few_words_is_none() -> None:
    assert (
        reason(
            "Find the greatest common divisor of 12 and 18.",
            "Find the greatest common divisor of 39 and 91.",
        )
        is None
    )
    assert reason("What is 17 + 5?", "What is 18 + 6?") is None
    assert reason(r"Compute $\binom{8}{2}$.", r"Compute $\binom{31}{28}$.") is None


def test_the_same_formula_in_other_words_is_found_by_its_numbers() -> None:
    held_out = "Find the largest real part of (75+117i)z + (96+144i)/z for complex z with |z| = 4."
    reworded = "How large can Re(w) become, where w = (75+117i)z + (96+144i)/z and |z| = 4?"
    assert reason(reworded, held_out) == "rewords_benchmark"
    assert reason(reworded.replace("144", "145"), held_out) is None


def test_a_common_phrase_is_no_overlap() -> None:
    phrase = "Find the number of ordered pairs of positive integers such that"
    left = f"{phrase} their sum divides 2024 and each of them is a square below one thousand"
    right = f"{phrase} the triangle with these legs has a whole hypotenuse shorter than 2024"
    assert reason(left, right) is None


def test_the_same_numbers_alone_are_no_overlap() -> None:
    left = "Marcy spends 12 minutes petting her cat, 35 minutes combing it and 48 asleep. How long?"
    right = (
        "Pierre bought 12 kg of apples at 48 cents and 35 kg of plums. What is the price of all?"
    )
    assert reason(left, right) is None


def test_problems_of_one_generator_overlap_only_if_they_are_the_same() -> None:
    items = functions.generate(600, seed=0, args={})
    source = "generator:functions"
    index = build_index({"b": [problem(item.question, source) for item in items[:100]]})
    rest = [problem(item.question, source) for item in items]
    found = [overlap.reason if overlap else None for _, overlap in find_overlaps(rest, index)]
    assert found == ["in_benchmark"] * 100 + [None] * 500
    assert reason(LONG.replace("12", "15"), LONG, source="gym:farms") is None


def test_chinese_questions_are_compared_by_their_characters() -> None:
    held_out = (
        "小明和小红一起去市场买水果，苹果每斤5元，香蕉每斤3元，"
        "他们一共买了12斤，花了46元，各买了几斤？"
    )
    assert reason(held_out.replace("市场", "商店"), held_out) == "overlaps_benchmark"
    assert reason(held_out.replace("46", "50"), held_out) == "benchmark_template"
    assert reason("求方程的整数解。", held_out) is None
    assert reason("12和18的最大公约数是多少？", "39和91的最大公约数是多少？") is None


def test_the_result_does_not_depend_on_what_else_is_held_out() -> None:
    questions = [LONG.replace("farmer", w) for w in ("miller", "baker", "weaver")]
    index = build_index({"b": [problem(q) for q in questions]})
    found = [find_overlap(problem(q), index) for q in questions]
    assert [o.problem.question for o in found if o is not None] == questions


def test_of_the_same_question_in_two_benchmarks_the_first_is_told() -> None:
    index = build_index({"a": [problem(LONG)], "b": [problem(LONG)]})
    found = [
        find_overlap(problem(q), index) for q in (LONG, f"{LONG} Why?", LONG.replace("12", "9"))
    ]
    assert [(o.benchmark, o.reason) for o in found if o is not None] == [
        ("a", "in_benchmark"),
        ("a", "overlaps_benchmark"),
        ("a", "benchmark_template"),
    ]


def test_without_benchmarks_nothing_overlaps() -> None:
    nothing: list[dict[str, list[Problem]]] = [{}, {"b": []}, {"b": [problem("")]}]
    for benchmarks in nothing:
        assert find_overlap(problem(LONG), build_index(benchmarks)) is None
    assert list(find_overlaps([], build_index({"b": [problem(LONG)]}))) == []


class _Read(NamedTuple):
    """A question as the rules of the docstring read it."""

    words: list[str]
    grams: set[tuple[str, ...]]
    trigrams: set[tuple[str, ...]]
    numbers: Counter[str]
    long: int


@cache
def _read(question: str) -> _Read:
    words = tokens(question)
    bare = skeleton(words)
    grams, trigrams = ({tuple(bare[a : a + n]) for a in range(len(bare) - n + 1)} for n in (6, 3))
    return _Read(words, grams, trigrams, numbers(words), count_words(words))


def _rules(left: _Read, right: _Read) -> Iterator[tuple[int, float]]:
    """Yield the number of each rule that holds, as the docstring says them, and its share."""
    if left.words == right.words:
        yield 1, 1.0
    shared = len(left.grams & right.grams)
    small, large = sorted([len(left.grams), len(right.grams)])
    enough = shared >= max(1, small / 2) and (
        shared >= 12 or shared >= large / 2 or shared == small >= 6
    )
    if enough and (left.numbers <= right.numbers or right.numbers <= left.numbers):
        yield 2, shared / small
    digits = sum(len(number.replace(".", "")) for number in left.numbers)
    fewest = max(1, min(len(left.trigrams), len(right.trigrams)))
    share = len(left.trigrams & right.trigrams) / fewest
    if left.numbers == right.numbers and digits >= 4 and share * digits >= 2:
        yield 3, share
    if enough and shared / large >= 0.8 and min(left.long, right.long) >= 10:
        yield 4, shared / large


def _by_all_pairs(question: str, held_out: Sequence[str]) -> tuple[str, float] | None:
    found = [found for text in held_out for found in _rules(_read(question), _read(text))]
    if not found:
        return None
    rule, share = min(found, key=lambda pair: (pair[0], -pair[1]))
    return decontaminate.REASONS[rule - 1], share


def _varied(seed: int) -> tuple[list[str], list[str]]:
    """Return questions to hold out, and others made of them by changes of words and numbers."""
    rng = random.Random(seed)
    vocabulary = [*LONG.split(), "13", "+", "x", "\\dfrac{1}{2}", "2024", "求", "y"]
    held = [" ".join(rng.choices(vocabulary, k=rng.choice([5, 9, 20, 60]))) for _ in range(60)]
    made = []
    for _ in range(200):
        words = rng.choice(held).split(" ")
        for _ in range(rng.randrange(6)):
            words[rng.randrange(len(words))] = rng.choice(vocabulary)
        if rng.random() < 0.3:
            words += rng.choices(vocabulary, k=30)
        if rng.random() < 0.3:
            words = [str(rng.randrange(100)) if word.isdigit() else word for word in words]
        made.append(" ".join(words))
    return held, made


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_is_found_as_by_comparing_all_pairs(seed: int) -> None:
    held, made = _varied(seed)
    index = build_index({"b": [problem(text) for text in held]})
    found = find_overlaps([problem(text) for text in made], index)
    said: list[Any] = [o and (o.reason, pytest.approx(o.share)) for _, o in found]
    expected = [_by_all_pairs(text, held) for text in made]
    assert {pair[0] for pair in expected if pair} == set(decontaminate.REASONS)
    assert said == expected


TEXT = st.lists(st.sampled_from("a b cat dog 1 22 + 求 x_1 \\frac".split()), max_size=30).map(
    " ".join
)


@given(TEXT, TEXT)
def test_overlap_is_symmetric(left: str, right: str) -> None:
    there, back = overlap(left, right), overlap(right, left)
    assert (there and (there.reason, there.share)) == (back and (back.reason, back.share))


@given(st.lists(TEXT, min_size=1, max_size=6), st.data())
def test_an_exact_copy_is_always_found(held_out: list[str], data: st.DataObject) -> None:
    index = build_index({"b": [problem(text) for text in held_out]})
    copied = data.draw(st.sampled_from(held_out))
    found = find_overlap(problem(copied.upper()), index)
    assert found is not None
    assert found.reason == "in_benchmark"


Published = Callable[[str, str], list[str]]


@pytest.fixture
def published(data: Path) -> Published:
    """Return what reads a column of a published file."""

    def read(name: str, column: str) -> list[str]:
        text = (data / name).read_text("utf-8")
        rows = json.loads(text) if name.endswith(".json") else map(json.loads, text.splitlines())
        return [row[column] for row in rows]

    return read


def _reasons(questions: Sequence[str], held_out: Sequence[str]) -> Mapping[str, int]:
    index = build_index({"b": [problem(text) for text in held_out]})
    found = find_overlaps([problem(text) for text in questions], index)
    said = [overlap.reason for _, overlap in found if overlap is not None]
    return {reason: said.count(reason) for reason in decontaminate.REASONS if reason in said}


def test_published_training_sets_against_published_benchmarks(published: Published) -> None:
    """As measured; what was found was looked at."""
    gsm8k = published("gsm8k/train.jsonl", "question"), published("gsm8k/test.jsonl", "question")
    assert _reasons(*gsm8k) == {"benchmark_template": 2}
    train = published("math_train_7474/math_train.json", "problem")
    assert _reasons(train, published("math500/test.jsonl", "problem")) == {
        "overlaps_benchmark": 28,
        "rewords_benchmark": 2,
        "benchmark_template": 19,
    }


def test_copies_of_a_benchmark_in_other_typography_are_found(published: Published) -> None:
    aime24 = published("aime24/test.jsonl", "problem")
    copies = [problem(text) for text in published("aime24/aime24_qwq_prompts.jsonl", "prompt")]
    index = build_index({"aime24": [problem(text) for text in aime24]})
    found = [overlap for _, overlap in find_overlaps(copies, index)]
    assert None not in found
    assert all(a.problem != b.problem for a, b in pairwise([o for o in found if o]))
    aime25 = published("aime25/aime25_nemo.jsonl", "problem")
    copies25 = published("aime25/aime25_qwq_prompts.jsonl", "prompt")
    assert sum(_reasons(copies25, aime25).values()) == len(copies25) == 30


def test_of_ten_published_variations_nine_are_found(published: Published) -> None:
    """The counts that the docstring states."""
    held_out = [
        *published("amc23/test.jsonl", "question"),
        *published("aime24/test.jsonl", "problem"),
        *published("aime25/aime25_nemo.jsonl", "problem"),
        *published("math500/test.jsonl", "problem"),
    ]
    variations = published("outputs_nemo_math/contamination_example.jsonl", "problem")
    assert len(variations) == 10
    assert _reasons(variations, held_out) == {
        "in_benchmark": 6,
        "overlaps_benchmark": 2,
        "rewords_benchmark": 1,
    }
    assert _reasons(["What is $6(2i+1)-3i$."], held_out) == {}
