"""Reading what servers send: where reasoning stands, why it ended, what an error says."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.teach.reply import (
    UnreadableReplyError,
    is_out_of_money,
    is_too_long,
    read_error,
    read_reply,
)

from .conftest import completion


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"content": "42", "reasoning": "thought"}, ("thought", "42")),
        ({"content": "42", "reasoning_content": "thought"}, ("thought", "42")),
        ({"content": "<think>\nthought\n</think>\n\n42"}, ("thought", "42")),
        ({"content": "thought</think>42"}, ("thought", "42")),
        ({"content": "42", "reasoning": None}, ("", "42")),
        ({"content": None, "reasoning": "thought"}, ("thought", "")),
        ({"content": "<think>thou"}, ("thou", "")),
    ],
)
def test_reasoning_is_found_wherever_servers_put_it(
    message: dict[str, Any], expected: tuple[str, str]
) -> None:
    reply = read_reply(json.dumps(completion(**message)))
    assert (reply.reasoning, reply.answer) == expected


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        (None, "unknown"),
    ],
)
def test_the_finish_reason_is_kept_and_never_guessed(said: str | None, kept: str) -> None:
    assert read_reply(json.dumps(completion("x", finish_reason=said))).finish_reason == kept


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "error", "usage", "detail", "x"]),
            inner,
        )
    ),
)


@given(JSON.map(json.dumps) | st.text())
def test_a_body_is_a_reply_or_unreadable_and_nothing_else(body: str) -> None:
    with contextlib.suppress(UnreadableReplyError):
        read_reply(body)
    assert 0 < len(read_error(body)) <= 300


@pytest.mark.parametrize(
    "said",
    [
        "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens",
        "the request exceeds the available context size, try increasing it",
        "prompt is too long: 210000 tokens > 200000 maximum",
    ],
)
def test_servers_words_for_too_long_a_request_are_known(said: str) -> None:
    assert is_too_long(json.dumps({"error": {"message": said}}))
    assert is_too_long(json.dumps({"detail": said}))


def test_a_code_alone_says_it_too() -> None:
    error = {"message": "Bad request", "code": "context_length_exceeded"}
    assert is_too_long(json.dumps({"error": error}))
    assert not is_too_long(json.dumps({"error": {"message": "Rate limit reached"}}))
    assert is_out_of_money(json.dumps({"error": {"message": "x", "code": "insufficient_quota"}}))
    assert not is_out_of_money(json.dumps({"error": {"message": "Rate limit reached"}}))


@pytest.mark.parametrize("count", [-1, 1.5, True, "11", None, 2**31])
def test_what_is_no_count_is_none(count: object) -> None:
    reply = completion("x") | {"usage": {"prompt_tokens": count, "completion_tokens": 22}}
    assert read_reply(json.dumps(reply)).prompt_tokens is None
    assert read_reply(json.dumps(reply)).completion_tokens == 22
