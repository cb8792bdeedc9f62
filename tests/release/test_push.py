"""A push through the real client to a stand-in hub on the loopback; and the command around it.

The client reads its endpoint and token once, at import, so each push is a process of its own.
Large files go the way of git LFS here: the storage that replaces it (xet) has no stand-in.
"""

import base64
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cuvee.cli import app
from cuvee.recipe import dump_recipe
from cuvee.runfolder import Run

TOKEN = "hf_" + "t" * 30
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub's interface as creating a repository and one commit takes."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        private = self.server.private
        self.reply({"id": "ada/blend", "modelId": "ada/blend", "private": private, "sha": COMMIT})

    def do_POST(self) -> None:
        body, path = self.body(), self.path.partition("?")[0]
        self.server.asked.append(path)
        self.server.tokens.add(self.headers.get("Authorization", ""))
        if path == "/api/repos/create":
            self.server.created = json.loads(body)
            self.reply({"url": f"{self.server.url}/ada/blend"})
        elif path == "/api/validate-yaml":
            self.reply({"warnings": [{"message": "no licence"}], "errors": []})
        elif path.endswith("/preupload/main"):
            names = [file["path"] for file in json.loads(body)["files"]]
            large = (".safetensors", ".gguf")
            self.reply({"files": [
                {"path": name, "uploadMode": "lfs" if name.endswith(large) else "regular",
                 "shouldIgnore": False} for name in names
            ]})  # fmt: skip
        elif path.endswith("/objects/batch"):
            self.reply({"transfer": "basic", "objects": [self.place(o) for o in
                                                         json.loads(body)["objects"]]})  # fmt: skip
        elif path.endswith("/commit/main"):
            self.server.commits.append([json.loads(line) for line in body.splitlines()])
            self.reply({"commitUrl": f"{self.server.url}/ada/blend/commit/{COMMIT}",
                        "commitOid": COMMIT})  # fmt: skip
        else:
            self.reply({"error": "not found"}, status=404)

    def do_PUT(self) -> None:
        if self.server.broken:
            self.body()
            self.reply({"error": "out of order"}, status=403)
            return
        data = self.body()
        self.server.stored[hashlib.sha256(data).hexdigest()] = data
        self.reply({})

    def place(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """What git LFS answers: where an object goes, or nothing if it is there."""
        if wanted["oid"] in self.server.stored:
            return wanted
        return wanted | {"actions": {"upload": {"href": f"{self.server.url}/put/{wanted['oid']}"}}}

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def reply(self, data: dict[str, Any], *, status: int = 200) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    """What the stand-in was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Hub)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.asked: list[str] = []
        self.tokens: set[str] = set()
        self.created: dict[str, Any] = {}
        self.stored: dict[str, bytes] = {}
        self.commits: list[list[dict[str, Any]]] = []
        self.private = False
        self.broken = False


@pytest.fixture
def hub() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def pushed(
    run: Run, url: str, *flags: str, token: str | None = TOKEN
) -> subprocess.CompletedProcess[str]:
    (run.path / "recipe.yaml").write_text(dump_recipe(run.recipe))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_ENDPOINT": url, "HF_HOME": str(run.path.parent / "hf"),
                    "HF_HUB_DISABLE_XET": "1"}  # fmt: skip
    if token is not None:
        environment["HF_TOKEN"] = token
    command = [sys.executable, "-m", "cuvee.cli", "release", str(run.path), "--push", "ada/blend"]
    return subprocess.run(
        [*command, *flags],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_one_commit_holds_every_listed_file_byte_by_byte(released: Run, hub: Server) -> None:
    listed = pushed(released, hub.url, "--dry-run")
    assert listed.returncode == 0, listed.stderr
    assert not hub.asked
    done = pushed(released, hub.url)
    assert done.returncode == 0, done.stderr
    assert f"pushed: {hub.url}/ada/blend/commit/{COMMIT}" in done.stderr
    [[header, *entries]] = hub.commits
    assert header["value"]["summary"].startswith("small-blend, by cuvee ")
    sent = {e["value"]["path"]: e for e in entries}
    sizes = {
        line.split()[1]: int(line.split()[0].replace(",", ""))
        for line in listed.stdout.partition(":\n")[2].partition("not uploaded")[0].splitlines()[:-1]
    }
    assert set(sent) == set(sizes)
    for path, entry in sent.items():
        if entry["key"] == "lfsFile":
            assert hub.stored[entry["value"]["oid"]] == source(released, path).read_bytes()
        else:
            assert len(base64.b64decode(entry["value"]["content"])) == sizes[path]
    assert {p for p, e in sent.items() if e["key"] == "lfsFile"} == {
        "model.safetensors", "small-blend.Q8_0.gguf",
    }  # fmt: skip
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert TOKEN not in done.stdout + done.stderr
    assert not any(
        TOKEN.encode() in file.read_bytes() for file in released.path.rglob("*") if file.is_file()
    )
    assert "visibility" not in hub.created


def source(run: Run, path: str) -> Path:
    folder = run.folder("release") if path.endswith(".gguf") else run.merged()
    return folder / path


@pytest.mark.slow
def test_after_a_failure_the_same_command_sends_what_is_missing(released: Run, hub: Server) -> None:
    hub.broken = True
    failed = pushed(released, hub.url)
    assert failed.returncode == 1
    assert "not pushed" in failed.stderr and "the same command sends the rest" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not hub.commits
    hub.broken = False
    assert pushed(released, hub.url).returncode == 0
    assert len(hub.commits) == 1


def test_a_private_push_never_goes_to_a_public_repository(released: Run, hub: Server) -> None:
    refused = pushed(released, hub.url, "--private")
    assert refused.returncode == 2
    assert "ada/blend exists and is public" in refused.stderr
    assert hub.created["visibility"] == "private"
    assert hub.asked == ["/api/repos/create"]


def test_without_a_token_nothing_is_begun(released: Run, hub: Server) -> None:
    done = pushed(released, hub.url, token=None)
    assert done.returncode == 2
    assert "set HF_TOKEN" in done.stderr and "hf auth login" in done.stderr
    assert not hub.asked


@pytest.mark.parametrize(
    ("flags", "said"),
    [(["--gguf", "Q8_0"], "--gguf"), (["--no-parity"], "--no-parity"), (["--text", "x"], "--text"),
     (["--dry-run"], "--dry-run: only with --push"), (["--private"], "--private: only with --push"),
     (["--push", "blend"], "--push blend: a repository of the hub is ORG/NAME")],
)  # fmt: skip
def test_flags_that_do_not_fit_a_run_are_refused_by_name(
    finished: Run, flags: list[str], said: str
) -> None:
    (finished.path / "recipe.yaml").write_text(dump_recipe(finished.recipe))
    done = CliRunner().invoke(app, ["release", str(finished.path), *flags])
    assert done.exit_code == 2
    assert said in done.output


@pytest.mark.parametrize(
    ("flags", "said"),
    [(["--gguf", "Q8_0"], "--out is missing"), (["--out", "x"], "--gguf is missing"),
     (["--gguf", "Q9", "--out", "x"], "--gguf Q9: there are F32, F16"),
     (["--gguf", "Q8_0", "--out", "x", "--no-parity", "--text", "t"], "--text: not with"),
     (["--gguf", "Q8_0", "--out", "x", "--push", "a/b"], "--push: "),
     (["--gguf", "Q8_0", "--out", "x", "--set", "seed=1"], "--set: ")],
)  # fmt: skip
def test_flags_that_do_not_fit_a_checkpoint_are_refused_by_name(
    tmp_path: Path, flags: list[str], said: str
) -> None:
    done = CliRunner().invoke(app, ["release", str(tmp_path), *flags])
    assert done.exit_code == 2
    assert said in done.output
