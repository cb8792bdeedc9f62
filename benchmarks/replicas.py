"""What a balancer costs and what replicas gain: one engine bare, the same behind the balancer, two.

    python benchmarks/replicas.py                                  # a random two-layer model
    python benchmarks/replicas.py --model model.gguf --tokens 32   # a real one

Prints a Markdown table. The sides take turns, `--rounds` times, and each sends the same
`--requests` chat requests of `--tokens` tokens at temperature 0, `--in-flight` at once, with
as many slots in all. `--threads` are shared out: each of two replicas has half, and one at
least; with `--threads 1`, which suits a busy machine (llama.cpp's threads wait for each
other), the row `two` has twice the threads: its ratio says nothing of replicas. `ratio` is the
median, over the rounds, of a side's seconds to those of the bare engine in the same round:
with other work on the machine it says more than the seconds. Not here: GPUs.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import aiohttp

from cuvee.models.engines import serve, spawn
from cuvee.models.llama import llama_config
from cuvee.models.replicas import SILENT_SECONDS
from cuvee.recipe import Serve

SIDES = ("bare", "balanced", "two")
CONTEXT = 256


def spec(slots: int, threads: int, *, replicas: int = 1) -> Serve:
    """Return how a side is served: so many slots and threads in all."""
    return Serve(
        slots=slots // replicas,
        context=CONTEXT,
        threads=max(1, threads // replicas),
        replicas=replicas,
    )


@contextmanager
def lone_balanced(lone: Serve, model: Path, folder: Path) -> Iterator[str]:
    """Serve one engine behind the balancer; yield its URL."""
    config = {
        "engine": llama_config(lone, model, name="m", port=0),
        "replicas": 1,
        "folder": str(folder),
        "devices": [],
        "port": 0,
        "start_seconds": 300,
        "silent_seconds": SILENT_SECONDS,
    }
    file = folder / "balanced.json"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(config))
    command = [sys.executable, "-m", "cuvee.models.balancer", str(file)]
    with spawn(command, name="balanced", folder=folder, seconds=330) as url:
        yield url


async def load(url: str, *, requests: int, in_flight: int, tokens: int) -> float:
    """Send all requests; return the seconds it took."""
    numbers = iter(range(requests))
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def work() -> None:
            for number in numbers:
                text = f"Count from {number} upwards, one number a line."
                body = {
                    "model": "m",
                    "messages": [{"role": "user", "content": text}],
                    "max_tokens": tokens,
                    "temperature": 0,
                }
                async with session.post(f"{url}/chat/completions", json=body) as answer:
                    answer.raise_for_status()
                    await answer.read()

        begin = time.monotonic()
        await asyncio.gather(*(work() for _ in range(in_flight)))
        return time.monotonic() - begin


def measure(arguments: argparse.Namespace, model: Path, folder: Path) -> dict[str, list[float]]:
    """Return the seconds of each round, by side; all sides run all the time, idle but for one."""
    slots: int = arguments.in_flight
    lone = spec(slots, arguments.threads)
    pair = spec(slots, arguments.threads, replicas=2)
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    with ExitStack() as stack:
        start = stack.enter_context
        bare = start(serve(lone, str(model), name="m", folder=folder / "bare"))
        two = start(serve(pair, str(model), name="m", folder=folder / "two"))
        urls = {
            "bare": bare.url,
            "balanced": start(lone_balanced(lone, model, folder / "balanced")),
            "two": two.url,
        }
        for number in range(arguments.rounds + 1):
            for side in SIDES:
                took = asyncio.run(
                    load(
                        urls[side],
                        requests=arguments.requests if number else slots,
                        in_flight=arguments.in_flight,
                        tokens=arguments.tokens if number else 1,
                    )
                )
                if number:  # the first only wakes everything up
                    seconds[side].append(took)
                print(f"round {number}, {side}: {took:.2f} s", file=sys.stderr)
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=1)
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, model = Path(temporary), arguments.model
        if model is None:
            from cuvee.models.gguf_write import write_gguf  # torch: seconds a file need not wait
            from cuvee.models.random_model import write_random_model

            write_random_model(folder / "random")
            model = folder / "random.gguf"
            write_gguf(folder / "random", model, quantization="F32")
        seconds = measure(arguments, model, folder)
    print("| side | seconds (median) | requests/s | ratio to bare | of each round |")
    print("|---|--:|--:|--:|---|")
    for side in SIDES:
        middle = statistics.median(seconds[side])
        ratios = [a / b for a, b in zip(seconds[side], seconds["bare"], strict=True)]
        each = " ".join(f"{ratio:.2f}" for ratio in ratios)
        rate = arguments.requests / middle
        print(f"| {side} | {middle:.2f} | {rate:.1f} | {statistics.median(ratios):.2f} | {each} |")


if __name__ == "__main__":
    main()
