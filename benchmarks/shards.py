"""Processor time of verifying shards: a row in a worker, a shard in the driver.

    python benchmarks/shards.py DATA [--rows 20000] [--shards 40]

DATA is a folder with `outputs_gsm8k_openai_models/example_model_solutions.jsonl`. Prints what
reading, checking and writing a row takes in a worker, and what a shard takes in the driver of
a Ray of two CPUs, and when it is found done.
"""

import argparse
import functools
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cuvee.recipe import Verify
from cuvee.shards.check import check_piece
from cuvee.shards.pieces import Piece, find_shards
from cuvee.shards.record import How
from cuvee.shards.resume import make_plan
from cuvee.shards.verify import verify_shards
from cuvee.shards.workers import on_ray
from cuvee.verify.rows import Reading, check_rows
from cuvee.workers.cluster import cluster

OUTPUTS = "outputs_gsm8k_openai_models/example_model_solutions.jsonl"
MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


def rows_of(data: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of the published outputs."""
    for line in (data / OUTPUTS).read_text("utf-8").splitlines():
        row = json.loads(line)
        gold = row["ground_truth"].rpartition("A: ")[2]
        for model in MODELS:
            reply = row[model]["solution"].replace("\nA: ", "\n#### ")
            yield {"question": row["question"], "gold": gold, "reply": reply}


def used(work: Callable[[], object]) -> float:
    """Return the seconds of this process's processor time that work takes."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def measure_worker(rows: list[dict[str, Any]], folder: Path) -> None:
    """Print what a row takes where it is checked."""
    (folder / "t").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "t" / "a.parquet")
    how = How(Reading(verifier="math"), Verify(processes=1), "none")
    (shard,) = find_shards(f"{folder}/t", f"{folder}/v").shards
    piece = Piece(shard, None, shard.target)
    checking = functools.partial(check_rows, rows, verifier="math", sandbox="none")
    whole, alone = [], []
    for _ in range(3):
        whole.append(used(lambda: check_piece(piece, how)))
        alone.append(used(lambda: list(checking())))
    read_and_write = (min(whole) - min(alone)) / len(rows)
    print(f"a row in a worker: {min(whole) / len(rows) * 1e6:.0f} us", flush=True)
    print(f"  of it reading and writing: {read_and_write * 1e6:.0f} us", flush=True)
    print(f"  bytes a row: {shard.size / len(rows):.0f} in, ", end="")
    print(f"{Path(shard.target).stat().st_size / len(rows):.0f} out", flush=True)


def measure_driver(rows: list[dict[str, Any]], folder: Path, shards: int) -> None:
    """Print what a shard takes in the driver, whatever is in it."""
    (folder / "many").mkdir()
    for number in range(shards):
        pq.write_table(pa.Table.from_pylist(rows[:10]), folder / "many" / f"{number}.parquet")
    how = How(Reading(verifier="math"), Verify(), "none")
    source, out = f"{folder}/many", f"{folder}/out"
    workers = functools.partial(on_ray, address=None)
    with cluster(None, cpus=2):
        verify_shards(f"{source}/0.parquet", f"{folder}/warm", how, open_workers=workers)
        asked = used(lambda: verify_shards(source, out, how, open_workers=workers))
    found = used(lambda: make_plan(find_shards(source, out).shards, out, how))
    print(f"a shard in the driver: {asked / shards * 1e3:.1f} ms", flush=True)
    print(f"a shard that is found done: {found / shards * 1e3:.1f} ms", flush=True)


def main() -> None:
    """Read the flags, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--shards", type=int, default=40)
    flags = parser.parse_args()
    rows = list(itertools.islice(itertools.cycle(rows_of(flags.data)), flags.rows))
    with tempfile.TemporaryDirectory() as folder:
        measure_worker(rows, Path(folder))
        measure_driver(rows, Path(folder), flags.shards)


if __name__ == "__main__":
    main()
