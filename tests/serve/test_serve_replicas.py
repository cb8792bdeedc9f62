"""`cuvee serve --replicas`: one URL, a token, and nothing left when it is ended."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cuvee.cli import app
from cuvee.models.gguf_write import write_gguf
from cuvee.models.random_model import write_random_model
from cuvee.recipe import Serve
from cuvee.serve.memory import needed_bytes
from cuvee.serve.start import Asked, planned, said


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    write_random_model(folder / "m")
    write_gguf(folder / "m", folder / "m.gguf", quantization="F32")
    return folder / "m.gguf"


def children(pid: int) -> list[int]:
    """Return the processes that a process started, and those that they did."""
    direct = [
        int(child)
        for task in Path(f"/proc/{pid}/task").glob("*/children")
        for child in task.read_text().split()
    ]
    return direct + [grandchild for child in direct for grandchild in children(child)]


def test_replicas_answer_behind_one_guarded_url_and_end_with_ctrl_c(gguf: Path) -> None:
    flags = ["--replicas", "2", "--slots", "1", "--context", "64"]
    command = [sys.executable, "-m", "cuvee.cli", "serve", str(gguf), *flags]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        url = run.stdout.readline().strip()
        curl = run.stdout.readline() + run.stdout.readline()
        (token,) = re.findall(r"Bearer (\S+)'", curl)
        headers = {"Authorization": f"Bearer {token}"}
        request = urllib.request.Request(f"{url}/models", headers=headers)
        with urllib.request.urlopen(request, timeout=30) as response:
            assert [m["id"] for m in json.load(response)["data"]] == ["m"]
        family = children(run.pid)
        assert len(family) == 3  # the balancer and two engines
        run.send_signal(signal.SIGINT)
        _, told = run.communicate(timeout=60)
    assert run.returncode == 0
    assert "2 engines of llama.cpp, each 1 slots of 64 tokens" in told
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in family) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in family)
    assert os.environ.get("CUVEE_ENGINE_TOKEN") is None


def test_memory_is_counted_for_all_replicas(gguf: Path) -> None:
    one, three = (planned(Asked(str(gguf), replicas=n)) for n in (1, 3))
    assert needed_bytes(three) == 3 * needed_bytes(one)


def test_what_is_started_is_said() -> None:
    assert said(Serve(slots=4, context=64)) == "llama.cpp: 4 slots of 64 tokens"
    both = Serve(slots=4, context=64, replicas=2)
    assert said(both) == "2 engines of llama.cpp, each 4 slots of 64 tokens"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--command", "vllm"], "--replicas: of llama.cpp alone"),
        (["--print-command"], "--replicas: not with --print-command"),
        (["--replicas", "0"], "'--replicas': Input should be greater than or equal to 1"),
    ],
)
def test_what_replicas_do_not_go_with_is_refused_by_name(
    flags: list[str], message: str, tmp_path: Path
) -> None:
    done = CliRunner().invoke(app, ["serve", str(tmp_path), "--replicas", "2", *flags])
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
