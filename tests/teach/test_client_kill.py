"""A client in a process of its own that is killed at any moment, and processes that share."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from aiohttp import web

from cuvee.teach.client import Books, ask
from cuvee.teach.ledger import Ledger
from cuvee.teach.request import request_key

from .conftest import (
    SAMPLING,
    Body,
    Loopback,
    Serve,
    answer_well,
    completion,
    endpoint,
    requests,
    send,
)

CONCURRENCY = 8
NURSERY = """
    import os, sys
    from cuvee.recipe import Sampling
    from cuvee.teach.client import Books, Endpoint, Request, ask, request_seed
    from cuvee.teach.ledger import Ledger
    print("ready", flush=True)
    for line in sys.stdin:
        if line == "wait\\n":
            print(os.wait()[1], flush=True)
            continue
        url, path, count = line.split()
        if child := os.fork():
            print(child, flush=True)
            continue
        asked = [Request(f"p{n}", "math", 0, f"question {n}", request_seed(1, f"p{n}", 0))
                 for n in range(int(count))]
        to = Endpoint("alice", url, "m", "id", concurrency=8, timeout=10, retries=2)
        sampling = Sampling(temperature=0.5, top_p=0.9, max_tokens=64)
        with Ledger.open(path) as ledger:
            ask(to, asked, sampling=sampling, books=Books(ledger, "run 1"))
        os._exit(0)
    """
"""A process that has imported everything, and forks a client for each line it reads."""


class Nursery:
    """Starts clients in processes of their own, quickly."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def start(self, url: str, path: Path, count: int) -> int:
        """Start a client of `count` requests; return its process id."""
        return int(self.say(f"{url} {path} {count}"))

    def wait(self) -> int:
        """Wait for the end of a client; return its wait status: a signal, or 256 * exit code."""
        return int(self.say("wait"))

    def say(self, line: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.hear()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    command = [sys.executable, "-c", textwrap.dedent(NURSERY)]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-3, text=True) as process:
        found = Nursery(process)
        assert found.hear() == "ready"
        yield found
        assert process.stdin is not None
        process.stdin.close()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


async def after_a_moment(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
    await asyncio.sleep(0.02)
    return await answer_well(request, body, tries)


def kept_prompts(ledger: Ledger, count: int) -> set[str]:
    """Return the prompts of the requests that the ledger answers."""
    to = endpoint("")
    return {r.prompt for r in requests(count) if ledger.holds(request_key(to, r, SAMPLING))}


def times_asked(server: Loopback) -> Counter[str]:
    return Counter({prompt: times for (prompt, _), times in server.asked.items()})


@pytest.mark.parametrize(
    "kills", [8, pytest.param(50, marks=pytest.mark.slow)], ids=lambda kills: f"{kills} kills"
)
def test_a_client_killed_at_any_moment_never_asks_again_what_was_answered(
    serve: Serve, nursery: Nursery, tmp_path: Path, kills: int
) -> None:
    server, path, rng = serve(after_a_moment), tmp_path / "ledger.sqlite", Random(kills)
    count = 40 * kills
    kept: set[str] = set()
    doubtful = 0
    for _ in range(kills):
        before, seen = times_asked(server), len(server.bodies) + rng.randrange(40)
        pid = nursery.start(server.url, path, count)
        wait_for(lambda seen=seen: len(server.bodies) >= seen)  # type: ignore[misc]
        time.sleep(rng.random() * 0.03)
        os.kill(pid, signal.SIGKILL)
        assert nursery.wait() == signal.SIGKILL
        wait_for(lambda: server.in_flight == 0)
        again = {
            prompt for prompt, times in times_asked(server).items() if 0 < before[prompt] < times
        }
        assert not again & kept, "answered, and asked once more"
        assert len(again) <= doubtful, "asked once more without having been in flight"
        with Ledger.open(path) as ledger:
            kept, in_doubt = kept_prompts(ledger, count), ledger.count_in_doubt()
        assert in_doubt <= doubtful + CONCURRENCY
        doubtful = in_doubt
    before = times_asked(server)
    with Ledger.open(path) as ledger:
        to = endpoint(server.url, concurrency=CONCURRENCY)
        traces, usage = send(to, requests(count), ledger)
        assert ledger.spent("run 1").total.answers == count
    assert (usage.failed, usage.from_ledger, usage.sent) == (0, len(kept), count - len(kept))
    assert usage.possibly_billed_twice <= doubtful
    assert [trace.answer for trace in traces] == [str(r.seed) for r in requests(count)]
    assert all(times_asked(server)[prompt] == before[prompt] for prompt in kept)
    assert sum(server.asked.values()) - count <= doubtful, "what was asked twice was counted"


def test_ctrl_c_keeps_what_was_answered_and_ends(
    serve: Serve, nursery: Nursery, tmp_path: Path
) -> None:
    server, path = serve(after_a_moment), tmp_path / "ledger.sqlite"
    pid = nursery.start(server.url, path, 400)
    wait_for(lambda: len(server.bodies) >= 60)
    os.kill(pid, signal.SIGINT)
    assert nursery.wait() != 0
    with Ledger.open(path) as ledger:
        assert 60 - CONCURRENCY <= ledger.count_answers() < 400
        assert ledger.count_in_doubt() <= CONCURRENCY


def test_a_stop_from_another_thread_ends_the_asking(serve: Serve, ledger: Ledger) -> None:
    async def sleeps(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        if body["messages"][-1]["content"] == "question 0":
            return await answer_well(request, body, tries)
        stop.set()
        await asyncio.sleep(30)
        return web.Response()

    stop, begin = threading.Event(), time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ask(
            endpoint(serve(sleeps).url, concurrency=1),
            requests(5),
            sampling=SAMPLING,
            books=Books(ledger),
            stop=stop,
        )
    assert time.monotonic() - begin < 5
    assert (ledger.count_answers(), ledger.count_in_doubt()) == (1, 1)


def test_two_processes_on_one_ledger_end_with_the_same_answers(
    serve: Serve, nursery: Nursery, tmp_path: Path
) -> None:
    async def never_the_same(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        await asyncio.sleep(0.01)
        return web.json_response(completion(f"{body['seed']} for try {tries}"))

    server, path = serve(never_the_same), tmp_path / "ledger.sqlite"
    for _ in range(2):
        nursery.start(server.url, path, 100)
    assert [nursery.wait(), nursery.wait()] == [0, 0]
    with Ledger.open(path) as ledger:
        assert ledger.count_answers() == 100
        _, usage = send(endpoint(server.url), requests(100), ledger)
    assert (usage.sent, usage.from_ledger) == (0, 100)
