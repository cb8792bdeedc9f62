"""The rules of refining: what is left out, what stays, and that the answer is untouched."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.records import Example
from cuvee.select.refine.attempts import by_rules
from cuvee.select.refine.held import stated
from cuvee.select.refine.rules import drop_courtesies, drop_repeats

HAN = "我们再仔细检查一遍题目。"
MUSING = "Let me read the whole question once more."
FACT = "The number of guests is what the first clue says."
LONG = (
    "So the number of ways is the product of both, because each way to seat the guests goes "
    "with each way to serve them, which makes 12 ways in all for this table."
)
LONGER = f"{LONG} Here the order of serving does not count, since everybody gets the same."


@pytest.mark.parametrize(
    ("reasoning", "refined", "applied"),
    [
        (f"{MUSING} It has 3. {MUSING} So 3.", f"{MUSING} It has 3. So 3.", "musing"),
        (f"{MUSING}\nIt has 3.\n{MUSING}\nSo 3.", f"{MUSING}\nIt has 3.\nSo 3.", "musing"),
        (f"{FACT} {FACT} So 3.", f"{FACT} So 3.", "echo"),
        (f"{FACT}\n{FACT}\nSo 3.", f"{FACT}\nSo 3.", "echo"),
        (f"{LONG}\n\nNow 5.\n\n{LONG}\n\nSo 17.", f"{LONG}\n\nNow 5.\n\nSo 17.", "paragraph"),
        (f"{LONGER} Now 5. {LONGER} So 17.", f"{LONGER} Now 5. So 17.", "passage"),
        # White space does not tell them apart.
        (f"{FACT}\n  \n{FACT.replace(' ', '  ')}\nSo 3.", f"{FACT}\n\nSo 3.", "echo"),
        # In a script without spaces every character is a word.
        (f"{HAN}得3。{HAN}所以3。", f"{HAN}得3。所以3。", "musing"),
    ],
)
def test_what_stood_there_before_is_left_out(reasoning: str, refined: str, applied: str) -> None:
    tidied = drop_repeats(reasoning)
    assert tidied.text == refined
    assert tidied.applied == {applied: 1}


@pytest.mark.parametrize(
    "reasoning",
    [
        f"{FACT} So 3. {FACT} And so 4.",  # a premise of two steps
        f"{LONG} Now 5. {LONG} So 17.",  # the end of two cases
        "x = 3 + 4 = 7\nx = 3 + 4 = 7\nSo 7.",  # two steps come to it
        "But is that right? But is that right? No.",  # a turn of speech
        "Let me see if Ana is first. No. Let me see if Ana is first. So 3.",  # it states a case
        "Let me check 7 again. No. Let me check 7 again. So 3.",
        f"{MUSING}\nSo 3.\n{MUSING}",  # the end stays
        f"- {FACT}\n- {FACT}\nSo 3.",  # a list
        f"    {FACT}\n    {FACT}\nSo 3.",  # indented
        f"```\n{MUSING}\n\n{MUSING}\n```\nSo 3.",  # code
        f"```python\n# {LONG}\n\n\n# {LONG}\n",  # code that is never closed
        "We now list all of these once again: We now list all of these once again: 2",
        f'She says: "{FACT} {FACT}" So 3.'.replace(f' {FACT}"', f'" {FACT}" '),  # torn quotation
        f"{MUSING} {MUSING.replace('whole', 'entire')} So 3.",  # not word for word
        "",
    ],
)
def test_what_may_recur_stays(reasoning: str) -> None:
    tidied = drop_repeats(reasoning)
    assert (tidied.text, tidied.applied) == (reasoning, {})


def test_a_short_or_bare_paragraph_of_calculation_recurs() -> None:
    short = "This makes 12 ways in all, as before."
    bare = " ".join(f"{n} + {n} = {2 * n}," for n in range(10))
    for paragraph in (short, bare):
        text = f"{paragraph}\n\nNow 5.\n\n{paragraph}\n\nSo 17."
        assert drop_repeats(text).text == text


def test_leaving_out_a_sentence_can_make_two_paragraphs_one() -> None:
    text = f"{MUSING}\n\n{LONG}\n\n{MUSING} {LONG}\n\nSo 12."
    tidied = drop_repeats(text)
    assert tidied.text == f"{MUSING}\n\n{LONG}\n\nSo 12."
    assert tidied.applied == {"musing": 1, "paragraph": 1}


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        ("The answer is \\boxed{22}. I hope this helps!", "The answer is \\boxed{22}."),
        (
            "\\boxed{22}\n\n---\n\nLet me know if you have any other questions! Good luck.",
            "\\boxed{22}",
        ),
        (
            "```python\nprint(1)\n```\nFeel free to ask if you have any doubts.",
            "```python\nprint(1)\n```",
        ),
        ("答案是22。希望这对你有帮助！", "答案是22。"),
        ("Answer: 22\nIf you need more help, let me know.", "Answer: 22"),
    ],
)
def test_courtesies_after_the_answer_are_left_out(answer: str, left: str) -> None:
    tidied = drop_courtesies(answer)
    assert tidied.text == left
    assert set(tidied.applied) == {"courtesy"}


@pytest.mark.parametrize(
    "answer",
    [
        "The answer is \\boxed{22}.",
        "Let me know if it is 22 or not: the answer is 22.",  # it says something
        "I hope this helps!",  # nothing would be left
        "Thank you is what she says to him.",
        "```python\nprint('Feel free to ask me for help.')\n```",
        "It is 22. Feel free to check: $22 = 20 + 2$.",
        "",
    ],
)
def test_what_says_something_stays(answer: str) -> None:
    assert drop_courtesies(answer).text == answer


PIECES = st.sampled_from(
    [
        MUSING, LONG, MUSING + " ", FACT, FACT + " ",
        LONGER + " ", "x = 3 + 4.", "So 22.", "But is that right?", "\n", "\n\n",
        "```", "```python", "    ", "- ", "# ", " ", "All of these come out the same way again:",
        HAN, "。", "\\boxed{22}", "(a) ", "\"Now this was all that she wanted.\" ",
        "I hope this helps!", "Let me know if you have questions.", "---", "The answer is 7.",
    ]
)  # fmt: skip
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=6)), max_size=25).map("".join)


@given(TEXTS)
def test_the_rules_shorten_and_doing_it_twice_changes_nothing_more(text: str) -> None:
    for rule in (drop_repeats, drop_courtesies):
        once = rule(text)
        assert len(once.text) <= len(text)
        assert (once.text != text) <= bool(once.applied)
        again = rule(once.text)
        assert (again.text, again.applied) == (once.text, {})


@given(TEXTS)
def test_nothing_is_added_and_no_first_occurrence_is_lost(text: str) -> None:
    refined = drop_repeats(text).text
    left = iter(refined.split())
    word = next(left, None)
    for found in text.split():  # what is left stands in the text, in its order
        if found == word:
            word = next(left, None)
    assert word is None or "。" in text
    assert set(refined.split()) == set(text.split()) or "。" in text


@given(TEXTS, TEXTS, st.sampled_from(["math", "choice", "code", "instructions", "none"]))
def test_what_an_answer_states_never_changes(reasoning: str, answer: str, verifier: str) -> None:
    example = Example("t", "p", "d", "alice", "?", reasoning, answer, 9)
    attempt = by_rules(example, verifier=verifier)
    assert stated(attempt.answer, verifier=verifier) == stated(answer, verifier=verifier)
    assert answer.startswith(attempt.answer)


@pytest.mark.parametrize(
    "text",
    [
        f"{MUSING} " * 4_000,
        "a b c d e f g. " * 10_000,
        "\n" * 100_000,
        "`" * 100_000,
        "Thank you! " * 10_000,
        ": " * 60_000,
        "I hope " * 20_000,
    ],
)
def test_hostile_texts_take_no_longer_than_others(text: str) -> None:
    begin = time.process_time()
    drop_repeats(text)
    drop_courtesies(text)
    assert time.process_time() - begin < 5
