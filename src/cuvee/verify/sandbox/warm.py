"""Starts, keeps and ends the warm servers, and asks them for programs.

One server a process and kind, started when it is first needed; another one where it died;
none in a forked child that its parent started. Descriptors and limits in, a channel to the
program's end out. Not here: what happens inside (`cuvee.verify.sandbox.server`), watching
the program (`cuvee.verify.sandbox.watch`).
"""

import atexit
import dataclasses
import fcntl
import functools
import importlib.resources
import json
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from cuvee.errors import VerifierError
from cuvee.verify.sandbox import bubblewrap

START_SECONDS = 60.0
"""A server that is not up by then, or a program that is not, failed by our fault."""
_STOP_SECONDS = 5.0
_SAID_BYTES = 4000
_PYTHON_FLAGS = ("-s", "-P", "-S", "-B", "-X", "utf8")
_ENVIRONMENT = {"HOME": "/tmp", "PYTHONHASHSEED": "0"}  # a fixed seed: the same verdict twice
_INSIDE = (
    "sandbox.seccomp", "sandbox.landlock", "sandbox.namespaces", "sandbox.finish",
    "sandbox.server",
    "code.plain", "code.harness",
)  # fmt: skip
"""Our modules that run in the sandbox, below `cuvee.verify`, each after those it imports."""
_BOOT = """\
import json, os, socket, sys, types
with os.fdopen(int(sys.argv[2]), "rb") as file:
    config = json.load(file)
for name, text in config.pop("modules").items():
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = []
    exec(compile(text, name, "exec"), module.__dict__)
serve = sys.modules["cuvee.verify.sandbox.server"].serve
serve(socket.socket(fileno=int(sys.argv[1])), config)()
"""


@dataclasses.dataclass(frozen=True)
class Server:
    """A running server."""

    control: socket.socket
    """What requests are sent through; the server ends when it is closed."""
    process: "subprocess.Popen[bytes]"
    keeper: threading.Thread


@dataclasses.dataclass(frozen=True)
class Way:
    """How programs of a kind are kept apart."""

    bubblewrap: bool
    """Whether the server lives in bubblewrap."""
    enclosure: str
    """What it puts around each program; see `cuvee.verify.sandbox.server.serve`."""
    shared: bool
    """Whether one server serves all programs, or each has one of its own."""


_servers: dict[Way, Server] = {}
_lock = threading.Lock()


def shared_server(way: Way) -> Server:
    """Return the running server of this way, started now where there is none.

    Raises VerifierError with what it said where it does not start.
    """
    with _lock:
        server = _servers.get(way)
        if server is None or server.process.poll() is not None:
            if server is not None:
                stop(server)
            server = _servers[way] = start(way)
        return server


def start(way: Way) -> Server:
    """Start a server. Raises VerifierError with what it said where it does not start."""
    control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    started: queue.SimpleQueue[subprocess.Popen[bytes] | OSError] = queue.SimpleQueue()
    said = bytearray()
    # The kernel ends the server with the *thread* that started it, so that one must stay.
    keeper = threading.Thread(
        target=_keep, args=(way, other, started, said), name="cuvee-sandbox", daemon=True
    )
    keeper.start()
    process = started.get()
    other.close()
    if isinstance(process, OSError):
        keeper.join()
        control.close()
        raise VerifierError(f"the sandbox does not start: {process}")
    server = Server(control, process, keeper)
    control.settimeout(START_SECONDS)
    try:
        greeting = control.recv(16)
    except OSError:
        greeting = b""
    if greeting != b"up":
        stop(server)
        lines = said.decode("utf-8", "replace").strip().splitlines() or ["it says nothing"]
        raise VerifierError(f"the sandbox does not start: {lines[-1]}")
    return server


def stop(server: Server) -> None:
    """End a server and all programs in it, and wait for that."""
    server.control.close()
    server.keeper.join(_STOP_SECONDS)
    if server.keeper.is_alive():
        server.process.kill()
        server.keeper.join(_STOP_SECONDS)


def request(server: Server, limits: dict[str, Any], descriptors: Sequence[int]) -> socket.socket:
    """Ask for a program; return the channel it is heard through.

    `descriptors`: its stdin, stdout, stderr, job, report and maybe peer. Raises OSError where
    the server is gone.
    """
    channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with theirs:
            message = json.dumps(limits).encode()
            socket.send_fds(server.control, [message], [theirs.fileno(), *descriptors])
    except OSError:
        channel.close()
        raise
    return channel


def sealed(content: bytes, stack: ExitStack) -> int:
    """Return a descriptor of a file in memory that can only be read, at its beginning.

    Nobody can change it any more, through /proc either. `stack` closes it.
    """
    number = os.memfd_create("cuvee", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    stack.callback(os.close, number)
    rest = memoryview(content)  # the kernel's is the only copy
    while rest:
        rest = rest[os.write(number, rest) :]
    os.lseek(number, 0, os.SEEK_SET)
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(number, fcntl.F_ADD_SEALS, seals)
    return number


def _keep(
    way: Way,
    control: socket.socket,
    started: "queue.SimpleQueue[subprocess.Popen[bytes] | OSError]",
    said: bytearray,
) -> None:
    """Start the server's process, stay until it ends, and keep the end of what it says."""
    with ExitStack() as stack:
        config = sealed(json.dumps(_config(way)).encode(), stack)
        nothing = sealed(b"", stack)
        command = _python(control.fileno(), config)
        if way.bubblewrap:
            command = bubblewrap.command(
                command, environment=_ENVIRONMENT, namespaces=way.enclosure == "namespaces"
            )
        try:
            process = subprocess.Popen(
                command,
                stdin=nothing,  # a file and pipes, as every program will have in their place
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[control.fileno(), config],
                cwd="/",
                env=_ENVIRONMENT,  # bubblewrap's own too: a program can read /proc/1/environ
                start_new_session=True,
            )
        except OSError as error:
            started.put(error)
            return
    with process:
        started.put(process)
        assert process.stderr is not None  # for the type checker: it is a pipe
        while chunk := process.stderr.read1(_SAID_BYTES):  # type: ignore[attr-defined]
            said += chunk
            del said[:-_SAID_BYTES]


def _python(*numbers: int) -> list[str]:
    return [os.path.realpath(sys.executable), *_PYTHON_FLAGS, "-c", _BOOT, *map(str, numbers)]


def _config(way: Way) -> dict[str, Any]:
    return {
        "enclosure": way.enclosure,
        "unprivileged": way.bubblewrap,
        "readable": bubblewrap.readable_folders(),
        "modules": _modules(),
    }


@functools.cache
def _modules() -> dict[str, str]:
    """Return the text of each module that runs inside, and of the empty packages above."""
    folder = importlib.resources.files("cuvee.verify")
    modules = dict.fromkeys(("cuvee", "cuvee.verify", "cuvee.verify.sandbox"), "")
    modules["cuvee.verify.code"] = ""
    for name in _INSIDE:
        path = folder.joinpath(*f"{name}.py".replace(".", "/", 1).split("/"))
        modules[f"cuvee.verify.{name}"] = path.read_text("utf-8")
    return modules


def _stop_all() -> None:
    with _lock:
        for way in list(_servers):
            stop(_servers.pop(way))


def _forget() -> None:
    """In a forked child: leave the parent's servers alone."""
    global _lock
    _lock = threading.Lock()
    for server in _servers.values():
        server.control.close()
    _servers.clear()


atexit.register(_stop_all)
os.register_at_fork(after_in_child=_forget)
