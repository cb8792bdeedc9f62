"""Reservations, answers and look-ups a second: a ledger in a file and one on a server, in turn.

`python benchmarks/ledger.py [--answers N] [--server postgresql://user@host/new]` prints a
Markdown table. Without a server it starts one of its own (Debian's package), on this machine.
One process; answers of 4,000 bytes; every write is on the disk before it counts. Not measured
here: a network.
"""

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from cuvee.recipe import Budget
from cuvee.recipe.address import Place, Server
from cuvee.teach.ledger import Cost, Ledger, Payer
from tests.teach.servers import running

PAYER, MOST, COST = Payer("run", "alice"), Cost(100, 4000, 0.5), Cost(100, 1000, 0.25)
ALONE = 10
"""One in so many answers is written again alone: each waits for its own commit."""


def put(ledger: Ledger, key: str) -> object:
    """Store one answer."""
    return ledger.put(
        key,
        request='{"identity":"m"}',
        response="x" * 4000,
        status=200,
        seconds=1.0,
        payer=PAYER,
        cost=COST,
    )


def rates(place: Place, answers: int) -> dict[str, float]:
    """Return what a ledger does a second, by kind."""
    keys = [str(number) for number in range(answers)]
    few = keys[:: ALONE * 2]
    budget = Budget(usd=1e6)
    with Ledger.open(place) as ledger:

        def mark(key: str) -> object:
            return ledger.mark_sent(key, payer=PAYER, reserved=MOST, budget=budget)

        def store(key: str) -> object:
            return put(ledger, key)

        return {
            "reservations, many waiting": _all(mark, keys),
            "answers, many waiting": _all(store, keys),
            "answers, one after another": _one_by_one(store, [f"alone {key}" for key in few]),
            "look-ups of one answer": _one_by_one(ledger.get, keys),
        }


def _all(write: Callable[[str], object], keys: list[str]) -> float:
    begin = time.perf_counter()
    for future in [write(key) for key in keys]:
        future.result()  # type: ignore[attr-defined]
    return len(keys) / (time.perf_counter() - begin)


def _one_by_one(step: Callable[[str], object], keys: list[str]) -> float:
    begin = time.perf_counter()
    for key in keys:
        done = step(key)
        if hasattr(done, "result"):
            done.result()
    return len(keys) / (time.perf_counter() - begin)


def main() -> None:
    """Measure both stores and print."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--answers", type=int, default=3000)
    options.add_argument("--server", help="an empty database; made by itself where not given")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        server = given.server or stack.enter_context(running()).database()
        file = rates(Path(folder) / "l.sqlite", given.answers)
        database = rates(server if isinstance(server, Server) else Server(server), given.answers)
    print("| a second | SQLite | PostgreSQL | ratio |\n|---|---|---|---|")
    for kind, rate in file.items():
        print(f"| {kind} | {rate:,.0f} | {database[kind]:,.0f} | {database[kind] / rate:.2f} |")


if __name__ == "__main__":
    main()
