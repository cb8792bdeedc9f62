"""What lies outside a sandbox, set out as bait, and what became of it.

While `baited` runs there are: a folder anyone may write in, with a secret file and a socket
in it; a TCP, a UDP and an abstract socket; the secret in this process's environment; a
bystander that tells when it is signalled; and a thread that counts the processes and the
memory of programs that bear the mark. `Outside.reached` says what a program got at since it
was last asked. Linux only. Not here: which program that was (`cuvee.verify.conformance.run`).
"""

import contextlib
import dataclasses
import os
import resource
import secrets
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

MOST_PROCESSES = 100
MOST_MEMORY_BYTES = 3 << 29
LEFT_SECONDS = 2.0
"""What a program started must be gone this long after its verdict."""
_SAMPLE_SECONDS = 0.1
_BYSTANDER = """
import signal
signal.signal(signal.SIGURG, lambda *_: print("signalled", flush=True))
print("ready", flush=True)
while True:
    signal.pause()
"""


@dataclasses.dataclass
class Outside:
    """The bait, and what was seen of it."""

    folder: Path
    mark: str
    """Name of every hostile process, as `/proc/PID/comm` shows it."""
    canary: str
    """What stands in the secret file and the environment."""
    secret: str
    """What the right answers hold; nowhere to be found."""
    port: int
    sockets: list[socket.socket]
    bystander: "subprocess.Popen[bytes]"
    most_processes: int = 0
    most_memory: int = 0

    def fill(self, text: str) -> str:
        """Write the bait's addresses into a program or an expected output."""
        values = {
            "FOLDER": self.folder, "MARK": self.mark, "CANARY": self.canary,
            "SECRET": self.secret, "PORT": self.port, "BYSTANDER": self.bystander.pid,
            "RUNNER": os.getpid(), "GROUP": os.getpgid(0),
        }  # fmt: skip
        for name, value in values.items():
            text = text.replace(f"@{name}@", str(value))
        return text

    def reached(self) -> list[str]:
        """Return what was got at since the last call, and set the bait anew."""
        found = [*self._connections(), *self._files(), *self._signals()]
        if self.most_processes > MOST_PROCESSES:
            found.append(f"{self.most_processes} processes at once")
        if self.most_memory > MOST_MEMORY_BYTES:
            found.append(f"{self.most_memory >> 20} MiB at once")
        if left := self._left():
            found.append(f"{left} processes survived")
        self.most_processes = self.most_memory = 0
        return found

    def _connections(self) -> list[str]:
        found = []
        with selectors.DefaultSelector() as selector:
            for listening in self.sockets:
                selector.register(listening, selectors.EVENT_READ)
            for key, _ in selector.select(0):
                listening = key.fileobj  # type: ignore[assignment]
                if listening.type == socket.SOCK_DGRAM:
                    listening.recv(100)
                    found.append("sent a datagram")
                else:
                    listening.accept()[0].close()
                    found.append("connected to a socket")
        return found

    def _files(self) -> list[str]:
        names = sorted(path.name for path in self.folder.iterdir())
        kept = (self.folder / "secret").exists() and (self.folder / "secret").read_text()
        if names == ["secret", "socket"] and kept == self.canary:
            return []
        for name in set(names) - {"secret", "socket"}:
            (self.folder / name).unlink()
        _write_secret(self.folder, self.canary)
        return ["changed the user's files"]

    def _signals(self) -> list[str]:
        if self.bystander.poll() is not None:
            raise RuntimeError("the bystander was killed: the suite cannot go on")
        assert self.bystander.stdout is not None  # for the type checker: it is a pipe
        try:
            heard = os.read(self.bystander.stdout.fileno(), 1 << 16)
        except BlockingIOError:
            return []
        return ["signalled another process"] if heard else []

    def _left(self) -> int:
        deadline = time.monotonic() + LEFT_SECONDS
        while (left := len(_marked(self.mark, but=self.bystander.pid))) > 0:
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        for pid in _marked(self.mark, but=self.bystander.pid):  # not to be counted twice
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        return left

    def sample(self) -> None:
        """Count once what runs under the mark."""
        marked = _marked(self.mark, but=self.bystander.pid)
        self.most_processes = max(self.most_processes, len(marked))
        self.most_memory = max(self.most_memory, sum(map(_memory, marked)))


@contextlib.contextmanager
def baited() -> Iterator[Outside]:
    """Set out the bait while the block runs; yields it."""
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="cuvee-bait-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o777)  # that other users may write must not be what protects it
        mark, canary = f"cvq{secrets.token_hex(4)}", f"canary-{secrets.token_hex(16)}"
        _write_secret(folder, canary)
        sockets = [stack.enter_context(opened) for opened in _sockets(folder, mark)]
        os.environ["CUVEE_CANARY"] = canary
        stack.callback(os.environ.pop, "CUVEE_CANARY")
        outside = Outside(
            folder=folder,
            mark=mark,
            canary=canary,
            secret=f"secret-{secrets.token_hex(16)}",
            port=sockets[0].getsockname()[1],
            sockets=sockets,
            bystander=stack.enter_context(_bystander(mark)),
        )
        ended = threading.Event()
        sampler = threading.Thread(target=_sample, args=(outside, ended), daemon=True)
        sampler.start()
        stack.callback(sampler.join)
        stack.callback(ended.set)
        yield outside


def _sample(outside: Outside, ended: threading.Event) -> None:
    while not ended.wait(_SAMPLE_SECONDS):
        outside.sample()


def _write_secret(folder: Path, canary: str) -> None:
    path = folder / "secret"
    path.write_text(canary)
    path.chmod(0o666)


def _sockets(folder: Path, mark: str) -> list[socket.socket]:
    tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
    tcp.bind(("127.0.0.1", 0))
    udp.bind(tcp.getsockname())
    named, abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    named.bind(str(folder / "socket"))
    (folder / "socket").chmod(0o777)
    abstract.bind(f"\0{mark}")
    for listening in (tcp, named, abstract):
        listening.listen()
    return [tcp, udp, named, abstract]


@contextlib.contextmanager
def _bystander(mark: str) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        [sys.executable, "-c", _BYSTANDER, mark], stdout=subprocess.PIPE, start_new_session=False
    )
    try:
        assert process.stdout is not None  # for the type checker: it is a pipe
        process.stdout.readline()
        os.set_blocking(process.stdout.fileno(), False)
        yield process
    finally:
        process.kill()
        process.communicate()


def _marked(mark: str, *, but: int) -> list[int]:
    """Return the processes that bear the mark in their name or their command."""
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) in (but, os.getpid()):
            continue
        with contextlib.suppress(OSError):  # it has ended
            name = Path(entry.path, "comm").read_bytes()
            if mark.encode() in name or mark.encode() in Path(entry.path, "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def _memory(pid: int) -> int:
    """Return the bytes a process holds in memory, 0 where it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * resource.getpagesize()
