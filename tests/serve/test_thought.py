"""However an answer is cut into pieces, its reasoning and its answer are the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.serve.chat import Answer
from cuvee.serve.thought import Splitter


def parted(pieces: list[str], *, opened: bool) -> tuple[str, str]:
    splitter, answer = Splitter(opened), Answer()
    for piece in pieces:
        for part in splitter.take(piece):
            answer.add(part)
    for part in splitter.end():
        answer.add(part)
    return answer.reasoning, answer.text


@pytest.mark.parametrize(
    ("text", "opened", "reasoning", "answer"),
    [
        ("<think>\na\n</think>\n\nb", False, "\na\n", "\n\nb"),
        ("a\n</think>\n\nb", True, "a\n", "\n\nb"),
        ("a</think>b", False, "a", "b"),  # found out when the closing tag comes
        ("b", False, "", "b"),
        ("a", True, "a", ""),
        ("<think>a", False, "a", ""),
        ("a < b", False, "", "a < b"),
        ("<thin", False, "", "<thin"),
        ("<think>a</think>b</think>c", False, "a", "b</think>c"),
        ("", False, "", ""),
    ],
)
def test_a_text_is_parted_at_its_tags(text: str, opened: bool, reasoning: str, answer: str) -> None:
    assert parted([text], opened=opened) == (reasoning, answer)
    assert parted(list(text), opened=opened) == (reasoning, answer)


PIECES = st.lists(st.sampled_from(["<think>", "</think>", "<", "/th", "ink>", "a", "\n", " b"]))


@given(pieces=PIECES, opened=st.booleans())
def test_where_a_text_is_cut_changes_nothing(pieces: list[str], opened: bool) -> None:
    assert parted(pieces, opened=opened) == parted(["".join(pieces)], opened=opened)
