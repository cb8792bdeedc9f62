"""Replicas on two Ray nodes of this machine: nothing is lost, what dies is replaced or ended."""

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cuvee.models.engines import Engine, engine_identity, serve
from cuvee.models.gguf_write import write_gguf
from cuvee.models.random_model import write_random_model
from cuvee.progress import Meter
from cuvee.recipe import Sampling, Serve
from cuvee.records import Trace
from cuvee.teach.client import Books, Endpoint, Request, Usage, ask, request_seed
from cuvee.teach.ledger import Ledger

from ..models.processes import alive, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SAMPLING = Sampling(temperature=0, top_p=1, max_tokens=80)
REQUESTS = [
    Request(f"p{n}", "math", 0, f"question {n}", request_seed(1, f"p{n}", 0)) for n in range(30)
]
UP = re.compile(r"(m\.\d): up at (http://\S+), process (\d+) on (\S+)")
MACHINES = """
import sys
from ray.cluster_utils import Cluster
small = {"object_store_memory": 100 << 20, "include_dashboard": False}
for left in (2, 1, 0):  # a node gives its agent 15 s, which a busy machine may not keep
    try:
        machines = Cluster(True, head_node_args={"num_cpus": 2, "num_gpus": 2, **small})
        break
    except Exception:
        if not left:
            raise
second = machines.add_node(num_cpus=1, num_gpus=1, **small)
print(machines.address, flush=True)
for line in sys.stdin:
    if line == "remove\\n":
        machines.remove_node(second, allow_graceful=False)
    else:
        second = machines.add_node(num_cpus=1, num_gpus=1, **small)
    print("done", flush=True)
machines.shutdown()
"""


class Machines:
    """Two nodes of Ray, owned by a process of their own; the second has room for one replica."""

    def __init__(self, process: "subprocess.Popen[str]", address: str) -> None:
        self.process, self.address = process, address

    def tell(self, what: str) -> None:
        """Have the second node removed, or another one added."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'cuvee[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        # As cuvee starts a Ray: on the loopback alone. A busy machine gets more than its 30 s.
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_raylet_start_wait_time_s", "200")
        command = [sys.executable, "-c", MACHINES]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address, "the nodes did not start"
            yield Machines(process, address)
            process.communicate()


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    write_random_model(folder / "m")
    write_gguf(folder / "m", folder / "m.gguf", quantization="F32")
    return folder / "m.gguf"


def spec_of(machines: Machines | None, **more: Any) -> Serve:
    """Return how two replicas, or (without machines) one engine here, are served."""
    shape = {"slots": 2, "context": 512, "threads": 1, "start_timeout": 120}
    if machines is None:
        return Serve.model_validate(shape)
    over = {"over": "ray", "address": machines.address, "replicas": 2, "gpus": 1}
    return Serve.model_validate({**shape, **over, **more})


def stat_of(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def ups(folder: Path) -> list[tuple[str, str, int]]:
    """Return name, URL and process of every engine that came up, in order."""
    found = UP.findall((folder / "m.log").read_text())
    return [(name, url, int(pid)) for name, url, pid, _ in found]


def asked(
    spec: Serve, url: str, gguf: Path, ledger: Ledger, *, meter: Meter | None = None
) -> tuple[list[Trace], Usage]:
    """Ask all requests and read the answers back."""
    known = engine_identity(spec, str(gguf))
    endpoint = Endpoint("m", url, "m", known, concurrency=8, timeout=60, retries=5)
    answers = ask(endpoint, REQUESTS, sampling=SAMPLING, books=Books(ledger, "run"), meter=meter)
    return list(answers), answers.usage()


@contextlib.contextmanager
def under_load(meter: Meter, harm: Callable[[], object]) -> Iterator[None]:
    """Do harm once ten answers have come."""

    def wait() -> None:
        assert wait_until(lambda: meter.answers >= 10)
        harm()

    thread = threading.Thread(target=wait)
    thread.start()
    yield
    thread.join()


def lone_answers(gguf: Path, folder: Path) -> list[str]:
    with (
        Ledger.open(folder / "one.sqlite") as ledger,
        serve(spec_of(None), str(gguf), name="m", folder=folder / "one") as engine,
    ):
        return [trace.answer for trace in asked(spec_of(None), engine.url, gguf, ledger)[0]]


def check_answers(
    engine: Engine, spec: Serve, gguf: Path, folder: Path, harm: Callable[[], object]
) -> None:
    """Ask all under load, do harm half way, and compare with what one engine says."""
    meter = Meter()
    with Ledger.open(folder / "two.sqlite") as ledger:
        with under_load(meter, harm):
            traces, usage = asked(spec, engine.url, gguf, ledger, meter=meter)
        assert (usage.sent, usage.failed) == (len(REQUESTS), 0)
        # What was in flight on the dead one may have been worked on twice, and no more than that.
        assert usage.possibly_billed_twice <= spec.slots
    assert [trace.answer for trace in traces] == lone_answers(gguf, folder)


def test_an_actor_killed_under_load_takes_its_engine_along_and_is_replaced(
    machines: Machines, gguf: Path, tmp_path: Path
) -> None:
    spec, folder = spec_of(machines), tmp_path / "two"
    assert engine_identity(spec, str(gguf)) == engine_identity(spec_of(None), str(gguf))
    with serve(spec, str(gguf), name="m", folder=folder) as engine:
        (_, url, victim), (_, _, other) = ups(folder)
        check_is_closed_and_secret(url, [victim, other, engine.pid], folder)
        actor = int(stat_of(victim)[1])
        check_answers(engine, spec, gguf, tmp_path, lambda: os.kill(actor, signal.SIGKILL))
        assert wait_until(lambda: not alive(victim))
        assert wait_until(lambda: len(ups(folder)) == 3)
        assert alive(other)
        family = [pid for _, _, pid in ups(folder)]
    assert wait_until(lambda: not any(alive(pid) for pid in family))
    # Who notices first is a race: a request that finds nobody, or Ray.
    assert "(death 1 of at most 5)" in (folder / "m.log").read_text()


def check_is_closed_and_secret(url: str, processes: list[int], folder: Path) -> None:
    """The engine lets nobody in without its token, which stands in its environment alone."""
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{url}/v1/models", timeout=10)
    environment = Path(f"/proc/{processes[0]}/environ").read_text().split("\0")
    said = dict(entry.split("=", 1) for entry in environment if "=" in entry)
    token = said["CUVEE_ENGINE_TOKEN"]
    assert len(token) > 20
    assert said["CUDA_VISIBLE_DEVICES"] in ("0", "1")
    told = "".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in processes)
    told += "".join(file.read_text() for file in folder.glob("m*"))
    assert token not in told


def test_a_node_that_is_removed_loses_nothing_and_its_replica_comes_up_on_another(
    machines: Machines, gguf: Path, tmp_path: Path
) -> None:
    spec, folder = spec_of(machines), tmp_path / "two"
    with serve(spec, str(gguf), name="m", folder=folder) as engine:
        check_answers(engine, spec, gguf, tmp_path, lambda: machines.tell("remove"))
        assert wait_until(lambda: len(ups(folder)) == 3)
        family = [pid for _, _, pid in ups(folder)]
        assert wait_until(lambda: [alive(pid) for pid in family].count(True) == 2)
        machines.tell("add")
    assert wait_until(lambda: not any(alive(pid) for pid in family))


PARENT = """
import sys, time
from pathlib import Path
from cuvee.models.engines import serve
from cuvee.recipe import Serve
with serve(Serve.model_validate_json(sys.argv[3]), sys.argv[2], name="m", folder=Path(sys.argv[1])):
    print("up", flush=True)
    time.sleep(600)
"""


def test_kill_9_of_the_run_leaves_no_engine_on_any_node(
    machines: Machines, gguf: Path, tmp_path: Path
) -> None:
    arguments = [str(tmp_path), str(gguf), spec_of(machines).model_dump_json()]
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, *arguments], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        family = [pid for _, _, pid in ups(tmp_path)]
        assert len(family) == 2
        assert all(alive(pid) for pid in family)
        parent.kill()
    assert wait_until(lambda: not any(alive(pid) for pid in family))


def test_a_cluster_without_room_says_what_it_has(
    machines: Machines, gguf: Path, tmp_path: Path
) -> None:
    with (
        pytest.raises(Exception, match=r"(?s)4 replicas of 1 CPUs and 1 GPUs each.*room for 3"),
        serve(spec_of(machines, replicas=4), str(gguf), name="m", folder=tmp_path),
    ):
        pass


FAKE_VLLM = """#!{python}
import http.server, os, sys
if "--version" in sys.argv:
    sys.exit(print("0.33.0"))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        wanted = "Bearer " + os.environ["VLLM_API_KEY"]
        open_to_all = self.path == "/health"
        self.send_response(200 if open_to_all or self.headers["Authorization"] == wanted else 401)
        self.end_headers()
    def log_message(self, *arguments): pass
flag = lambda name: sys.argv[sys.argv.index(name) + 1]
http.server.ThreadingHTTPServer((flag("--host"), int(flag("--port"))), Handler).serve_forever()
"""


def test_vllm_s_replicas_are_engines_of_their_own_with_the_gpus_that_ray_gives(
    machines: Machines, gguf: Path, tmp_path: Path
) -> None:
    program = tmp_path / "vllm"
    program.write_text(FAKE_VLLM.format(python=sys.executable))
    program.chmod(0o755)
    spec = Serve(
        engine="vllm", command=str(program), over="ray", address=machines.address,
        start_timeout=120, args={"tensor_parallel_size": 2},
    )  # fmt: skip
    model = str(gguf.parent / "m")
    with serve(spec, model, name="m", folder=tmp_path / "run") as engine:
        assert engine.model == model
        ((_, url, pid),) = ups(tmp_path / "run")
        command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        assert command[2:5] == ["serve", model, "--host"]
        assert "--data-parallel-size" not in command
        assert command[command.index("--tensor-parallel-size") + 1] == "2"
        environment = Path(f"/proc/{pid}/environ").read_text().split("\0")
        assert "CUDA_VISIBLE_DEVICES=0,1" in environment
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{url}/v1/models", timeout=10)
        with urllib.request.urlopen(f"{engine.url}/models", timeout=10) as response:
            assert response.status == 200  # the balancer has the token
    assert wait_until(lambda: not alive(pid))
    assert json.loads((tmp_path / "run" / "m.json").read_text())["serve"]["over"] == "ray"
