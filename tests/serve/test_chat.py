"""`cuvee chat` against a real server that streams scripted text: in a pipe and in a terminal."""

import http.server
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cuvee.cli import app
from cuvee.models.gguf_write import write_gguf
from cuvee.models.random_model import write_random_model

CHAT = [sys.executable, "-m", "cuvee.cli", "chat"]
KEY = "a-secret-key"


class Scripted(http.server.BaseHTTPRequestHandler):
    """Answers a question by its last message; every request is kept in `seen`."""

    protocol_version = "HTTP/1.0"
    seen: list[dict[str, Any]]

    def do_GET(self) -> None:
        self._send("application/json", json.dumps({"data": [{"id": "scripted"}]}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append({**body, "key": self.headers.get("Authorization")})
        question = body["messages"][-1]["content"]
        if question == "refuse":
            self._send("application/json", json.dumps({"error": {"message": KEY}}), status=400)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for delta in self._deltas(question):
            self._piece({"choices": [{"index": 0, "delta": delta}]})
        if question != "break off":
            self._piece({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            self._piece({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5}})
            self.wfile.write(b"data: [DONE]\n\n")

    def _deltas(self, question: str) -> Iterator[dict[str, str]]:
        if question == "field":
            yield {"reasoning_content": "hm"}
            yield {"content": "done"}
        elif question == "evil":
            yield {"content": "a\x1b]0;owned\x07\x1b[2Jb\u202e"}
        elif question == "long":
            for number in range(600):
                yield {"content": f"{number} "}
                time.sleep(0.05)
        else:
            yield from ({"content": c} for c in ("<thi", "nk>\nI thi", "nk\n</th", "ink>\n\nfine"))

    def _piece(self, piece: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(piece)}\n\n".encode())
        self.wfile.flush()

    def _send(self, kind: str, text: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args: Any) -> None:
        pass

    def handle(self) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # the chat stopped the answer
            super().handle()


@pytest.fixture
def server() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Run the scripted server; yield its URL and the requests it sees."""
    seen: list[dict[str, Any]] = []
    handler = type("Handler", (Scripted,), {"seen": seen})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}/v1", seen
        running.shutdown()
        thread.join()


def piped(url: str, lines: str, *flags: str) -> tuple[int, str]:
    done = CliRunner(env={"THE_KEY": KEY}).invoke(app, ["chat", url, *flags], input=lines)
    return done.exit_code, done.output


def test_a_pipe_asks_a_question_a_line_and_parts_reasoning(
    server: tuple[str, list[dict[str, Any]]],
) -> None:
    url, seen = server
    code, said = piped(url, "one\n\nfield\n", "--system", "Be kind.", "--temperature", "0")
    assert code == 0
    assert "thinking: I think" in said
    assert "\n\nfine\n[5 tokens" in said
    assert "thinking: hm\n\ndone" in said
    assert "\x1b" not in said
    assert seen[0]["model"] == "scripted"
    assert seen[0]["temperature"] == 0
    assert [m["content"] for m in seen[1]["messages"]] == ["Be kind.", "one", "fine", "field"]


def test_commands_change_what_is_sent(server: tuple[str, list[dict[str, Any]]]) -> None:
    url, seen = server
    piped(url, "one\n/reset\ntwo\n/system Brief.\nthree\n/nonsense\n//slash\n/quit\nfour\n")
    sent = [[m["content"] for m in request["messages"]] for request in seen]
    assert sent == [
        ["one"],
        ["two"],
        ["Brief.", "three"],
        ["Brief.", "three", "fine", "/slash"],
    ]


def test_what_a_model_writes_steers_no_terminal(server: tuple[str, list[dict[str, Any]]]) -> None:
    _, said = piped(server[0], "evil\n")
    assert r"a\x1b]0;owned\x07\x1b[2Jb\u202e" in said


def test_a_failed_question_is_told_and_is_the_exit_code(
    server: tuple[str, list[dict[str, Any]]],
) -> None:
    url, seen = server
    code, said = piped(url, "refuse\nbreak off\none\n", "--key-env", "THE_KEY")
    assert code == 1
    assert "HTTP 400: [API key]" in said
    assert "the stream ended before the answer did" in said
    assert KEY not in said
    assert seen[0]["key"] == f"Bearer {KEY}"
    assert [m["content"] for m in seen[2]["messages"]] == ["one"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["https://127.0.0.1:9/v1", "--context", "512"], "--context"),
        (["none.gguf", "--model-name", "m"], "--model-name"),
        (["none.gguf"], "no such file"),
        (["http://127.0.0.1:9/v1", "--key-env", "NOT_SET_HERE"], "not set"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["chat", *arguments])
    assert done.exit_code == 2
    assert message in done.output


def test_flags_that_no_printed_command_has_are_refused_by_name() -> None:
    flags = ["--print-command", "--port", "9000", "--no-token"]
    done = CliRunner().invoke(app, ["serve", "none.gguf", *flags])
    assert done.exit_code == 2
    assert "--port, --no-token" in done.output


class Terminal:
    """A chat in a real pseudo-terminal."""

    def __init__(self, url: str) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [*CHAT, url], stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        self.seen = ""

    def wait(self, text: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < end, self.seen
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 4096).decode()

    def type(self, text: str) -> None:
        """Type at the prompt: what is typed before it is there, the terminal may take otherwise."""
        self.wait("> ")
        self.seen = ""
        os.write(self.master, text.encode())


def test_in_a_terminal_reasoning_is_dim_and_ctrl_c_stops_the_answer_alone(
    server: tuple[str, list[dict[str, Any]]],
) -> None:
    terminal = Terminal(server[0])
    try:
        terminal.type("one\n")
        terminal.wait("tokens")
        assert "\x1b[2mthinking: \x1b[0m" in terminal.seen
        assert "\r\n\r\nfine\r\n" in terminal.seen
        terminal.type("long\n")
        terminal.wait("3 4 5")
        terminal.process.send_signal(signal.SIGINT)
        terminal.wait("stopped")
        terminal.type("two\n")
        terminal.wait("fine")
        terminal.type("\x04")
        assert terminal.process.wait(30) == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.master)
    assert server[1][2]["messages"][-2]["content"].startswith("0 1 2")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the GGUF file of a random model."""
    write_random_model(tmp_path / "m")
    write_gguf(tmp_path / "m", tmp_path / "m.gguf", quantization="F16")
    return tmp_path / "m.gguf"


def asked(url: str, token: str) -> int:
    request = urllib.request.Request(f"{url}/models", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_serve_announces_a_guarded_server_and_ctrl_c_ends_it(file: Path) -> None:
    command = [sys.executable, "-m", "cuvee.cli", "serve", str(file), "--context", "256"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url, curl, bearer = (process.stdout.readline() for _ in range(3))
        token = bearer.partition("Bearer ")[2].partition("'")[0]
        assert curl.startswith(f"curl {url.strip()}/chat/completions")
        assert asked(url.strip(), "wrong") == 401
        assert asked(url.strip(), token) == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    with pytest.raises(OSError, match="refused"):
        asked(url.strip(), token)


def test_a_file_is_served_for_as_long_as_the_chat_lasts(file: Path) -> None:
    code, said = piped(str(file), "hi\n", "--max-tokens", "4", "--context", "256")
    assert code == 0
    assert re.search(r"\[(no answer.*)?4 tokens|, 4 tokens", said)
