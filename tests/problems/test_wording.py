"""What is folded in a wording, and that the compiled tokeniser has the same tokens."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.problems.wording import (
    count_words,
    number_keys,
    numbers,
    read_wordings,
    skeleton,
    skeletons,
    split,
    text_keys,
    token_hash,
    tokens,
)

TEXTS = st.one_of(
    st.text(alphabet="ab x12,.30$\\{}()+-!_ \n", max_size=60),
    st.text(max_size=40),
    st.text(alphabet="求方程的解。，两个abไทยกำ हिन्दी १२,٣1é\u0301İßﬁ²½", max_size=40),
    st.lists(
        st.sampled_from(
            ["\\left(", "\\dfrac{1}{2}", "\\leq", "left", "1,000", "12,34", "x_1", "\\!"]
        )
    ).map(" ".join),
)


def test_tokens_keep_numbers_and_operators() -> None:
    assert tokens("What is  17+5 − 9, or 3.5?") == "what is 17 + 5 − 9 or 3.5".split()
    assert tokens("ＡＢＣ “Ünder”") == ["abc", "ünder"]


@cache
def _hash_of(token: str) -> int:
    return token_hash(token)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1,000 and 1000", ["1000", "and", "1000"]),
        ("{1,2,3} or (1, 2, 3)", ["{", "1", "2", "3", "}", "or", "(", "1", "2", "3", ")"]),
        ("12,345,678.25", ["12345678.25"]),
        ("1,2345", ["1", "2345"]),
        ("1234,567", ["1234", "567"]),
        ("1,234,5678", ["1234", "5678"]),
        ("3.14.15 end.", ["3.14.15", "end"]),
    ],
)
def test_commas_are_thousands_only_before_three_digits(text: str, found: list[str]) -> None:
    assert tokens(text) == found


def test_scripts_without_spaces_have_a_token_a_character() -> None:
    assert tokens("求方程 x+1=5 的解。") == [*"求方程", "x", "+", "1", "=", "5", *"的解"]
    assert tokens("ตัวเลข 20") == ["ตั", "ว", "เ", "ล", "ข", "20"]
    assert len(tokens("ひらがなとカタカナ")) == 9


def test_accents_and_vowel_signs_stay_with_their_letter() -> None:
    assert tokens("हिन्दी में") == ["हिन्दी", "में"]


def test_a_skeleton_folds_numbers_letters_and_typesetting() -> None:
    assert skeleton(tokens(r"If $\left(a + 12\right) \leq \dfrac{b}{3}$, turn left")) == (
        "if ( x + 0 ) le frac x 0 turn left".split()
    )
    assert skeleton(tokens("若 x = 3")) == ["若", "x", "=", "0"]


def test_two_characters_count_as_a_word() -> None:
    assert count_words(tokens("The 12 pens of x = 3")) == 3
    assert count_words(tokens("求 12 和 18 的最大公约数")) == 4


@settings(max_examples=60)
@given(st.lists(TEXTS, max_size=5))
def test_hashed_tokens_are_the_tokens(texts: list[str]) -> None:
    wordings = read_wordings(texts)
    for text, found in zip(texts, split(wordings), strict=True):
        assert found.tolist() == [_hash_of(token) for token in tokens(text)]


@settings(max_examples=60)
@given(st.lists(TEXTS, max_size=5))
def test_hashed_skeletons_are_the_skeletons(texts: list[str]) -> None:
    folded = skeletons(read_wordings(texts))
    for text, found in zip(texts, split(folded), strict=True):
        assert found.tolist() == [_hash_of(token) for token in skeleton(tokens(text))]


@given(TEXTS, TEXTS)
def test_keys_are_equal_where_tokens_or_numbers_are(left: str, right: str) -> None:
    mine, other = tokens(left), tokens(right)
    keys = text_keys(read_wordings([left, right]))
    assert (keys[0] == keys[1]) == (mine == other)
    numbered = number_keys(read_wordings([left, right]))
    assert (numbered[0] == numbered[1]) == (numbers(mine) == numbers(other))


def test_what_is_read_does_not_depend_on_the_texts_beside_it() -> None:
    alone = read_wordings(["two words"]).hashes
    beside = split(read_wordings(["1,", "000 a", "two words", ""]))
    assert beside[2].tolist() == alone.tolist()
    assert [len(text) for text in beside] == [1, 2, 2, 0]
