"""Answers that come in pieces: put together as if they had come whole, or asked again."""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from cuvee.teach.ledger import Ledger
from cuvee.teach.reply import read_reply
from cuvee.teach.streaming import Assembly

from .conftest import Behaviour, Body, Serve, answer_well, completion, endpoint, requests, send

USAGE = {"prompt_tokens": 11, "completion_tokens": 22, "total_tokens": 33}


def piece(**delta: Any) -> Body:
    finish = delta.pop("finish_reason", None)
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    head = {"id": "chatcmpl-9", "model": "m-2", "system_fingerprint": "fp-7"}
    return {**head, "object": "chat.completion.chunk", "choices": [choice]}


def pieces_of(seed: int) -> list[Body]:
    words = ["<thi", "nk>", "so", " then", "</thi", "nk>", str(seed)]
    counted = {**piece(), "choices": [], "usage": USAGE}
    return [piece(role="assistant"), *(piece(content=word) for word in words), end(), counted]


def end(reason: str = "stop") -> Body:
    return piece(finish_reason=reason)


def lines_of(pieces: Sequence[Body]) -> list[bytes]:
    return [b"data: " + json.dumps(found).encode() for found in pieces]


async def streamed(
    request: web.Request, lines: Sequence[bytes], *, seconds: float = 0.0
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    for line in lines:
        await response.write(line + b"\n\n")
        await asyncio.sleep(seconds)
    return response


async def stream_well(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
    return await streamed(request, [*lines_of(pieces_of(body["seed"])), b"data: [DONE]"])


# What is stored


def test_a_stream_is_asked_for_with_its_usage_and_stored_like_any_answer(
    serve: Serve, ledger: Ledger
) -> None:
    server = serve(stream_well)
    traces, usage = send(endpoint(server.url, stream=True), requests(12), ledger)
    assert server.bodies[0]["stream"] is True
    assert server.bodies[0]["stream_options"] == {"include_usage": True}
    assert [trace.answer for trace in traces] == [str(r.seed) for r in requests(12)]
    first = traces[0]
    assert (first.reasoning, first.finish_reason, first.fingerprint) == ("so then", "stop", "fp-7")
    assert (first.prompt_tokens, first.completion_tokens) == (11, 22)
    assert (usage.sent, usage.failed, usage.possibly_billed_twice) == (12, 0, 0)
    stored = ledger.get(first.request)
    assert stored is not None
    assert json.loads(stored.response) == {
        "id": "chatcmpl-9",
        "model": "m-2",
        "object": "chat.completion",
        "system_fingerprint": "fp-7",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {
                    "role": "assistant",
                    "content": f"<think>so then</think>{requests(1)[0].seed}",
                },
            }
        ],
        "usage": USAGE,
    }


def test_streaming_is_no_part_of_the_question(serve: Serve, ledger: Ledger) -> None:
    whole, _ = send(endpoint(serve(answer_well).url), requests(5), ledger)
    again, usage = send(endpoint("http://127.0.0.1:1/v1", stream=True), requests(5), ledger)
    assert (usage.sent, again) == (0, whole)


def test_a_server_that_answers_whole_all_the_same_is_understood(
    serve: Serve, ledger: Ledger
) -> None:
    traces, _ = send(endpoint(serve(answer_well).url, stream=True), requests(3), ledger)
    assert [trace.answer for trace in traces] == [str(r.seed) for r in requests(3)]


TEXT = st.text(max_size=20)


@given(st.lists(st.tuples(st.sampled_from(["content", "reasoning", "reasoning_content"]), TEXT)))
def test_pieces_say_what_the_whole_would_have_said(said: list[tuple[str, str]]) -> None:
    assembly = Assembly()
    for name, text in said:
        assembly.take(lines_of([piece(**{name: text})])[0])
    assembly.take(lines_of([end("length")])[0])
    message = {"content": ""} | {
        name: "".join(text for other, text in said if other == name) for name, _ in said
    }
    whole = completion(**message, finish_reason="length")
    found, expected = read_reply(assembly.body()), read_reply(json.dumps(whole))
    assert (found.reasoning, found.answer) == (expected.reasoning, expected.answer)
    assert found.finish_reason == "length"


@given(st.binary(max_size=60) | st.builds(lambda text: b"data: " + text, st.binary(max_size=60)))
def test_no_line_breaks_the_assembly(line: bytes) -> None:
    assembly = Assembly()
    taken = assembly.take(line)
    assert taken or not line.startswith(b"data:")
    read_reply(assembly.body())


def test_only_the_first_choice_is_kept() -> None:
    assembly = Assembly()
    second = piece(content="other")
    second["choices"][0]["index"] = 1
    for line in lines_of([piece(content="mine"), second, end()]):
        assembly.take(line)
    assert read_reply(assembly.body()).answer == "mine"


# Streams that break


async def reset_midway(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
    response = await streamed(request, lines_of(pieces_of(1)[:4]))
    assert request.transport is not None
    request.transport.abort()
    return response


async def ends_early(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
    return await streamed(request, lines_of(pieces_of(1)[:4]))


async def done_early(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
    return await streamed(request, [*lines_of(pieces_of(1)[:4]), b"data: [DONE]"])


async def error_midway(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
    error = {"error": {"message": "upstream died", "code": 502}}
    return await streamed(request, lines_of([*pieces_of(1)[:4], error]))


async def nonsense_midway(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
    return await streamed(request, [*lines_of(pieces_of(1)[:4]), b"data: {oops"])


async def goes_silent(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
    response = await streamed(request, lines_of(pieces_of(1)[:4]))
    await asyncio.sleep(30)
    return response


async def only_pings(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
    """Keep the line open with comments, as gateways do, and never answer."""
    return await streamed(request, [b": ping"] * 600, seconds=0.05)


@pytest.mark.parametrize(
    "fault",
    [
        *(reset_midway, ends_early, done_early, error_midway, nonsense_midway, goes_silent),
        only_pings,
    ],
    ids=lambda fault: fault.__name__,
)
def test_a_broken_stream_is_asked_again_and_counted(
    serve: Serve, ledger: Ledger, fault: Behaviour
) -> None:
    async def once(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        return await (fault if tries == 1 else stream_well)(request, body, tries)

    server = serve(once)
    begin = time.monotonic()
    to = endpoint(server.url, stream=True, timeout=0.4)
    traces, usage = send(to, requests(3), ledger)
    assert [trace.answer for trace in traces] == [str(r.seed) for r in requests(3)]
    assert set(server.asked.values()) == {2}
    assert usage.possibly_billed_twice == 3
    assert time.monotonic() - begin < 10


def test_a_slow_stream_may_take_longer_than_the_timeout_of_silence(
    serve: Serve, ledger: Ledger
) -> None:
    async def slow(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        lines = [*lines_of(pieces_of(body["seed"])), b"data: [DONE]"]
        return await streamed(request, lines, seconds=0.1)

    to = endpoint(serve(slow).url, stream=True, timeout=0.5, retries=0)
    traces, _ = send(to, requests(2), ledger)
    assert [trace.finish_reason for trace in traces] == ["stop", "stop"]
    assert traces[0].seconds > 0.9


@pytest.mark.parametrize("how", ["no [DONE]", "reset", "silence"])
def test_an_answer_that_is_complete_counts_however_its_stream_ends(
    serve: Serve, ledger: Ledger, how: str
) -> None:
    async def rude(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        response = await streamed(request, lines_of(pieces_of(body["seed"])))
        assert request.transport is not None
        if how == "reset":
            await asyncio.sleep(0.05)
            request.transport.abort()
        if how == "silence":
            await asyncio.sleep(30)
        return response

    to = endpoint(serve(rude).url, stream=True, timeout=0.4, retries=0)
    traces, usage = send(to, requests(3), ledger)
    assert [trace.answer for trace in traces] == [str(r.seed) for r in requests(3)]
    assert usage.completion_tokens == 66


def test_a_streamed_context_error_is_final(serve: Serve, ledger: Ledger) -> None:
    async def too_long(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        error = {"error": {"message": "maximum context length is 8192 tokens", "code": 400}}
        return await streamed(request, lines_of([error]))

    server = serve(too_long)
    traces, usage = send(endpoint(server.url, stream=True), requests(1), ledger)
    assert "maximum context length" in str(traces[0].error)
    assert (usage.refused, len(server.bodies)) == (1, 1)


def test_a_line_longer_than_any_buffer_is_one_piece(serve: Serve, ledger: Ledger) -> None:
    """Some servers stream by sending all at once."""

    async def at_once(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        text = "x" * 700_000
        return await streamed(request, [*lines_of([piece(content=text), end()]), b"data: [DONE]"])

    traces, _ = send(endpoint(serve(at_once).url, stream=True), requests(1), ledger)
    assert len(traces[0].answer) == 700_000
