"""The client against a real server that misbehaves on purpose."""

import asyncio
import json
import time
from random import Random

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from cuvee.errors import TeacherError
from cuvee.teach import exchange
from cuvee.teach.exchange import LONGEST_WAIT_SECONDS, wait_before
from cuvee.teach.keepalive import FreshRequest, StaleConnectionError
from cuvee.teach.ledger import Ledger
from cuvee.teach.reply import read_reply

from .conftest import (
    Behaviour,
    Body,
    Serve,
    ServeRaw,
    answer_well,
    closed_port,
    completion,
    content_of,
    endpoint,
    first_try,
    requests,
    send,
)


async def reset(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def half_a_body(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"choices": [{"mess')
    assert request.transport is not None
    request.transport.close()
    return response


async def cut_json(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
    return web.Response(text='{"choices": [{"mess', content_type="application/json")


async def no_choices(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
    return web.json_response({"choices": []})


async def error_with_200(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
    return web.json_response({"error": {"message": "upstream overloaded", "code": 503}})


async def overloaded(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
    return web.json_response({"error": {"message": "overloaded"}}, status=500)


async def too_many(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
    return web.json_response({"message": "slow down"}, status=429, headers={"Retry-After": "1"})


async def sleeps(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
    await asyncio.sleep(30)
    return web.Response()


async def not_gzip(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
    return web.Response(body=b"no gzip at all", headers={"Content-Encoding": "gzip"})


async def deep_json(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
    return web.Response(text="[" * 100_000, content_type="application/json")


async def a_bomb(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
    """Send more than `LARGEST_REPLY` bytes in a few thousand."""
    response = web.Response(text=" " * (exchange.LARGEST_REPLY + 1))
    response.enable_compression()
    return response


async def drip(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
    """Send a byte now and then, for ever."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.05)


async def broken_framing(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
    """Answer with what is no HTTP."""
    assert request.transport is not None
    request.transport.write(b"HTTP/9 so-so\r\nnonsense\x00\r\n\r\n")
    await asyncio.sleep(0.05)
    request.transport.close()
    return web.Response()


async def silent_end(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
    """Close without a word, as an idle keep-alive connection does."""
    assert request.transport is not None
    request.transport.close()
    await asyncio.sleep(1)
    return web.Response()


# Faults that pass


@pytest.mark.parametrize(
    "fault",
    [
        *(reset, silent_end, half_a_body, cut_json, no_choices, error_with_200, overloaded),
        *(not_gzip, deep_json, broken_framing),
    ],
    ids=lambda fault: fault.__name__,
)
def test_a_fault_that_passes_is_tried_again(serve: Serve, ledger: Ledger, fault: Behaviour) -> None:
    server = serve(first_try(fault))
    traces, usage = send(endpoint(server.url), requests(4), ledger)
    assert [trace.answer for trace in traces] == [str(request.seed) for request in requests(4)]
    assert (usage.sent, usage.failed) == (4, 0)
    assert set(server.asked.values()) == {2}


@pytest.mark.parametrize(("fault", "doubtful"), [(reset, 3), (half_a_body, 3), (overloaded, 0)])
def test_what_may_have_been_billed_before_is_counted(
    serve: Serve, ledger: Ledger, fault: Behaviour, doubtful: int
) -> None:
    _, usage = send(endpoint(serve(first_try(fault)).url), requests(3), ledger)
    assert usage.possibly_billed_twice == doubtful
    assert ledger.count_in_doubt() == doubtful, "and stays counted in the account"


def test_a_stall_ends_at_the_timeout(serve: Serve, ledger: Ledger) -> None:
    server = serve(first_try(sleeps))
    begin = time.monotonic()
    traces, usage = send(endpoint(server.url, timeout=0.3), requests(3), ledger)
    assert time.monotonic() - begin < 5
    assert [trace.finish_reason for trace in traces] == ["stop"] * 3
    assert usage.possibly_billed_twice == 3


def test_retry_after_is_honoured(serve: Serve, ledger: Ledger) -> None:
    server = serve(first_try(too_many))
    begin = time.monotonic()
    traces, _ = send(endpoint(server.url), requests(4), ledger)
    assert 1 <= time.monotonic() - begin < 5
    assert all(trace.finish_reason == "stop" for trace in traces)


@given(st.integers(1, 40), st.none() | st.floats(0, 900), st.integers())
def test_waits_grow_to_a_limit_and_never_undercut_the_server(
    tries: int, told: float | None, seed: int
) -> None:
    wait = wait_before(tries, retry_after=told, rng=Random(seed))
    backoff = min(0.5 * 2 ** (tries - 1), LONGEST_WAIT_SECONDS)
    assert max(0.5 * backoff, told or 0) <= wait <= max(1.5 * backoff, told or 0)
    assert wait == wait_before(tries, retry_after=told, rng=Random(seed))


# Whose answer it is


def raw_reply(body: Body) -> bytes:
    text = json.dumps(completion(content_of(body))).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(text)}"
    return head.encode() + b"\r\n\r\n" + text


@pytest.mark.parametrize("later", [0.0, 0.005, 0.1])
@pytest.mark.parametrize("concurrency", [1, 4])
def test_an_answer_that_comes_twice_is_never_the_answer_to_another_question(
    serve_raw: ServeRaw, ledger: Ledger, later: float, concurrency: int
) -> None:
    """Nothing in HTTP/1.1 tells the second copy from the answer to what was asked next."""
    rng, takes = Random(8), 0.01

    def twice(transport: asyncio.Transport, body: Body) -> None:
        reply, loop = raw_reply(body), asyncio.get_running_loop()
        loop.call_later(takes, transport.write, reply)
        if rng.random() < 0.2:
            loop.call_later(takes + later, transport.write, reply)

    to = endpoint(serve_raw(twice), retries=20, concurrency=concurrency)
    traces, usage = send(to, requests(25), ledger)
    assert usage.failed == 0
    assert [trace.answer for trace in traces] == [str(r.seed) for r in requests(25)]


def test_nothing_is_sent_over_a_connection_that_holds_a_reply_already(
    serve_raw: ServeRaw,
) -> None:
    """aiohttp by itself gives the second copy to whoever comes next."""

    def twice(transport: asyncio.Transport, body: Body) -> None:
        transport.write(raw_reply(body))
        asyncio.get_running_loop().call_later(0.05, transport.write, raw_reply(body))

    async def answers(request_class: type[aiohttp.ClientRequest]) -> list[str]:
        found = []
        async with aiohttp.ClientSession(request_class=request_class) as session:
            for number in (1, 2):
                asked = {"messages": [{"content": "x"}], "seed": number}
                async with session.post(url + "/chat/completions", json=asked) as response:
                    found.append(read_reply(await response.text()).answer)
                await asyncio.sleep(0.2)
        return found

    url = serve_raw(twice)
    assert asyncio.run(answers(aiohttp.ClientRequest)) == ["1", "1"]
    with pytest.raises(StaleConnectionError):
        asyncio.run(answers(FreshRequest))


def test_a_server_that_gives_every_answer_the_same_id_is_believed(
    serve: Serve, ledger: Ledger
) -> None:
    async def yes(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        return web.json_response(completion("yes") | {"id": "chatcmpl-1"})

    server = serve(yes)
    _, usage = send(endpoint(server.url, concurrency=1), requests(20), ledger)
    assert usage.failed == 0
    assert len(server.bodies) <= 21, "one is asked again, then it is known"


# Faults that stay


def test_a_reply_larger_than_any_answer_is_not_read_to_its_end(
    serve: Serve, ledger: Ledger
) -> None:
    traces, _ = send(endpoint(serve(a_bomb).url, retries=0), requests(1), ledger)
    assert traces[0].error == f"a reply of more than {exchange.LARGEST_REPLY} bytes"


def test_a_request_that_keeps_failing_is_a_row_and_is_asked_again_next_time(
    serve: Serve, ledger: Ledger
) -> None:
    async def one_fails(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        bad = body["messages"][-1]["content"] == "question 3"
        return await (overloaded if bad else answer_well)(request, body, tries)

    server = serve(one_fails)
    traces, usage = send(endpoint(server.url, retries=1), requests(6), ledger)
    assert [trace.finish_reason for trace in traces] == ["stop"] * 3 + ["error"] + ["stop"] * 2
    assert traces[3].error == "HTTP 500: overloaded"
    assert (traces[3].reasoning, traces[3].answer, traces[3].prompt_tokens) == ("", "", None)
    assert (usage.sent, usage.failed, usage.refused) == (6, 1, 0)
    assert usage.first_error == "HTTP 500: overloaded"
    server.behaviour = answer_well
    traces, usage = send(endpoint(server.url), requests(6), ledger)
    assert (usage.sent, usage.from_ledger, usage.failed) == (1, 5, 0)
    assert traces[3].finish_reason == "stop"


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_request_is_not_tried_again_and_says_why(
    serve: Serve, ledger: Ledger, status: int
) -> None:
    async def refuse(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        message = "maximum context length is 8192 tokens"
        return web.json_response({"error": {"message": message}}, status=status)

    server = serve(refuse)
    traces, usage = send(endpoint(server.url), requests(3), ledger)
    assert {trace.error for trace in traces} == {
        f"HTTP {status}: maximum context length is 8192 tokens "
        "(prompt and max_tokens must fit into the model's context)"
    }
    assert usage.failed == usage.refused == 3
    assert ledger.count_in_doubt() == 0, "what was refused costs nothing"
    assert set(server.asked.values()) == {1}


def test_a_redirect_is_refused_with_the_new_address(serve: Serve, ledger: Ledger) -> None:
    async def moved(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        return web.Response(status=301, headers={"Location": "https://new.example/v1"})

    traces, _ = send(endpoint(serve(moved).url), requests(1), ledger)
    assert traces[0].error == "HTTP 301: moved to https://new.example/v1"


def test_a_teacher_that_is_down_is_one_error_not_thousands_of_rows(ledger: Ledger) -> None:
    url = closed_port()
    begin = time.monotonic()
    with pytest.raises(TeacherError, match=f"alice at {url}: cannot be reached") as caught:
        send(endpoint(url, retries=1), requests(5000), ledger)
    assert "run again" in str(caught.value)
    assert time.monotonic() - begin < 5
    assert ledger.count_in_doubt() == 0, "what never left is not in doubt"


def test_a_teacher_that_dies_midway_is_an_error_and_its_answers_are_kept(
    serve: Serve, ledger: Ledger
) -> None:
    server = serve(answer_well)
    send(endpoint(server.url), requests(10), ledger)
    with pytest.raises(TeacherError, match="cannot be reached"):
        send(endpoint(closed_port(), retries=0), requests(50), ledger)
    assert ledger.count_answers() == 10


@pytest.mark.parametrize(
    ("status", "advice"), [(401, "MY_KEY"), (403, "MY_KEY"), (404, "`model`"), (402, "top up")]
)
def test_a_teacher_that_refuses_everyone_stops_at_once_and_says_what_to_do(
    serve: Serve, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, status: int, advice: str
) -> None:
    async def refuse(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        given = request.headers["Authorization"]
        return web.json_response({"error": {"message": f"no, {given}"}}, status=status)

    monkeypatch.setenv("MY_KEY", "sk-secret-123")
    server = serve(refuse)
    with pytest.raises(TeacherError) as caught:
        send(endpoint(server.url, key_env="MY_KEY"), requests(1000), ledger)
    assert advice in str(caught.value)
    assert f"HTTP {status}: no, Bearer [API key]" in str(caught.value)
    assert "sk-secret" not in str(caught.value)
    assert len(server.bodies) <= 4


def test_a_403_after_a_first_answer_concerns_one_request(serve: Serve, ledger: Ledger) -> None:
    async def moderate(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        if body["messages"][-1]["content"] == "question 5":
            return web.json_response({"error": "flagged"}, status=403)
        return await answer_well(request, body, tries)

    traces, usage = send(endpoint(serve(moderate).url, concurrency=1), requests(8), ledger)
    assert usage.failed == 1
    assert traces[5].error == "HTTP 403: flagged"


def test_a_server_that_answers_nothing_is_given_up_after_the_first_requests(
    serve: Serve, ledger: Ledger
) -> None:
    server = serve(no_choices)
    with pytest.raises(TeacherError, match=r"first 2[0-9] requests all failed"):
        send(endpoint(server.url, retries=0), requests(5000), ledger)
    assert len(server.bodies) < 30


def test_who_waits_for_a_retry_does_not_hold_up_the_end(serve: Serve, ledger: Ledger) -> None:
    async def wait_or_go(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        if body["messages"][-1]["content"] == "question 0":
            return web.Response(status=429, headers={"Retry-After": "600"})
        await asyncio.sleep(0.1)
        return web.Response(status=401)

    begin = time.monotonic()
    with pytest.raises(TeacherError, match="HTTP 401"):
        send(endpoint(serve(wait_or_go).url), requests(10), ledger)
    assert time.monotonic() - begin < 5
