"""The client against a real server that misbehaves on purpose."""

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from cuvee.errors import RecipeError, TeacherError
from cuvee.recipe import Sampling
from cuvee.records import Trace
from cuvee.teach.client import Endpoint, Request, Usage, ask, request_seed
from cuvee.teach.exchange import LONGEST_WAIT_SECONDS, wait_before
from cuvee.teach.ledger import Ledger
from cuvee.teach.reply import UnreadableReplyError, read_error, read_reply

from .conftest import Behaviour, Body, Loopback, answer_well, completion

Serve = Callable[[Behaviour], Loopback]
SAMPLING = Sampling(temperature=0.5, top_p=0.9, max_tokens=64)


def endpoint(url: str, **changes: Any) -> Endpoint:
    usual = Endpoint("alice", url, "m", "id", concurrency=4, timeout=10.0, retries=2)
    return replace(usual, **changes)


def requests(count: int) -> list[Request]:
    return [
        Request(f"p{n}", "math", 0, f"question {n}", request_seed(1, f"p{n}", 0))
        for n in range(count)
    ]


def send(to: Endpoint, asked: list[Request], ledger: Ledger) -> tuple[list[Trace], Usage]:
    return ask(to, asked, sampling=SAMPLING, ledger=ledger, label="test")


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


def first_try(fault: Behaviour) -> Behaviour:
    """Misbehave on the first try of every request, then answer well."""

    async def behave(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        return await (fault if tries == 1 else answer_well)(request, body, tries)

    return behave


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


# What is sent, what comes back


def test_traces_come_in_the_order_of_the_requests_with_all_that_was_said(
    serve: Serve, ledger: Ledger
) -> None:
    rng = Random(3)

    async def out_of_order(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        await asyncio.sleep(rng.random() * 0.05)
        return await answer_well(request, body, tries)

    server = serve(out_of_order)
    asked = requests(20)
    traces, usage = send(endpoint(server.url), asked, ledger)
    assert [trace.problem_id for trace in traces] == [request.problem_id for request in asked]
    assert [trace.answer for trace in traces] == [str(request.seed) for request in asked]
    assert traces[7].reasoning == "about question 7"
    assert traces[7].domain == "math"
    assert traces[7].model == "alice"
    assert (traces[7].finish_reason, traces[7].error) == ("stop", None)
    assert (traces[7].prompt_tokens, traces[7].completion_tokens) == (11, 22)
    assert traces[7].fingerprint == "fp-7"
    assert traces[7].seconds > 0
    assert len({trace.id for trace in traces}) == 20
    assert usage == Usage(20, 0, 0, 0, 220, 440, 0)


def test_exactly_these_fields_are_sent_and_never_a_stop_string(
    serve: Serve, ledger: Ledger
) -> None:
    server = serve(answer_well)
    send(endpoint(server.url, system="Be brief."), requests(1), ledger)
    assert server.bodies == [
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "question 0"},
            ],
            "temperature": 0.5,
            "top_p": 0.9,
            "max_tokens": 64,
            "seed": request_seed(1, "p0", 0),
            "n": 1,
        }
    ]


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


def test_seeds_depend_on_the_request_alone() -> None:
    assert request_seed(1, "p", 0) == request_seed(1, "p", 0)
    seeds = {request_seed(s, p, k) for s in (1, 2) for p in "pq" for k in (0, 1)}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**31 for seed in seeds)


# Never bought twice


def test_a_second_run_sends_nothing_and_gives_the_same_rows(serve: Serve, ledger: Ledger) -> None:
    server = serve(answer_well)
    first, _ = send(endpoint(server.url), requests(30), ledger)
    second, usage = send(endpoint(server.url), requests(30), ledger)
    assert second == first
    assert len(server.bodies) == 30
    assert usage == Usage(0, 30, 0, 0, 330, 660, 0)


def test_more_rows_cost_only_the_new_ones_and_order_does_not_matter(
    serve: Serve, ledger: Ledger
) -> None:
    server = serve(answer_well)
    send(endpoint(server.url), requests(10), ledger)
    _, usage = send(endpoint(server.url), requests(15)[::-1], ledger)
    assert (usage.sent, usage.from_ledger) == (5, 10)


@pytest.mark.parametrize(
    "change",
    [{"identity": "other"}, {"system": "Be brief."}],
)
def test_another_identity_or_system_message_is_another_question(
    serve: Serve, ledger: Ledger, change: dict[str, str]
) -> None:
    server = serve(answer_well)
    send(endpoint(server.url), requests(3), ledger)
    _, usage = send(endpoint(server.url, **change), requests(3), ledger)
    assert usage.sent == 3


@pytest.mark.parametrize(
    "change", [{"temperature": 0.6}, {"top_p": 0.8}, {"max_tokens": 65}], ids=str
)
def test_other_sampling_is_another_question(
    serve: Serve, ledger: Ledger, change: dict[str, float]
) -> None:
    server = serve(answer_well)
    send(endpoint(server.url), requests(3), ledger)
    sampling = SAMPLING.model_copy(update=change)
    _, usage = ask(
        endpoint(server.url), requests(3), sampling=sampling, ledger=ledger, label="test"
    )
    assert usage.sent == 3


def test_address_name_and_speed_of_the_same_model_change_nothing(
    serve: Serve, ledger: Ledger
) -> None:
    first, second = serve(answer_well), serve(answer_well)
    mine, _ = send(endpoint(first.url), requests(3), ledger)
    other = endpoint(second.url, concurrency=1, timeout=99.0, name="bob")
    theirs, usage = send(other, requests(3), ledger)
    assert (usage.sent, usage.from_ledger) == (0, 3)
    assert [trace.answer for trace in theirs] == [trace.answer for trace in mine]
    assert not {trace.id for trace in mine} & {trace.id for trace in theirs}


def test_a_truncated_answer_is_data_and_is_not_bought_again(serve: Serve, ledger: Ledger) -> None:
    async def cut(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        return web.json_response(completion("<think>and so", finish_reason="length"))

    server = serve(cut)
    traces, usage = send(endpoint(server.url), requests(2), ledger)
    again, _ = send(endpoint(server.url), requests(2), ledger)
    assert [trace.finish_reason for trace in traces] == ["length", "length"]
    assert (usage.truncated, usage.failed) == (2, 0)
    assert again == traces
    assert len(server.bodies) == 2


# Faults that pass


@pytest.mark.parametrize(
    "fault",
    [reset, half_a_body, cut_json, no_choices, error_with_200, overloaded],
    ids=lambda fault: fault.__name__,
)
def test_a_fault_that_passes_is_tried_again(serve: Serve, ledger: Ledger, fault: Behaviour) -> None:
    server = serve(first_try(fault))
    traces, usage = send(endpoint(server.url), requests(4), ledger)
    assert [trace.answer for trace in traces] == [str(request.seed) for request in requests(4)]
    assert (usage.sent, usage.failed) == (4, 0)
    assert set(server.asked.values()) == {2}
    assert ledger.count_in_doubt() == 0


@pytest.mark.parametrize(("fault", "doubtful"), [(reset, 3), (half_a_body, 3), (overloaded, 0)])
def test_what_may_have_been_billed_before_is_counted(
    serve: Serve, ledger: Ledger, fault: Behaviour, doubtful: int
) -> None:
    _, usage = send(endpoint(serve(first_try(fault)).url), requests(3), ledger)
    assert usage.possibly_billed_twice == doubtful


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


# Faults that stay


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
    assert (usage.sent, usage.failed) == (6, 1)
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
        f"HTTP {status}: maximum context length is 8192 tokens"
    }
    assert usage.failed == 3
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


# Keys


def test_a_missing_key_is_named_before_anything_is_sent(
    serve: Serve, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    server = serve(answer_well)
    with pytest.raises(RecipeError, match="MY_KEY"):
        send(endpoint(server.url, key_env="MY_KEY"), requests(1), ledger)
    assert server.bodies == []


def test_the_key_is_sent_and_never_kept_even_where_the_server_repeats_it(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def echo(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        key = request.headers["Authorization"]
        if body["messages"][-1]["content"] == "question 1":
            return web.json_response({"error": {"message": key}}, status=400)
        return web.json_response(completion(f"your headers say {key}"))

    monkeypatch.setenv("MY_KEY", "sk-secret-123")
    server = serve(echo)
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        traces, _ = send(endpoint(server.url, key_env="MY_KEY"), requests(3), ledger)
        kept = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    kept += path.read_bytes()
    assert server.headers[0]["Authorization"] == "Bearer sk-secret-123"
    assert b"your headers say" in kept
    assert b"sk-secret" not in kept
    assert "sk-secret" not in repr(traces)


# Many at once


def test_concurrency_is_used_and_never_exceeded(serve: Serve, ledger: Ledger) -> None:
    async def slow(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        await asyncio.sleep(0.05)
        return await answer_well(request, body, tries)

    server = serve(slow)
    send(endpoint(server.url, concurrency=7), requests(40), ledger)
    assert server.most_in_flight == 7


def test_no_requests_are_no_traces(ledger: Ledger) -> None:
    assert send(endpoint(closed_port()), [], ledger) == ([], Usage(0, 0, 0, 0, 0, 0, 0))


def test_it_works_beside_a_running_event_loop(serve: Serve, ledger: Ledger) -> None:
    server = serve(answer_well)
    found: list[tuple[list[Trace], Usage]] = []

    async def busy() -> None:
        work = threading.Thread(
            target=lambda: found.append(send(endpoint(server.url), requests(5), ledger))
        )
        work.start()
        while work.is_alive():
            await asyncio.sleep(0.01)

    asyncio.run(busy())
    assert found[0][1].sent == 5


# Processes that die, and processes that share

CHILD = """
    import sys
    from cuvee.recipe import Sampling
    from cuvee.teach.client import Endpoint, Request, ask, request_seed
    from cuvee.teach.ledger import Ledger
    url, path, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    asked = [Request(f"p{n}", "math", 0, f"question {n}", request_seed(1, f"p{n}", 0))
             for n in range(count)]
    to = Endpoint("alice", url, "m", "id", concurrency=8, timeout=10, retries=2)
    with Ledger.open(path) as ledger:
        traces, usage = ask(to, asked, sampling=Sampling(temperature=0.5, top_p=0.9, max_tokens=64),
                            ledger=ledger, label="child")
    print(usage.sent, usage.failed)
    """


def start_child(url: str, path: Path, count: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), url, str(path), str(count)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


async def after_a_moment(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
    await asyncio.sleep(0.02)
    return await answer_well(request, body, tries)


@pytest.mark.parametrize(
    ("kill_at", "how"),
    [(1, signal.SIGKILL), (37, signal.SIGKILL), (120, signal.SIGKILL), (60, signal.SIGINT)],
)
def test_a_killed_run_goes_on_without_asking_what_was_answered(
    serve: Serve, tmp_path: Path, kill_at: int, how: signal.Signals
) -> None:
    server = serve(after_a_moment)
    path = tmp_path / "ledger.sqlite"
    child = start_child(server.url, path, 200)
    wait_for(lambda: len(server.bodies) >= kill_at)
    child.send_signal(how)
    child.communicate()
    assert child.returncode != 0
    time.sleep(0.1)  # the server notices that its clients are gone
    asked_before = len(server.bodies)
    with Ledger.open(path) as ledger:
        kept, in_doubt = ledger.count_answers(), ledger.count_in_doubt()
        traces, usage = send(endpoint(server.url), requests(200), ledger)
        assert ledger.count_in_doubt() == 0
    assert usage.from_ledger == kept
    assert usage.sent == 200 - kept
    assert usage.possibly_billed_twice == in_doubt <= 8
    assert len(server.bodies) - asked_before == 200 - kept
    assert sum(tries - 1 for tries in server.asked.values()) <= in_doubt
    assert [trace.answer for trace in traces] == [str(r.seed) for r in requests(200)]


def test_two_processes_on_one_ledger_end_with_the_same_answers(
    serve: Serve, tmp_path: Path
) -> None:
    async def never_the_same(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        await asyncio.sleep(0.01)
        return web.json_response(completion(f"{body['seed']} for try {tries}"))

    server = serve(never_the_same)
    path = tmp_path / "ledger.sqlite"
    children = [start_child(server.url, path, 100) for _ in range(2)]
    for child in children:
        out, err = child.communicate()
        assert child.returncode == 0, err
        assert out.split()[-1] == "0"
    with Ledger.open(path) as ledger:
        assert ledger.count_answers() == 100
        _, usage = send(endpoint(server.url), requests(100), ledger)
    assert (usage.sent, usage.from_ledger) == (0, 100)
