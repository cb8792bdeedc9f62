"""Engines start, say why they did not, and never outlive who started them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cuvee.errors import EngineError, RecipeError
from cuvee.models.checkpoint import identity
from cuvee.models.engines import end_stale, engine_identity, serve, spawn
from cuvee.models.gguf_write import write_gguf
from cuvee.models.random_model import Architecture
from cuvee.models.vllm import vllm_command, vllm_environment
from cuvee.recipe import Serve

from .processes import alive, wait_until

Checkpoint = Callable[[Architecture], Path]

ANNOUNCE = """
import http.server, json, os
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
print("chatter before", flush=True)
print(json.dumps({"url": f"http://127.0.0.1:{server.server_port}/v1"}), flush=True)
print(os.environ.get("STYLE"), flush=True)
server.serve_forever()
"""

FAKE_VLLM = """#!{python}
import http.server, sys
if "--version" in sys.argv:
    print("INFO: detected platform cpu")
    sys.exit(print("0.33.0"))
port = int(sys.argv[sys.argv.index("--port") + 1])
class Handler(http.server.BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        Handler.asked += 1
        known = {{"/health": b"", "/version": b'{{"version": "0.33.0"}}'}}
        ready = Handler.asked > 2
        self.send_response(200 if ready and self.path in known else 503)
        self.end_headers()
        if ready:
            self.wfile.write(known.get(self.path, b""))
print("fake vllm", sys.argv[1:], file=sys.stderr, flush=True)
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def fake_vllm(folder: Path) -> str:
    program = folder / "vllm"
    program.write_text(FAKE_VLLM.format(python=sys.executable))
    program.chmod(0o755)
    return str(program)


def test_engine_says_what_it_serves_and_ends_with_its_block(
    checkpoint: Checkpoint, small: Serve, tmp_path: Path
) -> None:
    file = tmp_path / "m.gguf"
    write_gguf(checkpoint("llama"), file, quantization="Q8_0")
    with serve(small, str(file), name="base", folder=tmp_path / "engines") as engine:
        with urllib.request.urlopen(f"{engine.url}/models", timeout=10) as response:
            assert [m["id"] for m in json.load(response)["data"]] == ["base"]
        assert engine.url.endswith("/v1")
        assert alive(engine.pid)
        assert (tmp_path / "engines" / "base.pid").is_file()
    assert not alive(engine.pid)
    assert not (tmp_path / "engines" / "base.pid").exists()


def test_identity_of_an_engine_follows_the_weights_not_their_place(
    checkpoint: Checkpoint, small: Serve, tmp_path: Path
) -> None:
    def known(name: str, quantization: str) -> str:
        file = tmp_path / f"{name}.gguf"
        write_gguf(checkpoint("llama"), file, quantization=quantization)
        return engine_identity(small, str(file))

    assert known("a", "F32") == known("b", "F32") != known("c", "Q8_0")


def test_identity_under_vllm_follows_weights_version_and_args_not_replicas_or_devices(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    def known(model: str, **changes: Any) -> str:
        spec = Serve(engine="vllm", command=fake_vllm(tmp_path), **changes)
        return engine_identity(spec, model)

    model = str(checkpoint("llama"))
    assert known(model) == known(model, replicas=2, devices=[0, 1], slots=3)
    different = [known(model, args={"seed": 3}), known("owner/name"), identity(Path(model))]
    assert known(model) not in different
    before = known(model)
    program = tmp_path / "vllm"
    program.write_text(program.read_text().replace("0.33.0", "0.34.0"))
    spec = Serve(engine="vllm", command=str(program))
    assert engine_identity(spec, model) != before


def test_a_broken_gguf_gives_the_reason_and_the_log(
    checkpoint: Checkpoint, small: Serve, tmp_path: Path
) -> None:
    file = tmp_path / "cut.gguf"
    write_gguf(checkpoint("llama"), file, quantization="F32")
    file.write_bytes(file.read_bytes()[:200_000])
    with (
        pytest.raises(EngineError, match=r"(?s)ended before.*cut\.log.*not within the file bounds"),
        serve(small, str(file), name="cut", folder=tmp_path),
    ):
        pass
    assert not (tmp_path / "cut.pid").exists()


def test_starting_engines_needs_neither_torch_nor_transformers() -> None:
    program = "import sys, cuvee.models.engines; print({'torch', 'transformers'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.strip() == b"set()"


def test_llama_serves_gguf_files_alone(small: Serve, tmp_path: Path) -> None:
    for model in (str(tmp_path), str(tmp_path / "none.gguf"), "owner/name"):
        with (
            pytest.raises(RecipeError, match=r"no \.gguf file"),
            serve(small, model, name="m", folder=tmp_path),
        ):
            pass


def test_spawn_yields_the_announced_url_and_passes_the_environment(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ANNOUNCE]
    env = {"STYLE": "terse"}
    with spawn(command, name="s", folder=tmp_path, seconds=20, env=env) as url:
        assert url.startswith("http://127.0.0.1:")
        pid = json.loads((tmp_path / "s.pid").read_text())["pid"]
        assert wait_until(lambda: "terse" in (tmp_path / "s.out").read_text())
    assert not alive(pid)


@pytest.mark.parametrize(
    ("program", "seconds", "said"),
    [
        ("import sys; sys.exit('no room')", 20, r"(?s)exit code 1.*no room"),
        ("import time; time.sleep(60)", 0.5, r"did not answer within 0\.5 s"),
        ("import os; os.kill(os.getpid(), 9)", 20, "exit code -9"),
    ],
)
def test_a_server_that_does_not_start_says_why(
    program: str, seconds: float, said: str, tmp_path: Path
) -> None:
    begin = time.monotonic()
    with (
        pytest.raises(EngineError, match=said),
        spawn([sys.executable, "-c", program], name="s", folder=tmp_path, seconds=seconds),
    ):
        pass
    assert time.monotonic() - begin < 15


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(EngineError, match=r"/no/such: No such file"),
        spawn(["/no/such"], name="s", folder=tmp_path, seconds=20),
    ):
        pass


def test_an_engine_that_dies_while_in_use_is_reported(tmp_path: Path) -> None:
    def use() -> None:
        with spawn([sys.executable, "-c", ANNOUNCE], name="s", folder=tmp_path, seconds=20):
            pid = json.loads((tmp_path / "s.pid").read_text())["pid"]
            os.kill(pid, signal.SIGKILL)
            assert wait_until(lambda: not alive(pid))
            raise ConnectionError("refused")

    with pytest.raises(EngineError, match="ended by itself") as caught:
        use()
    assert isinstance(caught.value.__context__, ConnectionError)


PARENT = """
import sys, time
from pathlib import Path
from cuvee.models.engines import serve, spawn
from cuvee.recipe import Serve
folder = Path(sys.argv[1])
spec = Serve(**{spec!r})
with serve(spec, sys.argv[2], name="engine", folder=folder) as engine:
    print(engine.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("engine", ["llama.cpp", "vllm"])
def test_no_engine_outlives_a_parent_killed_with_kill_9(
    engine: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    file = tmp_path / "m.gguf"
    write_gguf(checkpoint("llama"), file, quantization="F32")
    spec: dict[str, Any] = {"engine": engine, "slots": 1, "context": 64}
    if engine == "vllm":
        spec["command"] = fake_vllm(tmp_path)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(spec=spec), str(tmp_path), str(file)],
        stdout=subprocess.PIPE,
    )
    with contextlib.closing(parent.stdout) as output:  # type: ignore[type-var]
        pid = int(output.readline())  # type: ignore[union-attr]
        assert alive(pid)
        parent.kill()
        parent.wait()
    assert wait_until(lambda: not alive(pid))
    assert end_stale(tmp_path) == 0
    assert not list(tmp_path.glob("*.pid"))


FAMILY = """
import os, subprocess, sys, time
stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
sleep = [sys.executable, "-c", stubborn]
child = subprocess.Popen(sleep)
own_group = subprocess.Popen(sleep, process_group=0)
own_session = subprocess.Popen(sleep, start_new_session=True)
with open(sys.argv[1], "w") as file:
    print(child.pid, own_group.pid, own_session.pid, file=file)
print('{"url": "http://127.0.0.1:1/v1"}', flush=True)
time.sleep(600)
"""


def test_all_that_an_engine_started_is_gone_when_it_has_ended(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    command = [sys.executable, "-c", FAMILY, str(pids)]
    with spawn(command, name="s", folder=tmp_path, seconds=20):
        family = [int(pid) for pid in pids.read_text().split()]
        assert len(family) == 3
        assert all(alive(pid) for pid in family)
    assert not any(alive(pid) for pid in family)


def test_what_a_dead_engine_left_behind_is_ended_too(tmp_path: Path) -> None:
    def use() -> list[int]:
        command = [sys.executable, "-c", FAMILY, str(tmp_path / "pids")]
        with spawn(command, name="s", folder=tmp_path, seconds=20):
            leader = json.loads((tmp_path / "s.pid").read_text())["pid"]
            os.kill(leader, signal.SIGKILL)
            assert wait_until(lambda: not alive(leader))
        raise AssertionError("the death was not reported")

    with pytest.raises(EngineError, match="ended by itself"):
        use()
    child, own_group, own_session = (int(pid) for pid in (tmp_path / "pids").read_text().split())
    try:
        assert not alive(child)
        assert not alive(own_group)
    finally:
        os.kill(own_session, signal.SIGKILL)  # orphaned in a session of its own: not found


def test_the_log_keeps_what_earlier_starts_wrote(tmp_path: Path) -> None:
    program = "import sys; sys.exit('start ' + sys.argv[1])"
    for start in ("one", "two"):
        command = [sys.executable, "-c", program, start]
        with pytest.raises(EngineError), spawn(command, name="s", folder=tmp_path, seconds=20):
            pass
    assert (tmp_path / "s.log").read_text().splitlines() == ["start one", "start two"]


def test_end_stale_ends_what_runs_and_leaves_a_reused_process_id_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    stale, other = (subprocess.Popen(command, start_new_session=True) for _ in range(2))

    def start(pid: int) -> int:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])

    entries = {"stale": (stale.pid, start(stale.pid)), "other": (other.pid, start(other.pid) - 1)}
    for name, (pid, ticks) in entries.items():
        (tmp_path / f"{name}.pid").write_text(json.dumps({"pid": pid, "start": ticks}))
    (tmp_path / "cut.pid").write_text('{"pid":')
    try:
        assert end_stale(tmp_path) == 1
        assert stale.wait(timeout=20) == -signal.SIGTERM
        assert alive(other.pid)
        assert not list(tmp_path.glob("*.pid"))
    finally:
        other.kill()
        other.wait()


def test_vllm_command_holds_what_the_recipe_says(tmp_path: Path) -> None:
    program = fake_vllm(tmp_path)
    args = {
        "tensor_parallel_size": 4,
        "enforce_eager": True,
        "enable_prefix_caching": False,
        "lora_modules": ["a", "b"],
        "rope_scaling": {"factor": 2.0},
    }
    spec = Serve(engine="vllm", command=program, slots=8, context=4096, args=args)
    assert vllm_command(spec, "owner/name", 8123) == [
        *(program, "serve", "owner/name", "--host", "127.0.0.1", "--port", "8123"),
        *("--max-num-seqs", "8", "--max-model-len", "4096"),
        *("--tensor-parallel-size", "4", "--enforce-eager", "--no-enable-prefix-caching"),
        *("--lora-modules", "a", "b", "--rope-scaling", '{"factor": 2.0}'),
    ]


def test_replicas_are_vllms_data_parallel_size(tmp_path: Path) -> None:
    spec = Serve(engine="vllm", command=fake_vllm(tmp_path), replicas=2, devices=[3, 1])
    assert vllm_command(spec, "m", 1)[-2:] == ["--data-parallel-size", "2"]
    assert vllm_environment(spec) == {"CUDA_VISIBLE_DEVICES": "3,1"}


def test_vllm_that_cannot_say_its_version_is_an_error(tmp_path: Path) -> None:
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\necho no module named torch >&2\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(EngineError, match=r"(?s)exit code 3.*no module named torch"):
        engine_identity(Serve(engine="vllm", command=str(program)), "owner/name")
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    with pytest.raises(EngineError, match=r"nothing within 0\.3 s"):
        engine_identity(Serve(engine="vllm", command=str(program), start_timeout=0.3), "owner/name")


def test_vllm_flags_of_ours_and_a_missing_command_are_refused(tmp_path: Path) -> None:
    spec = Serve(engine="vllm", command=fake_vllm(tmp_path), args={"max-model-len": 5})
    with pytest.raises(RecipeError, match=r"max_model_len.*serve\.context"):
        vllm_command(spec, "m", 1)
    spec = Serve(engine="vllm", command=fake_vllm(tmp_path), args={"data_parallel_size": 2})
    with pytest.raises(RecipeError, match=r"data_parallel_size.*serve\.replicas"):
        vllm_command(spec, "m", 1)
    with pytest.raises(RecipeError, match=r"serve\.command: missing"):
        vllm_command(Serve(engine="vllm"), "m", 1)
    with pytest.raises(RecipeError, match="/no/vllm"):
        vllm_command(Serve(engine="vllm", command="/no/vllm"), "m", 1)


def test_vllm_is_waited_for_and_ended(checkpoint: Checkpoint, tmp_path: Path) -> None:
    spec = Serve(engine="vllm", command=fake_vllm(tmp_path), start_timeout=30, devices=[0, 2])
    model = checkpoint("llama")
    with serve(spec, str(model), name="v", folder=tmp_path) as engine:
        environment = Path(f"/proc/{engine.pid}/environ").read_text()
        assert "CUDA_VISIBLE_DEVICES=0,2\0" in environment
        assert engine.model == str(model)
    assert not alive(engine.pid)
    assert "fake vllm" in (tmp_path / "v.log").read_text()


def test_vllm_that_never_answers_is_given_up(tmp_path: Path) -> None:
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\necho loading weights >&2\nexec sleep 600\n")
    program.chmod(0o755)
    spec = Serve(engine="vllm", command=str(program), start_timeout=0.5)
    with (
        pytest.raises(EngineError, match=r"(?s)within 0\.5 s.*loading weights"),
        serve(spec, "owner/name", name="v", folder=tmp_path),
    ):
        pass
