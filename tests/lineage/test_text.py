"""Text made safe to show: nothing that steers a terminal or hides comes through."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.lineage.text import FOLDED_CHARACTERS, FOLDED_LINES, fold, one_line, visible

ANY = st.text(st.characters(codec="utf-8"))
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain", "plain"), ("a\tb\nc", "a\tb\nc"), ("\x1b[31m", "\\x1b[31m"), ("a\rb", "a\\x0db"),
     ("a\u202eb", "a\\u202eb"), ("\u200b", "\\u200b"), ("\x9b", "\\x9b"), ("é 数 ∑", "é 数 ∑"),
     ("a\u00a0b", "a\u00a0b"), ("\U000e0001", "\\U000e0001"), ("[bold]", "[bold]")],
)  # fmt: skip
def test_worked_examples(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(ANY)
def test_nothing_hidden_is_left(text: str) -> None:
    assert all(c in "\n\t" or unicodedata.category(c) not in HIDDEN for c in visible(text))
    assert "\n" not in one_line(text)


@given(ANY)
def test_what_is_visible_already_stays(text: str) -> None:
    assert visible(visible(text)) == visible(text)


@given(ANY)
def test_a_whole_text_is_only_made_visible(text: str) -> None:
    assert fold(text, full=True) == visible(text)


@given(st.text("ab \n", max_size=2000))
def test_a_folded_text_is_short_and_says_how_much_is_left(text: str) -> None:
    folded = fold(text, full=False)
    begun, mark, rest = folded.partition(" … (")
    assert len(begun) <= FOLDED_CHARACTERS
    assert begun.count("\n") < FOLDED_LINES or not mark
    left = int(rest.split()[0].replace(",", "")) if mark else 0
    assert len(begun) + left == len(text)
    assert text.startswith(begun)
