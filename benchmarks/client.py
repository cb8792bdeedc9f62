"""How near the client comes to a server's ideal throughput, and in how much memory.

    python benchmarks/client.py                        # 1 s latency, 512 and 2,000 in flight
    python benchmarks/client.py --in-flight 512 --rounds 10 --clients cuvee,bytes

Prints a Markdown table. A load server in a process of its own answers each request after
`--latency` seconds with `--reply` bytes, prebuilt but for the id; each client, in a process of
its own, sends `rounds` times as many requests as it keeps in flight. The ideal is a round a
latency: `share` is that over the seconds it took, start and end included. Clients:

    cuvee    `ask` with its ledger: every request booked, every answer stored and synced
    stream   the same, with `stream: true` (each answer in 50 pieces)
    openai   the package `openai` as it comes, under `asyncio.gather` and a semaphore; stores
             nothing (more in flight than its 1,000 connections wait for one)
    aiohttp  a bare loop over one session: what the HTTP library allows; stores nothing
    bytes    prebuilt requests over asyncio's protocols: what the load server allows

On few cores server and client share them: the row `bytes` says what the server alone can do.
Not here: what a real server needs, and wide area networks.
"""

import argparse
import asyncio
import functools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CLIENTS = ("cuvee", "stream", "openai", "aiohttp", "bytes")
ID = b"chatcmpl-%016d"
PIECES = 50


@dataclass(frozen=True)
class Load:
    """What one client does."""

    url: str
    in_flight: int
    requests: int
    folder: Path


@dataclass(frozen=True)
class Took:
    """What came of it."""

    seconds: float
    failed: int = 0
    read_back: float = 0.0
    """Seconds for reading all answers from the ledger again, as traces."""


# The server


def prebuilt(reply_bytes: int) -> tuple[bytes, bytes]:
    """Return head and tail of a whole reply; the id stands between them."""
    text = "<think>" + "so then, " * (reply_bytes // 9) + "</think>42"
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    usage = {"prompt_tokens": 20, "completion_tokens": reply_bytes // 4}
    rest = json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage})[1:]
    head, tail = b'{"id": "', b'", ' + rest.encode()
    size = len(head) + len(ID % 0) + len(tail)
    start = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return start % size + head, tail


def prebuilt_pieces(reply_bytes: int) -> tuple[bytes, bytes]:
    """Return head and tail of a reply in pieces: the same text as server-sent events."""
    words, part = "so then, " * (reply_bytes // 9), max(1, reply_bytes // PIECES)
    texts = ["<think>", *(words[at : at + part] for at in range(0, len(words), part))]
    pieces: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": {"content": text}}]} for text in [*texts, "</think>42"]
    ]
    pieces.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    usage = {"prompt_tokens": 20, "completion_tokens": reply_bytes // 4}
    pieces.append({"choices": [], "usage": usage})
    events = b"".join(b"data: %s\n\n" % json.dumps(piece).encode() for piece in pieces)
    first, tail = b'data: {"id": "', b'", "choices": []}\n\n' + events + b"data: [DONE]\n\n"
    size = len(first) + len(ID % 0) + len(tail)
    start = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n"
    return start % size + first, tail


class Server(asyncio.Protocol):
    """One connection of the load server; it reads no more of a request than its length."""

    served = 0
    latency = 1.0
    whole = (b"", b"")
    pieces = (b"", b"")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with nothing received."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.received = b""

    def data_received(self, data: bytes) -> None:
        """Answer a request that is complete, later."""
        self.received += data
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return
        at = self.received.lower().find(b"content-length: ") + 16
        size = int(self.received[at : self.received.find(b"\r\n", at)])
        if len(self.received) < end + 4 + size:
            return
        reply = self.pieces if b'"stream": true' in self.received else self.whole
        self.received = self.received[end + 4 + size :]
        asyncio.get_running_loop().call_later(self.latency, self.answer, reply)

    def answer(self, reply: tuple[bytes, bytes]) -> None:
        """Send a reply with an id of its own."""
        Server.served += 1
        head, tail = reply
        self.transport.write(b"".join((head, ID % Server.served, tail)))


async def serve(latency: float, reply_bytes: int) -> None:
    """Serve until stdin is closed; the first line printed is the port."""
    allow_files()
    Server.latency = latency
    Server.whole, Server.pieces = prebuilt(reply_bytes), prebuilt_pieces(reply_bytes)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Server, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


# The clients


def prompt(number: int) -> str:
    """Return a user message of its own, of some 200 bytes."""
    return f"Problem {number}: " + "What is the sum of the first so many odd numbers? " * 4


def cuvee(load: Load, *, stream: bool = False) -> Took:
    """Ask with cuvee's client and ledger, and read all answers back."""
    from cuvee.recipe import Sampling
    from cuvee.teach.client import Books, Endpoint, Request, ask
    from cuvee.teach.ledger import Ledger

    class Rows:
        def __len__(self) -> int:
            return load.requests

        def __iter__(self) -> Iterator[Request]:
            return (Request(f"p{n}", "math", 0, prompt(n), n) for n in range(load.requests))

    to = Endpoint("load", load.url, "m", "id", concurrency=load.in_flight, stream=stream)
    with Ledger.open(load.folder / "ledger.sqlite") as ledger:
        begin = time.monotonic()
        answers = ask(to, Rows(), sampling=Sampling(), books=Books(ledger, "bench"))
        seconds = time.monotonic() - begin
        begin = time.monotonic()
        right = sum(trace.answer == "42" for trace in answers)
        return Took(seconds, load.requests - right, time.monotonic() - begin)


def streaming(load: Load) -> Took:
    """Ask the same for answers in pieces."""
    return cuvee(load, stream=True)


def body(number: int) -> dict[str, Any]:
    """Return what the other clients post."""
    return {
        "model": "m",
        "messages": [{"role": "user", "content": prompt(number)}],
        "max_tokens": 32768,
        "seed": number,
    }


def timed(work: Callable[[], Coroutine[Any, Any, int]]) -> Took:
    """Run what returns how many requests failed."""
    begin = time.monotonic()
    failed = asyncio.run(work())
    return Took(time.monotonic() - begin, failed)


def bare_aiohttp(load: Load) -> Took:
    """Post over one session of aiohttp, and read the JSON."""
    import aiohttp

    async def work() -> int:
        numbers = iter(range(load.requests))
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def ask_some() -> None:
                for number in numbers:
                    sending = session.post(load.url + "/chat/completions", json=body(number))
                    async with sending as response:
                        assert (await response.json())["choices"]

            await asyncio.gather(*(ask_some() for _ in range(load.in_flight)))
        return 0

    return timed(work)


def openai_gather(load: Load) -> Took:
    """Ask with the package `openai`, all at once behind a semaphore."""
    import openai

    async def work() -> int:
        client = openai.AsyncOpenAI(base_url=load.url, api_key="none")
        room = asyncio.Semaphore(load.in_flight)

        async def ask_one(number: int) -> int:
            try:
                async with room:
                    found = await client.chat.completions.create(**body(number))
            except openai.APIError:
                return 1
            return int(not found.choices)

        return sum(await asyncio.gather(*(ask_one(n) for n in range(load.requests))))

    return timed(work)


class Bytes(asyncio.Protocol):
    """A connection that sends the same bytes again as soon as a reply is complete."""

    left = 0
    request = b""

    def __init__(self, done: asyncio.Event) -> None:
        self.done, self.missing = done, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.next()

    def next(self) -> None:
        """Send a request, or end where all were sent."""
        if Bytes.left == 0:
            self.transport.close()
            self.done.set()
            return
        Bytes.left -= 1
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        """Send the next request once the reply is complete; read no more than its length."""
        if not self.missing:
            at = data.find(b"Content-Length: ") + 16
            end = data.find(b"\r\n\r\n", at)
            self.missing = int(data[at:end]) + end + 4
        self.missing -= len(data)
        if not self.missing:
            self.next()


def bare_bytes(load: Load) -> Took:
    """Send prebuilt bytes over so many connections."""
    port = urlsplit(load.url).port or 0
    text = json.dumps(body(1)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text)}\r\n\r\n"
    Bytes.left, Bytes.request = load.requests, head.encode() + text

    async def work() -> int:
        loop = asyncio.get_running_loop()
        ends = [asyncio.Event() for _ in range(load.in_flight)]
        for end in ends:
            await loop.create_connection(functools.partial(Bytes, end), "127.0.0.1", port)
        for end in ends:
            await end.wait()
        return 0

    return timed(work)


RUN: dict[str, Callable[[Load], Took]] = {
    "cuvee": cuvee,
    "stream": streaming,
    "openai": openai_gather,
    "aiohttp": bare_aiohttp,
    "bytes": bare_bytes,
}


def allow_files() -> None:
    """Allow this process as many connections as the system does."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run_client(name: str, load: Load) -> None:
    """Run one client in this process; print what it took as JSON."""
    allow_files()
    took = RUN[name](load)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    numbers = asdict(took) | {
        "cpu": usage.ru_utime + usage.ru_stime,
        "rss": usage.ru_maxrss / 1024,
    }
    print(json.dumps(numbers))


# The table


def measure(name: str, in_flight: int, args: argparse.Namespace) -> dict[str, float]:
    """Run one client against a server of its own; return what both took."""
    me, requests = [sys.executable, __file__], in_flight * args.rounds
    start = [*me, "--serve", "--latency", str(args.latency), "--reply", str(args.reply)]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(start, stdin=-1, stdout=-1, text=True) as server,
    ):
        assert server.stdin is not None and server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
        work = [*me, "--run", name, url, str(in_flight), str(requests), folder]
        done = subprocess.run(work, stdout=-1, text=True, check=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        server.stdin.close()
        server.wait()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took: dict[str, float] = json.loads(done.stdout)
    took["server"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return took | {"requests": requests, "share": args.rounds * args.latency / took["seconds"]}


def main() -> None:
    """Measure what is asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--in-flight", default="512,2000")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--latency", type=float, default=1.0, help="seconds")
    parser.add_argument("--reply", type=int, default=4000, help="bytes of an answer")
    parser.add_argument("--clients", default="cuvee,openai,aiohttp,bytes", help=",".join(CLIENTS))
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--run", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        asyncio.run(serve(args.latency, args.reply))
        return
    if args.run:
        name, url, in_flight, requests, folder = args.run
        run_client(name, Load(url, int(in_flight), int(requests), Path(folder)))
        return
    names = args.clients.split(",")
    if unknown := set(names) - set(CLIENTS):
        parser.error(f"--clients: {', '.join(sorted(unknown))}; known are {', '.join(CLIENTS)}")
    columns = (
        "in flight|client|requests|failed|s|share of ideal|CPU s|server's CPU s|RSS MB|read back s"
    )
    print(f"|{columns}|\n|{'---|' * len(columns.split('|'))}")
    for in_flight in map(int, args.in_flight.split(",")):
        for name in names:
            took = measure(name, in_flight, args)
            print(
                f"| {in_flight} | {name} | {took['requests']} | {took['failed']} "
                f"| {took['seconds']:.1f} | {took['share']:.1%} | {took['cpu']:.1f} "
                f"| {took['server']:.1f} | {took['rss']:.0f} | {took['read_back']:.1f} |",
                flush=True,
            )
    print(f"\n{os.cpu_count()} cores, latency {args.latency:g} s, answers of {args.reply} bytes.")


if __name__ == "__main__":
    main()
