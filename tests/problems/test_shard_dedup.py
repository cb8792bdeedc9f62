"""Duplicates found over shards are those found in one process, however the work is divided."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.problems import dedup, shard_dedup
from cuvee.problems.dedup import Kept
from cuvee.problems.shard_dedup import PAIR, SIZES, Found, Sizes, Text, find_links, find_pairs
from cuvee.problems.signatures import BANDS, DEEPEST
from cuvee.records import Problem

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def in_one_process(texts: Sequence[Text]) -> Found:
    """Return what `dedup` says of all texts in order, in the form of `shard_dedup`."""
    kept = Kept()
    problems = [
        Problem(text.id, "math", text.source, text.question, "", "math", "1", None, "{}")
        for text in texts
    ]
    found = dedup.find_more(problems, kept)
    return Found({n: repeat for n, repeat in enumerate(found) if repeat}, kept.buckets.cut)


def over_shards(texts: Sequence[Text], shard: int, sizes: Sizes) -> Found:
    def shards() -> Iterator[Sequence[Text]]:
        for begin in range(0, len(texts), shard):
            yield texts[begin : begin + shard]

    with TemporaryDirectory() as folder:
        return shard_dedup.find_repeats(
            shards, count=len(texts), folder=Path(folder), mapped=map, label="test", sizes=sizes
        )


def named(questions: Sequence[str]) -> list[Text]:
    return [Text(f"id{n}", f"file{n % 3}.jsonl", text) for n, text in enumerate(questions)]


def varied(count: int, seed: int) -> list[str]:
    """Return texts of which many are earlier ones with up to three words changed, or none."""
    rng = random.Random(seed)
    words = [left + right for left in LETTERS for right in LETTERS[:8]] + ["7", "12", "+", "求"]
    texts: list[str] = []
    for _ in range(count):
        text = [rng.choice(words) for _ in range(rng.choice([5, 29, 40, 100, 180]))]
        if texts and rng.random() < 0.7:
            text = rng.choice(texts).split(" ")
            for _ in range(rng.randrange(4)):
                text[rng.randrange(len(text))] = rng.choice(words)
        texts.append(" ".join(text))
    return texts


def alike(count: int, changed: int) -> list[str]:
    """Return texts of 208 words that share all but some: most are like most others."""
    rng = random.Random(5)
    texts = []
    for _ in range(count):
        text = [letter * 2 for letter in LETTERS for _ in range(8)]
        for at in rng.sample(range(len(text)), changed):
            text[at] = rng.choice(LETTERS) + rng.choice(LETTERS)
        texts.append(" ".join(text))
    return texts


@pytest.mark.parametrize("shard", [1, 7, 64, 1000])
@pytest.mark.parametrize("sizes", [SIZES, Sizes(partition_pairs=100, group_texts=1)])
def test_the_same_is_found_however_the_work_is_divided(shard: int, sizes: Sizes) -> None:
    texts = named(varied(150, seed=shard))
    expected = in_one_process(texts)
    reasons = [repeat.reason for repeat in expected.repeats.values()]
    assert reasons.count("exact_duplicate") > 5
    assert reasons.count("near_duplicate") > 5
    assert over_shards(texts, shard, sizes) == expected


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(0, 25),
    shard=st.integers(1, 20),
    partition_pairs=st.integers(1, 400),
    group_texts=st.integers(1, 20),
)
def test_any_texts_in_any_shards_repeat_what_they_do_in_one_process(
    seed: int, count: int, shard: int, partition_pairs: int, group_texts: int
) -> None:
    texts = named(varied(count, seed))
    sizes = Sizes(partition_pairs, group_texts)
    assert over_shards(texts, shard, sizes) == in_one_process(texts)


@pytest.mark.parametrize("changed", [1, 2, 3])
def test_what_is_left_out_of_a_full_bucket_is_the_same(changed: int) -> None:
    """More texts share a bucket than are looked at, others stand between: both count the same."""
    texts = [
        text for pair in zip(alike(400, changed), varied(400, 1), strict=True) for text in pair
    ]
    expected = in_one_process(named(texts))
    assert (expected.cut > 0) == (changed > 1)
    assert over_shards(named(texts), 50, Sizes(partition_pairs=500, group_texts=10)) == expected


def test_a_long_text_is_in_a_bucket_a_band_and_a_short_one_in_one() -> None:
    long, short = " ".join(LETTERS) + " one two three four", "What is 17 + 5?"
    pairs, ends, _ = find_pairs((10, [long, short]), partitions=3)
    assert sorted(pairs["number"].tolist()) == [10] * BANDS + [11]
    assert ends[-1] == len(pairs) == BANDS + 1
    parts = [pairs[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True)]
    for number, part in enumerate(parts):
        assert set((part["bucket"] % np.uint64(3)).tolist()) <= {number}


def test_links_join_all_texts_of_a_bucket_and_nothing_else() -> None:
    pairs = np.array([(9, 4), (5, 1), (9, 2), (9, 0), (5, 3), (7, 5)], dtype=PAIR)
    joined = {frozenset(link) for link in find_links(pairs).tolist()}
    assert joined == {frozenset({4, 2}), frozenset({2, 0}), frozenset({1, 3})}


def test_texts_with_other_numbers_do_not_fill_a_bucket() -> None:
    """A near copy is found however many texts that differ in their numbers came between."""
    (first,) = alike(1, 0)
    numbered = [f"{first} {n}" for n in range(DEEPEST * 4)]
    found = in_one_process(named([first, *numbered, first.replace("aa aa", "aa ab", 1)]))
    assert {number: repeat.of.id for number, repeat in found.repeats.items()} == {257: "id0"}
    assert found.cut == 0


def test_no_texts_have_no_repeats() -> None:
    assert over_shards([], 5, SIZES) == Found({}, 0)
