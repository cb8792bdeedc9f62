"""The client against a real server: what is sent, what comes back, what is never asked twice."""

import asyncio
import json
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from cuvee.errors import RecipeError
from cuvee.progress import Meter
from cuvee.records import Trace, content_hash
from cuvee.teach.client import Books, Request, Usage, all_answered, ask, request_seed
from cuvee.teach.ledger import Ledger
from cuvee.teach.request import question

from .conftest import (
    SAMPLING,
    Body,
    Serve,
    answer_well,
    closed_port,
    completion,
    endpoint,
    requests,
    send,
)

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
    assert usage == Usage(20, 0, 0, 0, 0, 220, 440, 0, None, None)


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
    assert usage == Usage(0, 30, 0, 0, 0, 330, 660, 0, None, None)


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
    answers = ask(endpoint(server.url), requests(3), sampling=sampling, books=Books(ledger))
    assert len(list(answers)) == len(answers) == 3
    assert answers.usage().sent == 3


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


def test_no_form_of_the_key_is_ever_in_ledger_log_or_error(
    serve: Serve,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Echoed in a body, an error, a redirect, a slash escaped, or in two pieces of a stream."""
    key = "sk/secret-123"

    async def echo(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        given, asked = request.headers["Authorization"], body["messages"][-1]["content"]
        if asked == "question 0":
            return web.Response(status=400, text=given.replace("/", "\\/"))
        if asked == "question 1":
            return web.Response(status=302, headers={"Location": f"https://x/?key={given[7:]}"})
        if asked == "question 2":
            return web.Response(text=f"no JSON, {given}")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for part in ("you sent sk/se", "cret-123"):
            delta = {"index": 0, "delta": {"content": part}, "finish_reason": "stop"}
            await response.write(f"data: {json.dumps({'choices': [delta]})}\n\n".encode())
        return response

    monkeypatch.setenv("MY_KEY", key)
    caplog.set_level(0)
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        to = endpoint(serve(echo).url, key_env="MY_KEY", retries=0, stream=True)
        traces, usage = send(to, requests(6), ledger)
        kept = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    kept += path.read_bytes()
    assert usage.failed == 3
    assert traces[5].answer == "you sent [API key]"
    everything = kept.decode("utf-8", "replace") + repr(traces) + repr(usage) + caplog.text
    assert "you sent" in everything
    assert "secret" not in everything


@pytest.mark.parametrize("value", ["sk-1\nX-Evil: 1", "sk 1", "sk-\u20ac"])
def test_what_cannot_be_a_key_is_refused_without_being_shown(
    serve: Serve, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(RecipeError, match="MY_KEY") as caught:
        send(endpoint(closed_port(), key_env="MY_KEY"), requests(1), ledger)
    assert "sk" not in str(caught.value)


def test_a_replay_needs_neither_key_nor_address(
    serve: Serve, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = endpoint(serve(answer_well).url)
    assert not all_answered(to, requests(3), sampling=SAMPLING, ledger=ledger)
    first, _ = send(to, requests(3), ledger)
    monkeypatch.delenv("MY_KEY", raising=False)
    gone = endpoint("", key_env="MY_KEY")
    assert all_answered(gone, requests(3), sampling=SAMPLING, ledger=ledger)
    again, usage = send(gone, requests(3), ledger)
    assert (again, usage.sent) == (first, 0)


# Many at once


def test_concurrency_is_used_and_never_exceeded(serve: Serve, ledger: Ledger) -> None:
    async def slow(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        await asyncio.sleep(0.05)
        return await answer_well(request, body, tries)

    server = serve(slow)
    send(endpoint(server.url, concurrency=7), requests(40), ledger)
    assert server.most_in_flight == 7


def test_no_requests_are_no_traces(ledger: Ledger) -> None:
    assert send(endpoint(closed_port()), [], ledger) == (
        [],
        Usage(0, 0, 0, 0, 0, 0, 0, 0, None, None),
    )


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


@given(st.text(max_size=30), st.none() | st.text(max_size=10), st.integers(0, 2**31 - 1))
def test_the_key_is_the_hash_of_what_the_ledger_keeps(
    prompt: str, system: str | None, seed: int
) -> None:
    asked = question(endpoint("", system=system), Request("p", "math", 3, prompt, seed), SAMPLING)
    assert asked.key == content_hash(json.loads(asked.content))
    assert json.loads(asked.body)["messages"] == json.loads(asked.content)["messages"]


def test_the_same_question_twice_in_one_call_is_bought_once(serve: Serve, ledger: Ledger) -> None:
    async def slow(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        await asyncio.sleep(0.05)
        return await answer_well(request, body, tries)

    server = serve(slow)
    [one] = requests(1)
    meter = Meter()
    traces, usage = send(endpoint(server.url), [one] * 9, ledger, meter=meter)
    assert len(server.bodies) == 1
    assert len({trace.answer for trace in traces}) == 1
    assert (usage.sent, usage.from_ledger) == (1, 8)
    assert (meter.answers, meter.from_ledger) == (9, 8)


def test_the_usage_is_known_once_the_traces_were_read(serve: Serve, ledger: Ledger) -> None:
    answers = ask(
        endpoint(serve(answer_well).url), requests(3), sampling=SAMPLING, books=Books(ledger)
    )
    with pytest.raises(ValueError, match="once the traces have been read"):
        answers.usage()
    assert list(answers) == list(answers), "they can be read again"
    assert answers.usage().sent == 3


def test_more_connections_than_the_system_allows_are_refused_by_name(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match="concurrency 1000000000 needs 1000000256 open files"):
        send(endpoint(closed_port(), concurrency=10**9), requests(1), ledger)


def test_memory_does_not_grow_with_the_number_of_requests(serve: Serve, ledger: Ledger) -> None:
    class Rows:
        def __init__(self, count: int) -> None:
            self.count = count

        def __len__(self) -> int:
            return self.count

        def __iter__(self) -> Iterator[Request]:
            return (Request(f"p{n}", "math", 0, str(n), n) for n in range(self.count))

    text = "so then, " * 1000

    async def long(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        return web.json_response(completion(text))

    # Some 9 KB an answer: more than 3 MB more to the larger number.
    def peak(count: int) -> int:
        to = endpoint(server.url, concurrency=16, identity=f"of {count}")
        tracemalloc.start()
        try:
            answers = ask(to, Rows(count), sampling=SAMPLING, books=Books(ledger))
            assert sum(1 for _ in answers) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    server = serve(long)
    peak(20)
    few = peak(40)
    server.bodies.clear()
    assert peak(400) - few < 1_500_000
