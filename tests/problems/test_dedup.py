"""Exact and near duplicates: what is dropped, what stays, and against all pairs compared."""

import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.problems import arithmetic, dedup, functions
from cuvee.problems.signatures import DEEPEST
from cuvee.problems.word_kernels import Hashes
from cuvee.problems.wording import numbers, read_wordings, tokens
from cuvee.records import Problem, problem_id

LONG = (
    "A farmer has 12 fields, and on each of them he grows one of three crops, so that no two "
    "fields that touch each other carry the same crop; the fields lie in a ring around his "
    "house, which stands on a small hill, and a brook runs between the first and the last of "
    "them. In spring he walks once around the ring and notes the crop of each field in a "
    "book, beginning with the field nearest to the gate. How many different lists of crops "
    "could he possibly write down in his book by the time he comes back to the gate?"
)


def problem(question: str, source: str = "file.jsonl", gold: str = "1") -> Problem:
    identity = problem_id(question, gold, None)
    return Problem(identity, "math", source, question, question, "math", gold, None, "{}")


def reasons(questions: list[str]) -> list[str | None]:
    found = dedup.find_repeats([problem(q) for q in questions])
    return [repeat.reason if repeat else None for repeat in found]


def test_case_space_and_punctuation_make_no_difference() -> None:
    first = "Find $x$ such that x + 2 = 5."
    assert reasons([first, "find x such  that x+2 = 5", "FIND $X$ SUCH THAT $X + 2 = 5$!"]) == [
        None,
        "exact_duplicate",
        None,  # `!` may be a factorial and is kept
    ]


def test_one_other_sign_or_number_is_another_problem() -> None:
    assert reasons(["What is 17 + 5 - 9?", "What is 17 - 5 + 9?", "What is 17 + 5 - 8?"]) == [
        None,
        None,
        None,
    ]


def test_a_long_text_with_a_small_change_is_a_near_duplicate() -> None:
    assert len(tokens(LONG)) >= 99
    assert reasons([LONG, LONG.replace("small", "little")]) == [None, "near_duplicate"]


def test_a_long_text_with_another_number_is_not() -> None:
    assert reasons([LONG, LONG.replace("12", "13")]) == [None, None]


def test_short_texts_are_compared_exactly_alone() -> None:
    one = "How many positive perfect squares less than 2023 are multiples of 5 or of 7?"
    assert reasons([one, one.replace("perfect ", "")]) == [None, None]


def test_the_detail_names_what_is_repeated() -> None:
    first = problem(LONG)
    _, repeat = list(dedup.find_repeats([first, problem(LONG.upper(), "other.csv")]))
    assert repeat is not None
    assert first.id in repeat.detail
    assert "file.jsonl" in repeat.detail


@pytest.mark.parametrize("args", [{}, {"steps": [4, 6]}])
def test_no_generated_function_is_lost(args: dict[str, object]) -> None:
    items = functions.generate(2000 if not args else 500, seed=0, args=args)
    assert set(reasons([item.question for item in items])) == {None}


def test_no_generated_sum_is_lost() -> None:
    items = arithmetic.generate(1500, seed=0, args={"terms": [2, 40], "largest": 20})
    assert set(reasons([item.question for item in items])) == {None}


def test_time_is_linear() -> None:
    """A family of templates: long texts that share all but their numbers."""
    texts = [LONG.replace("12", str(n)) for n in range(5000)]
    reasons(texts[:2])  # compiles
    begin = time.process_time()
    assert set(reasons(texts)) == {None}
    assert time.process_time() - begin < 5  # all pairs would be 12 million comparisons


def family(count: int, *, changed: int) -> list[str]:
    """Return texts of 208 words that share all but some of them."""
    words = [f"w{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    rng = random.Random(1)
    texts = []
    for _ in range(count):
        text = [word for word in words for _ in range(8)]
        for at in rng.sample(range(len(text)), changed):
            text[at] = rng.choice(words) + rng.choice(words)
        texts.append(" ".join(text))
    return texts


def test_time_is_linear_where_all_are_nearly_near(capsys: pytest.CaptureFixture[str]) -> None:
    """A family whose texts are too unlike to be dropped and alike enough to be compared."""
    texts = family(2000, changed=2)
    found = reasons(texts[:10])
    begin = time.process_time()
    found = reasons(texts)
    assert time.process_time() - begin < 10  # all pairs would be 2 million comparisons
    assert found.count(None) > 500
    assert "more others than were compared" in capsys.readouterr().err


def test_an_exact_copy_is_found_however_many_are_alike() -> None:
    """More texts share a bucket than are looked at; copies are found all the same."""
    texts = family(3 * DEEPEST, changed=2)
    found = reasons([*texts, *texts])
    for first, copy in zip(found[: len(texts)], found[len(texts) :], strict=True):
        assert copy == (first or "exact_duplicate")


def test_what_is_kept_is_neither_texts_twice_nor_the_problems() -> None:
    first = problem(LONG)
    _, repeat = dedup.find_repeats([first, problem(LONG.replace("small", "little"), "other.csv")])
    assert repeat is not None
    assert repeat.of == dedup.Original(first.id, "file.jsonl")


def test_chinese_problems_are_compared_by_their_characters() -> None:
    text = (
        "小明和小红一起去市场买水果，苹果每斤5元，香蕉每斤3元，他们一共买了12斤水果，花了46元。"
        "回家的路上，他们把其中的一部分水果送给了邻居王奶奶，又把剩下的水果平均分给了家里的4个人。"
        "如果每个人分到2斤水果，请问他们送给王奶奶多少斤水果？他们一共买了多少斤苹果和多少斤香蕉？"
    )
    assert len(tokens(text)) > 91
    changed = text.replace("市场", "商场")
    assert reasons([text, text.replace("，", ","), changed]) == [
        None,
        "exact_duplicate",
        "near_duplicate",
    ]
    assert reasons([text, text.replace("46", "48")]) == [None, None]


def _hashed(left: str, right: str) -> tuple[Hashes, Hashes]:
    return read_wordings([left]).hashes, read_wordings([right]).hashes


def _shingles(words: Sequence[str]) -> set[tuple[str, ...]]:
    edge = [""] * 4
    padded = [*edge, *words, *edge]
    return {tuple(padded[at : at + 5]) for at in range(len(padded) - 4)}


def _by_all_pairs(questions: Sequence[str]) -> Iterator[tuple[str, float] | None]:
    """Yield what the docstring of `dedup` says, by comparing every pair."""
    seen: dict[tuple[str, ...], tuple[str, float]] = {}
    kept: list[list[str]] = []
    for question in questions:
        words = tokens(question)
        if tuple(words) in seen:
            yield seen[tuple(words)]
            continue
        mine = _shingles(words)
        near = 0.0
        for other in kept if len(words) >= dedup.SHORTEST else []:
            if numbers(other) == numbers(words):
                theirs = _shingles(other)
                near = max(near, len(mine & theirs) / len(mine | theirs))
        if near >= dedup.SIMILARITY:
            seen[tuple(words)] = ("near_duplicate", near)
            yield "near_duplicate", near
            continue
        seen[tuple(words)] = ("exact_duplicate", 1.0)
        if len(words) >= dedup.SHORTEST:
            kept.append(words)
        yield None


def _varied(count: int, seed: int) -> list[str]:
    """Return long and short texts, many of them earlier ones with up to four words changed."""
    rng = random.Random(seed)
    vocabulary = [*LONG.split(), "13", "+", "x", "求", "解"]
    texts: list[str] = []
    for _ in range(count):
        words = [rng.choice(vocabulary) for _ in range(rng.choice([8, 40, 120, 200]))]
        if texts and rng.random() < 0.7:
            words = rng.choice(texts).split(" ")
            for _ in range(rng.randrange(5)):
                words[rng.randrange(len(words))] = rng.choice(vocabulary)
        texts.append(" ".join(words))
    return texts


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_is_found_as_by_comparing_all_pairs(seed: int) -> None:
    texts = _varied(300, seed)
    expected = list(_by_all_pairs(texts))
    found = dedup.find_repeats([problem(text) for text in texts])
    said: list[Any] = [
        repeat and (repeat.reason, pytest.approx(repeat.similarity)) for repeat in found
    ]
    assert {pair[0] for pair in expected if pair} == {"exact_duplicate", "near_duplicate"}
    assert said == expected


TEXT = st.lists(st.sampled_from("a b c 1 2 + 求 x_1 Big".split()), max_size=40).map(" ".join)


def _kept(questions: Sequence[str]) -> list[str]:
    pairs = zip(questions, reasons(list(questions)), strict=True)
    return [question for question, reason in pairs if reason is None]


@given(st.lists(TEXT, max_size=12))
def test_what_stays_stays_in_order_and_repeats_nothing(questions: list[str]) -> None:
    kept = _kept(questions)
    places = [questions.index(question) for question in kept]
    assert places == sorted(set(places))
    assert _kept(kept) == kept


@given(st.lists(TEXT, min_size=1, max_size=12), st.data())
def test_an_exact_copy_is_always_found(questions: list[str], data: st.DataObject) -> None:
    copied = data.draw(st.sampled_from(questions))
    *_, last = reasons([*questions, copied.upper().replace(" ", "  ")])
    assert last is not None


@given(TEXT, TEXT)
def test_similarity_is_symmetric_and_one_of_equals(left: str, right: str) -> None:
    mine, other = _hashed(left, right)
    assert dedup.jaccard(mine, other) == dedup.jaccard(other, mine)
    assert dedup.jaccard(mine, mine) == 1.0
    words = _shingles(tokens(left)), _shingles(tokens(right))
    share = len(words[0] & words[1]) / len(words[0] | words[1])
    assert dedup.jaccard(mine, other) == pytest.approx(share)


def test_rows_are_read_in_batches_from_anything_that_yields_them() -> None:
    texts = [f"{LONG} {n}" for n in range(1500)]
    found = list(dedup.find_repeats(problem(text) for text in [*texts, *texts]))
    assert [repeat is None for repeat in found] == [True] * 1500 + [False] * 1500


def test_no_problems_have_no_repeats() -> None:
    assert list(dedup.find_repeats([])) == []
