"""Filters of form keep sound traces and object to each fault by its name."""

import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.select.structure import (
    LONGEST_PROGRAM,
    control_tokens,
    fenced_blocks,
    malformed,
    outside,
    syntax_fault,
    unaccepted,
    unfinished,
    unrunnable,
)
from cuvee.verify.answers import code_block

from .conftest import a_trace, a_verdict, reason

ONE = "Here:\n```python\nprint(1)\n```\n"


@pytest.mark.parametrize(
    ("finish_reason", "expected"),
    [
        ("stop", None),
        ("length", "truncated"),
        ("error", "request_failed"),
        ("content_filter", "unfinished"),
    ],
)
def test_only_what_came_to_its_end_is_finished(finish_reason: str, expected: str | None) -> None:
    assert reason(unfinished(a_trace(finish_reason=finish_reason, error="HTTP 500"))) == expected


def test_a_failed_request_says_why() -> None:
    found = unfinished(a_trace(finish_reason="error", error="HTTP 400: too long"))
    assert found is not None
    assert found.detail == "HTTP 400: too long"


@pytest.mark.parametrize("name", ["wrong", "no_answer", "not_checked"])
def test_verdicts_are_accepted_by_name_alone(name: Any) -> None:
    verdict = a_verdict(a_trace(), name)
    assert reason(unaccepted(verdict, ("correct",))) == f"verdict_{name}"
    assert unaccepted(verdict, ("correct", name)) is None
    assert unaccepted(a_verdict(a_trace()), ("correct",)) is None


@pytest.mark.parametrize(
    ("changes", "expected"),
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
    changes: dict[str, str], expected: str | None
) -> None:
    assert reason(malformed(a_trace(**changes), verifier="math")) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (ONE, None),
        ("print(1)", "code_blocks"),
        ("inline `print(1)` and ``` in a line", "code_blocks"),
        (ONE + "or\n" + ONE, "code_blocks"),
        ("```python\nprint(1)", "code_blocks"),
        ("```\nprint(1)\n```", None),
        ("```\nprint(1)\n```\n```\nprint(2)\n```", "code_blocks"),
        ("```cpp\nint main;\n```", "code_blocks"),
        ("  ```py\n  x = 1\n  ```", None),
        ("1. so\n   ```python\n   if x:\n       y()\n   ```", None),
        ("~~~python\nx = 1\n~~~", None),
        (ONE + "It prints\n```\n1\n```", None),
        (ONE + "Run it:\n```bash\npython a.py\n```", None),
        ('```python\nprint("""\n```python\n""")\n```', None),
        ("````python\nprint(1)\n```\n````", "not_python"),
        ("```python\nprint 1\n```", "not_python"),
        ("```python\n    return 1\n```", "not_python"),
        ("```python\n\n```", "not_python"),
        ("```python\nimport re; re.compile('\\d')\n```", None),
        ("```python\nx = '\ud800'\n```", "not_python"),
        ("```python\nx = 1\0\n```", "not_python"),
    ],
)
def test_an_answer_of_code_has_one_program_that_compiles(answer: str, expected: str | None) -> None:
    assert reason(unrunnable(answer)) == expected
    assert reason(malformed(a_trace(answer=answer), verifier="code")) == expected
    assert malformed(a_trace(answer=answer), verifier="math") is None


def test_a_fault_of_syntax_names_the_line() -> None:
    assert syntax_fault("x = 1\ny = (\n") == "line 2: '(' was never closed"


def test_compiling_runs_nothing_and_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert syntax_fault("raise SystemExit('run')\nx = '\\d'\nassert (1, 'x')") is None


@pytest.mark.parametrize(
    "program",
    ["(" * 30_000 + ")" * 30_000, "-" * 60_000 + "1", "x" + ".y" * 30_000, "x = " + "9" * 60_000],
)
def test_hostile_programs_are_refused_at_once(program: str) -> None:
    assert syntax_fault(program) is not None


def test_a_program_of_absurd_length_is_not_compiled() -> None:
    deep = "[a" + " for a in b" * 100_000 + "]"  # this one crashes CPython 3.11
    found = syntax_fault(deep)
    assert found is not None
    assert found.endswith(f"{LONGEST_PROGRAM:,} are compiled")


PIECES = st.lists(st.sampled_from(["```", "```python", "  ```py", "x = 1", "", "``", "````", "y"]))


@given(PIECES)
def test_the_one_program_is_the_one_that_is_verified(pieces: list[str]) -> None:
    answer = "\n".join(pieces)
    if unrunnable(answer) is None:
        marked = [b for b in fenced_blocks(answer) if b.language] or fenced_blocks(answer)
        assert code_block(answer) == marked[0].text


def test_the_students_control_tokens_may_not_be_in_the_text() -> None:
    tokens = ("<|im_end|>", "<s>")
    assert control_tokens(a_trace(), tokens) is None
    found = control_tokens(a_trace(reasoning="then <|im_end|> ends"), tokens)
    assert found is not None
    assert (found.reason, found.detail) == ("control_token", "<|im_end|>")
    assert control_tokens(a_trace(answer="a <s>b"), tokens) is not None


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [(1, "too_short"), (2, None), (8, None), (9, "too_long")],
)
def test_the_token_window_includes_both_ends(tokens: int, expected: str | None) -> None:
    assert reason(outside(tokens, window=(2, 8))) == expected
