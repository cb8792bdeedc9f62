"""Where two texts differ: the segments make up both texts, whatever they are."""

import time

from hypothesis import given
from hypothesis import strategies as st

from cuvee.lineage.changes import MOST_PIECES, Segment, differences, segments

TEXTS = st.lists(
    st.sampled_from(["a b.", "No! ", "\n", "  ", "x = 3.14\n", "Let me see.", "é?", ""]),
    max_size=12,
).map("".join)


@given(st.text() | TEXTS, st.text() | TEXTS)
def test_the_segments_make_up_both_texts(before: str, after: str) -> None:
    found = segments(before, after)
    assert "".join(s.text for s in found if s.kind != "new") == before
    assert "".join(s.text for s in found if s.kind != "gone") == after
    assert all(s.text for s in found)
    pairs = list(differences(before, after))
    assert "".join(gone for gone, _ in pairs) == "".join(s.text for s in found if s.kind == "gone")
    assert "".join(new for _, new in pairs) == "".join(s.text for s in found if s.kind == "new")
    assert all(gone or new for gone, new in pairs)


@given(st.text() | TEXTS)
def test_the_same_text_has_no_differences(text: str) -> None:
    assert list(differences(text, text)) == []


def test_a_sentence_that_was_left_out_is_gone_alone() -> None:
    before, after = "It is 3.14 here. Let me look. So 2.\nDone.", "It is 3.14 here. So 2.\nDone."
    assert [s for s in segments(before, after) if s.kind != "same"] == [
        Segment("gone", " Let me look.")
    ] or list(differences(before, after)) == [("Let me look. ", "")]


def test_what_was_put_elsewise_stands_beside_what_is_gone() -> None:
    assert list(differences("One.\nTwo, or so.\nThree.", "One.\nTwo.\nThree.\nFour.")) == [
        ("Two, or so.", "Two."),
        ("", "\nFour."),
    ]


def test_a_text_that_goes_in_circles_is_compared_in_a_second_or_so() -> None:
    circles = "I go on. No! " * MOST_PIECES
    begin = time.process_time()
    found = segments(f"Start. {circles} End.", f"Start. {circles[: len(circles) // 2]} End.")
    found += segments("So it is.\n" * 3 * (MOST_PIECES // 7), "So? Yes.\n" * (MOST_PIECES // 7))
    assert time.process_time() - begin < 5
    assert found[0].text.startswith("Start. I go on.")
