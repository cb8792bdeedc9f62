"""Filters keep sound traces and object to each fault by its name; on real traces too."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.select.filters import (
    LOOP_CHARACTERS,
    control_tokens,
    count_blocks,
    foreign,
    loop_period,
    malformed,
    outside,
    repeated_share,
    repetitive,
    script_share,
    unaccepted,
    unfinished,
)

from .conftest import a_trace, a_verdict

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
QWEN = SHARED / "cot_thinking_traces_qwen3"
ONE_BLOCK = "Here:\n```python\nprint(1)\n```\n"
CHINESE = "我们先仔细读一遍题目，弄清楚每一步要做什么。"


# Finished, judged right


@pytest.mark.parametrize(
    ("finish_reason", "reason"),
    [
        ("stop", None),
        ("length", "truncated"),
        ("error", "request_failed"),
        ("content_filter", "unfinished"),
    ],
)
def test_only_what_came_to_its_end_is_finished(finish_reason: str, reason: str | None) -> None:
    found = unfinished(a_trace(finish_reason=finish_reason, error="HTTP 500"))
    assert (found.reason if found else None) == reason


def test_a_failed_request_says_why() -> None:
    found = unfinished(a_trace(finish_reason="error", error="HTTP 400: too long"))
    assert found is not None
    assert found.detail == "HTTP 400: too long"


@pytest.mark.parametrize("name", ["wrong", "no_answer", "not_checked"])
def test_verdicts_are_accepted_by_name_alone(name: Any) -> None:
    verdict = a_verdict(a_trace(), name)
    found = unaccepted(verdict, ("correct",))
    assert found is not None
    assert found.reason == f"verdict_{name}"
    assert unaccepted(verdict, ("correct", name)) is None
    assert unaccepted(a_verdict(a_trace()), ("correct",)) is None


# Structure


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"reasoning": " \n"}, "no_reasoning"),
        ({"answer": " \n"}, "empty_answer"),
        ({"reasoning": "a</think>b<think>c"}, "think_tags"),
        ({"answer": "so <think>again</think> 22"}, "think_tags"),
        ({"answer": "</THINK> 22"}, "think_tags"),
        ({"reasoning": "I think it is 22"}, None),
    ],
)
def test_a_trace_is_one_think_block_with_an_answer(
    changes: dict[str, str], reason: str | None
) -> None:
    found = malformed(a_trace(**changes), verifier="math")
    assert (found.reason if found else None) == reason


@pytest.mark.parametrize(
    ("answer", "blocks"),
    [
        (ONE_BLOCK, 1),
        ("print(1)", 0),
        ("inline `print(1)` and ``` in a line", 0),
        (ONE_BLOCK + "or\n" + ONE_BLOCK, 2),
        ("```python\nprint(1)", 1),
        ("  ```py\n  x\n  ```", 1),
        ("````md\n```python\nx\n```\n````", 1),
        ("~~~\nx\n~~~", 1),
        ('```python\nprint("""\n```python\n""")\n```', 1),
    ],
)
def test_fenced_blocks_are_counted(answer: str, blocks: int) -> None:
    assert count_blocks(answer) == blocks
    found = malformed(a_trace(answer=answer), verifier="code")
    assert (found.reason if found else None) == (None if blocks == 1 else "code_blocks")
    assert malformed(a_trace(answer=answer), verifier="math") is None


def test_the_students_control_tokens_may_not_be_in_the_text() -> None:
    tokens = ("<|im_end|>", "<s>")
    assert control_tokens(a_trace(), tokens) is None
    found = control_tokens(a_trace(reasoning="then <|im_end|> ends"), tokens)
    assert found is not None
    assert (found.reason, found.detail) == ("control_token", "<|im_end|>")
    assert control_tokens(a_trace(answer="a <s>b"), tokens) is not None


# Language


@pytest.mark.parametrize(
    ("text", "language", "share"),
    [
        ("abcd", "en", 1.0),
        ("ab 我们", "en", 0.5),
        ("ab 我们", "zh", 0.5),
        ("das heißt für uns", "en", 1.0),
        ("это", "en", 0.0),
        ("12 + 30 = 42", "en", None),
        ("", "zh", None),
        ("设 $x = \\frac{1}{2}$，则 `len(x)` 为\\alpha", "zh", 1.0),
        ("so α + β ≤ 𝑥 ∈ ℝ holds", "en", 1.0),
        ("```python\nfor x in range(3): pass\n```\n我们", "zh", 1.0),
    ],
)
def test_the_share_of_a_script_is_of_letters_in_prose(
    text: str, language: str, share: float | None
) -> None:
    assert script_share(text, language) == share


def test_a_second_language_is_objected_to_beyond_the_share() -> None:
    mixed = a_trace(reasoning="Ten letters " + "我" * 10)
    assert foreign(mixed, language="en", least=0.5) is None
    found = foreign(mixed, language="en", least=0.51)
    assert found is not None
    assert (found.reason, found.detail) == ("language", "0.50 of the letters are en, 0.51 wanted")
    assert foreign(mixed, language="any", least=1.0) is None


@given(st.text(max_size=200))
def test_shares_are_shares_whatever_the_text(text: str) -> None:
    for language in ("en", "zh"):
        share = script_share(text, language)
        assert share is None or 0 <= share <= 1
    assert 0 <= repeated_share(text) < 1


# Repetition


def test_the_share_of_repeated_grams_worked_by_hand() -> None:
    assert repeated_share("one two three four five six seven") == 0, "no 8-gram"
    # 16 words, 9 grams; the last equals the first.
    assert repeated_share("a b c d e f g h " * 2) == pytest.approx(1 / 9)
    assert repeated_share("a b c d e f g h " * 10) == pytest.approx(1 - 8 / 73)
    assert repeated_share("一二三四五六七八" * 2) == pytest.approx(1 / 9), "characters are words"


@pytest.mark.parametrize(
    ("text", "period"),
    [
        ("I wait. " * 40, 8),
        ("Well: " + "abc" * 50, 3),
        ("Well: " + "abc" * 50 + "ab", 3),
        (CHINESE * 6, len(CHINESE)),
        ("abc" * 20, None),
        ("I wait. " * 40 + "So the answer is 22, which I checked.", None),
        ("The same long sentence of quite a few words. " * 3, None),
        ("", None),
    ],
)
def test_a_loop_at_the_end_is_found_with_its_period(text: str, period: int | None) -> None:
    assert loop_period(text) == period


@given(st.text("abc \n", min_size=1, max_size=40), st.text("xyz ", max_size=100))
def test_whatever_repeats_long_enough_is_a_loop(unit: str, before: str) -> None:
    looped = before + unit * (2 * LOOP_CHARACTERS // len(unit) + 8)
    if len("".join(unit.split())) == len(unit):  # without spaces, so none are folded
        period = loop_period(looped)
        assert period is not None
        assert period <= len(unit)


def test_loops_and_repeated_grams_are_objected_to() -> None:
    assert repetitive(a_trace(), most=0.0) is None
    many = repetitive(a_trace(reasoning="a b c d e f g h " * 2), most=0.1)
    assert many is not None
    assert many.reason == "repetition"
    loop = repetitive(a_trace(reasoning="abc" * 50), most=1.0)
    assert loop is not None
    assert loop.detail == "ends in a loop of 3 characters"


def test_long_texts_are_searched_in_linear_time() -> None:
    assert loop_period("ab" * 200_000 + "c") is None
    assert repeated_share("ab " * 200_000) > 0.99


# Token window


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [(1, "too_short"), (2, None), (8, None), (9, "too_long")],
)
def test_the_token_window_includes_both_ends(tokens: int, reason: str | None) -> None:
    found = outside(tokens, window=(2, 8))
    assert (found.reason if found else None) == reason


# Real traces


def qwen_traces(name: str) -> list[dict[str, Any]]:
    if not QWEN.exists():
        pytest.skip("the real traces are not on this machine")
    text = (QWEN / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


@pytest.mark.parametrize("name", ["qwen3-8b__think-on", "qwen3.5-9b__think-on"])
def test_real_finished_traces_are_kept(name: str) -> None:
    rows = [row for row in qwen_traces(name) if row["done_reason"] == "stop"]
    for row in rows:
        trace = a_trace(reasoning=row["thinking"], answer=row["content"])
        assert malformed(trace, verifier="math") is None, row["item_id"]
        assert foreign(trace, language="en", least=0.9) is None, row["item_id"]
        assert repetitive(trace, most=0.3) is None, row["item_id"]
    assert len(rows) > 100


def test_real_loops_are_dropped() -> None:
    rows = {row["item_id"]: row for row in qwen_traces("qwen3.5-9b__think-on")}
    for item in ("instruct-31", "instruct-35", "instruct-36", "instruct-37"):
        assert rows[item]["done_reason"] == "length", "they ran into the limit"
        assert repetitive(a_trace(reasoning=rows[item]["thinking"]), most=0.3), item


def test_real_answers_without_thinking_have_no_reasoning() -> None:
    for row in qwen_traces("qwen3-8b__think-off")[:20]:
        found = malformed(
            a_trace(reasoning=row["thinking"] or "", answer=row["content"]), verifier="math"
        )
        assert found is not None
        assert found.reason == "no_reasoning"


def test_real_reasoning_of_two_more_models_is_kept_unless_in_another_language() -> None:
    file = SHARED / "cot_marco_o1_demo" / "CoT_demo.json"
    if not file.exists():
        pytest.skip("the real traces are not on this machine")
    texts = [row["response"].split("</Thought>")[0] for row in json.loads(file.read_text())]
    traces = [a_trace(reasoning=text) for text in texts]
    foreign_ones = [t for t in traces if foreign(t, language="en", least=0.9)]
    assert len(foreign_ones) == 3, "two Chinese ones, one mixed"
    assert not [t for t in traces if repetitive(t, most=0.3)]
