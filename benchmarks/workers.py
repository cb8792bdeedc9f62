"""Rows a second of checking: the pool against a Ray of this machine, on the same rows.

    python benchmarks/workers.py DATA [--cpus 1 2] [--rows 5000]

DATA is a folder with `outputs_gsm8k_openai_models/example_model_solutions.jsonl`. Prints a
table: how long Ray takes to start, rows a second warm, and what one row costs the driver.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cuvee.recipe import Verify
from cuvee.verify.clustered import check_rows_on_ray, chunked
from cuvee.verify.rows import Reading, check_rows
from cuvee.workers.chunks import map_chunks
from cuvee.workers.cluster import cluster

OUTPUTS = "outputs_gsm8k_openai_models/example_model_solutions.jsonl"
HARD = {"gold": "\\sin(x)^2+\\cos(x)^2", "reply": "\\boxed{1}"}
"""A row that only the symbolic engine decides; the others are decided by their normal forms."""


def rows_of(data: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of the published outputs."""
    for line in (data / OUTPUTS).read_text("utf-8").splitlines():
        row = json.loads(line)
        gold = row["ground_truth"].rpartition("A: ")[2]
        for model in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"):
            yield {"gold": gold, "reply": row[model]["solution"].replace("\nA: ", "\n#### ")}


def uncounted(_: int) -> None:
    """Tick nothing."""


def rate(work: Iterator[Any], rows: int) -> float:
    """Return rows a second of going through all of `work`."""
    begin = time.perf_counter()
    assert sum(1 for _ in work) == rows
    return rows / (time.perf_counter() - begin)


def measure(name: str, rows: list[dict[str, Any]], *, cpus: int) -> None:
    """Print one line of the table; a Ray of `cpus` must be open."""
    limits = Verify(processes=cpus)

    def by_pool() -> Iterator[Any]:
        return check_rows(rows, limits=limits)

    def by_ray() -> Iterator[Any]:
        reading, whole = Reading(), Verify()
        return check_rows_on_ray(rows, reading, limits=whole, sandbox="bubblewrap", tick=uncounted)

    best = [max(rate(way(), len(rows)) for _ in range(3)) for way in (by_pool, by_ray)]
    pool, ray = best
    print(f"| {name} | {cpus} | {pool:,.0f} | {ray:,.0f} | {ray / pool:.2f} |", flush=True)


def measure_carrying(rows: list[dict[str, Any]]) -> None:
    """Print what going to a worker and back costs a row, with nothing done to it there."""

    def back(items: list[Any]) -> list[Any]:
        return [number for number, _ in items]

    def carried() -> Iterator[Any]:
        chunks = chunked(enumerate(rows))
        return map_chunks(chunks, back, given_up=lambda item, _: item, tick=uncounted)

    begin = time.process_time()
    best = max(rate(carried(), len(rows)) for _ in range(3))
    used = (time.process_time() - begin) / 3 / len(rows)
    print(f"carried there and back, nothing done: {best:,.0f} rows/s", flush=True)
    print(f"the driver's processor time for it: {used * 1e6:.0f} us/row", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--cpus", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rows", type=int, default=5000)
    given = parser.parse_args()
    easy = list(rows_of(given.data))[: given.rows]
    hard = [HARD] * (given.rows // 2)
    print("| rows | CPUs | pool, rows/s | Ray, rows/s | Ray / pool |\n|---|---|---|---|---|")
    for cpus in given.cpus:
        begin = time.perf_counter()
        with cluster(None, cpus=cpus):
            started = time.perf_counter() - begin
            measure("normal forms (GSM8K)", easy, cpus=cpus)
            measure("symbolic", hard, cpus=cpus)
            if cpus == given.cpus[-1]:
                measure_carrying(easy * 4)
                print(f"Ray started in {started:.1f} s")


if __name__ == "__main__":
    main()
