"""Replicas answer as one engine would, lose nothing when one dies, and leave nothing behind."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from cuvee.errors import EngineError
from cuvee.models import replicas
from cuvee.models.balancer import Handler, relay, watched_socket
from cuvee.models.engines import Door, end_stale, engine_identity, serve
from cuvee.models.gguf_write import write_gguf
from cuvee.models.health import is_healthy
from cuvee.models.llama import llama_config, threads_of
from cuvee.models.places import Places, Replica
from cuvee.models.random_model import Architecture
from cuvee.models.replicas import (
    LONGEST_WAIT_SECONDS,
    MOST_DEATHS,
    Group,
    keep,
    on_this_machine,
    wait_after,
)
from cuvee.progress import Meter
from cuvee.recipe import Sampling, Serve
from cuvee.records import Trace
from cuvee.teach.client import Books, Endpoint, Request, Usage, ask, request_seed
from cuvee.teach.ledger import Ledger

from .processes import alive, wait_until

Checkpoint = Callable[[Architecture], Path]

ONE = Serve(slots=2, context=512, threads=1, start_timeout=60)
TWO = Serve(slots=2, context=512, threads=1, start_timeout=60, replicas=2)
SAMPLING = Sampling(temperature=0, top_p=1, max_tokens=80)
REQUESTS = [
    Request(f"p{n}", "math", 0, f"question {n}", request_seed(1, f"p{n}", 0)) for n in range(30)
]


@pytest.fixture(scope="module")
def gguf(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the random llama in float32, for tests that leave it as it is."""
    file = tmp_path_factory.mktemp("gguf") / "m.gguf"
    write_gguf(checkpoint("llama"), file, quantization="F32")
    return file


def pid_of(folder: Path, name: str) -> int:
    """Return the process of a pid file; 0 where there is none."""
    try:
        return int(json.loads((folder / f"{name}.pid").read_text())["pid"])
    except FileNotFoundError:
        return 0


def group_of(config: dict[str, Any], folder: Path, *, silent_seconds: float = 60) -> Group:
    """Return the group of the one replica `m.1`."""
    start = on_this_machine(config, folder=folder, seconds=60, devices={})
    return Group(("m.1",), start, config["slots"], silent_seconds)


@contextlib.contextmanager
def killed_under_load(folder: Path, meter: Meter) -> Iterator[list[int]]:
    """Kill the first replica once ten answers have come; yield whom was killed."""
    dead: list[int] = []

    def kill() -> None:
        assert wait_until(lambda: meter.answers >= 10)
        dead.append(pid_of(folder, "m.1"))
        os.kill(dead[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    yield dead
    thread.join()


def asked(
    spec: Serve, url: str, gguf: Path, ledger: Ledger, *, meter: Meter | None = None
) -> tuple[list[Trace], Usage]:
    """Ask all requests and read the answers back."""
    known = engine_identity(spec, str(gguf))
    endpoint = Endpoint("m", url, "m", known, concurrency=8, timeout=60, retries=5)
    books = Books(ledger, "run")
    answers = ask(endpoint, REQUESTS, sampling=SAMPLING, books=books, meter=meter)
    return list(answers), answers.usage()


def test_two_replicas_one_killed_under_load_answer_as_one_engine_does(
    gguf: Path, tmp_path: Path
) -> None:
    with (
        Ledger.open(tmp_path / "one.sqlite") as ledger,
        serve(ONE, str(gguf), name="m", folder=tmp_path / "one") as engine,
    ):
        lone, _ = asked(ONE, engine.url, gguf, ledger)
    folder, meter = tmp_path / "two", Meter()
    with (
        Ledger.open(tmp_path / "two.sqlite") as ledger,
        serve(TWO, str(gguf), name="m", folder=folder) as engine,
    ):
        with killed_under_load(folder, meter) as dead:
            traces, usage = asked(TWO, engine.url, gguf, ledger, meter=meter)
        assert [t.answer for t in traces] == [t.answer for t in lone]
        assert len({t.answer for t in lone}) > 20  # texts that could be mixed up
        assert [t.request for t in traces] == [t.request for t in lone]
        assert (usage.sent, usage.failed) == (len(REQUESTS), 0)
        # What was in flight on the dead one was sent twice, and the ledger says so. At the moment
        # of its death that may be nothing.
        assert usage.possibly_billed_twice <= TWO.slots
        assert ledger.count_in_doubt() == usage.possibly_billed_twice
        assert asked(TWO, engine.url, gguf, ledger)[1].sent == 0
        assert wait_until(lambda: pid_of(folder, "m.1") not in (0, dead[0]))
        assert wait_until(lambda: (folder / "m.log").read_text().count("m.1: up at") == 2)
    log = (folder / "m.log").read_text()
    # Who notices first is a race: a look at the process, or a request that finds nobody.
    assert any(how in log for how in ("ended by itself (exit code -9)", "takes no connections"))
    assert f"m.1: is replaced in 1 s (death 1 of at most {MOST_DEATHS})" in log
    assert not list(folder.glob("*.pid"))


def test_replicas_are_known_as_the_lone_engine_and_share_out_the_cores(
    gguf: Path, tmp_path: Path
) -> None:
    assert engine_identity(ONE, str(gguf)) == engine_identity(TWO, str(gguf))
    cores = len(os.sched_getaffinity(0))
    assert threads_of(Serve()) is None
    assert threads_of(Serve(replicas=cores)) == 1
    assert threads_of(Serve(replicas=10 * cores)) == 1
    assert threads_of(Serve(replicas=2)) == max(1, cores // 2)
    assert threads_of(Serve(replicas=2, threads=7)) == 7


def test_the_url_is_that_of_a_lone_engine_token_and_port_included(
    gguf: Path, tmp_path: Path
) -> None:
    door = Door(port=0, token="s3cret")
    with serve(TWO, str(gguf), name="m", folder=tmp_path, door=door) as engine:
        root = engine.url.removesuffix("/v1")
        assert is_healthy(f"{root}/health")
        assert not is_healthy(f"{engine.url}/models")  # without the token
        headers = {"Authorization": "Bearer s3cret"}
        request = urllib.request.Request(f"{engine.url}/models", headers=headers)
        with urllib.request.urlopen(request, timeout=10) as response:
            assert [m["id"] for m in json.load(response)["data"]] == ["m"]
        assert "s3cret" not in "".join(f.read_text() for f in tmp_path.glob("m*"))
        with (
            pytest.raises(EngineError, match=r"(?s)port \d+: Address already in use"),
            serve(TWO, str(gguf), name="n", folder=tmp_path, door=Door(int(root.split(":")[2]))),
        ):
            pass


def test_a_model_that_does_not_load_is_tried_once_and_the_reason_told(
    gguf: Path, tmp_path: Path
) -> None:
    file = tmp_path / "cut.gguf"
    file.write_bytes(gguf.read_bytes()[:200_000])
    with (
        pytest.raises(EngineError, match=r"(?s)not within the file bounds.*not all of them star"),
        serve(TWO, str(file), name="m", folder=tmp_path),
    ):
        pass
    for name in ("m.1", "m.2"):
        # llama.cpp says it once a start.
        assert (tmp_path / f"{name}.log").read_text().count("llama.cpp cannot serve") <= 1
    assert not list(tmp_path.glob("*.pid"))


def test_a_replica_that_only_dies_is_given_up(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "FIRST_WAIT_SECONDS", 0.001)
    file = tmp_path / "m.gguf"
    file.write_bytes(gguf.read_bytes())
    config = llama_config(ONE, file, name="m", port=0)
    group = group_of(config, tmp_path)
    places, starts = Places(2), list[Replica]()

    def tell(function: Callable[..., None], argument: object) -> None:
        if function == places.add:
            assert isinstance(argument, Replica)
            starts.append(argument)
            if len(starts) == 2:
                file.write_bytes(b"GGUF")  # from now on it does not even start
            os.kill(pid_of(tmp_path, "m.1"), signal.SIGKILL)
        if function == places.give_up:
            places.given_up.append(str(argument))

    keep("m.1", group, places=places, tell=tell, stop=threading.Event())
    assert len(starts) == 2
    assert (tmp_path / "m.1.log").read_text().count("cannot serve") == MOST_DEATHS - 2
    assert places.given_up == ["m.1"]


def test_an_engine_with_a_token_of_its_own_gets_that_and_no_client_s() -> None:
    async def echo(request: web.Request) -> web.Response:
        return web.json_response([request.headers.get("Authorization"), request.path_qs])

    async def asked_through(token: str | None) -> list[str]:
        places = Places(1)
        async with (
            TestServer(served(echo)) as engine,
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(socket_factory=watched_socket)
            ) as session,
        ):
            places.add(Replica("m.1", str(engine.make_url("")).rstrip("/"), token))
            async with (
                TestServer(served(relay(places, session))) as balancer,
                aiohttp.ClientSession() as client,
                client.get(
                    balancer.make_url("/v1/a?b=c"), headers={"authorization": "Bearer client"}
                ) as answer,
            ):
                found: list[str] = await answer.json()
                return found

    assert asyncio.run(asked_through(None)) == ["Bearer client", "/v1/a?b=c"]
    assert asyncio.run(asked_through("own")) == ["Bearer own", "/v1/a?b=c"]
    assert "own" not in repr(Replica("m.1", "http://h", "own"))


def served(handle: Handler) -> web.Application:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    return app


def test_a_connection_to_a_machine_that_is_gone_is_given_up_after_30_s() -> None:
    with closing(watched_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("h", 1)))) as found:
        assert found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle, pause, count = (
            found.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert idle + pause * count == 30
        assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


def test_waits_double_up_to_a_bound() -> None:
    assert [wait_after(deaths) for deaths in (1, 2, 3, 4)] == [1, 2, 4, 8]
    assert wait_after(50) == LONGEST_WAIT_SECONDS


@pytest.mark.slow
def test_a_replica_that_hangs_is_replaced(gguf: Path, tmp_path: Path) -> None:
    config = llama_config(ONE, gguf, name="m", port=0)
    group = group_of(config, tmp_path, silent_seconds=1)
    places, stop = Places(2), threading.Event()
    starts: list[int] = []

    def tell(function: Callable[..., None], argument: object) -> None:
        if function == places.add:
            starts.append(pid_of(tmp_path, "m.1"))
            if len(starts) == 1:
                os.kill(starts[0], signal.SIGSTOP)
            else:
                stop.set()

    keep("m.1", group, places=places, tell=tell, stop=stop)
    assert len(starts) == 2
    assert not any(alive(pid) for pid in starts)


PARENT = """
import sys, time
from pathlib import Path
from cuvee.models.engines import serve
from cuvee.recipe import Serve
spec = Serve(slots=1, context=64, threads=1, replicas=2)
with serve(spec, sys.argv[2], name="m", folder=Path(sys.argv[1])) as engine:
    print(engine.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("victim", ["parent", "balancer"])
def test_kill_9_of_the_parent_or_the_balancer_leaves_no_process(
    victim: str, gguf: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path), str(gguf)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE)
    with contextlib.closing(parent.stdout) as output:  # type: ignore[type-var]
        balancer = int(output.readline())  # type: ignore[union-attr]
        family = [balancer, pid_of(tmp_path, "m.1"), pid_of(tmp_path, "m.2")]
        assert len(set(family)) == 3
        assert all(alive(pid) for pid in family)
        os.kill(parent.pid if victim == "parent" else balancer, signal.SIGKILL)
        assert wait_until(lambda: not any(alive(pid) for pid in family))
        parent.kill()
        parent.wait()
    assert end_stale(tmp_path) == 0
    assert not list(tmp_path.glob("*.pid"))


def test_stale_replicas_are_ended_by_their_pid_files(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    stale = subprocess.Popen(command, start_new_session=True)
    start = int(Path(f"/proc/{stale.pid}/stat").read_text().rpartition(")")[2].split()[19])
    (tmp_path / "m.2.pid").write_text(json.dumps({"pid": stale.pid, "start": start}))
    assert end_stale(tmp_path) == 1
    assert stale.wait(timeout=20) == -signal.SIGTERM


def test_replicas_that_are_stopped_while_they_start_leave_nothing(
    gguf: Path, tmp_path: Path
) -> None:
    spec = TWO.model_copy(update={"start_timeout": 0.05})
    begin = time.monotonic()
    with (
        pytest.raises(EngineError, match=r"(?s)did not answer within 0\.05 s"),
        serve(spec, str(gguf), name="m", folder=tmp_path),
    ):
        pass
    assert time.monotonic() - begin < 15
    assert not list(tmp_path.glob("*.pid"))
