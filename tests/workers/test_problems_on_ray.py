"""The stage `problems` on a Ray of two CPUs writes the files that it writes with the pool."""

import contextlib
import json
import os
import random
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cuvee.problems import clustered
from cuvee.problems.shard_dedup import Sizes
from cuvee.problems.stage import tasks
from cuvee.recipe import parse_recipe
from cuvee.records import Dropped, read_rows
from cuvee.runfolder import Run, execute, is_done, read_manifest
from cuvee.workers.chunks import map_chunks

from .conftest import workers_of


def write_sources(folder: Path) -> dict[str, Any]:
    """Write problems with repeats, overlaps and bad golds among them; return recipe keys."""
    rng = random.Random(1)
    words = [left + right for left in "abcdefghijklmnopqrstuvwxyz" for right in "aeioubdt"]
    rows: list[dict[str, Any]] = []
    for n in range(900):
        text = [rng.choice(words) for _ in range(rng.choice([8, 40, 120]))]
        if rows and rng.random() < 0.3:  # a copy, or one with a word changed
            text = rng.choice(rows)["question"].split(" ")
            text[rng.randrange(len(text))] = rng.choice([*words, *text])
        gold = rng.choice(["\\frac{", "", str(n), str(n), str(n), "\\frac{1}{2}"])
        rows.append({"question": " ".join(text), "answer": gold or None})
    held_out = [{"question": row["question"].upper(), "answer": "7"} for row in rows[::40]]
    held_out += [*held_out[:2], {"question": "Which?", "answer": "\\frac{"}]
    for name, written in (("p", rows), ("b", held_out)):
        lines = "".join(json.dumps(row) + "\n" for row in written)
        (folder / f"{name}.jsonl").write_text(lines, "utf-8")
    source = {"source": str(folder / "p.jsonl")}
    unnamed = {"source": "generator:functions", "count": 20}
    return {
        "name": "r",
        "base": "random:two-layer",
        "teachers": [{"name": "t", "scripted": {}}],
        "verify": {"math_seconds": 30, "code_seconds": 30},  # a busy machine decides nothing
        "domains": {
            "m": {"verifier": "math", "problems": [source]},
            "open": {"verifier": "none", "problems": [source]},
            "c": {"verifier": "code", "problems": [unnamed]},
        },
        "evaluate": {
            "benchmarks": {
                "b": {"domain": "m", "problems": {"source": str(folder / "b.jsonl")}},
            }
        },
    }


def run_of(folder: Path, recipe: Mapping[str, Any], workers: str) -> Run:
    return Run(folder / workers, parse_recipe({**recipe, "workers": workers}, where="-"))


def files_of(run: Run) -> dict[str, bytes]:
    folder = run.path / "01_problems"
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(files)}


def execute_all(run: Run) -> dict[str, Mapping[str, Any]]:
    with contextlib.ExitStack() as resources:
        return {task.name: execute(run, task) for task in tasks(run, resources)}


def kill_a_worker() -> bool:
    """Kill a process that works on a chunk for Ray, if there is one now."""
    for worker in workers_of(os.getpid()):
        with contextlib.suppress(ProcessLookupError):  # it ended by itself meanwhile
            os.kill(worker, signal.SIGKILL)
            return True
    return False


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have a worker killed in every pass, after its first result; return what it worked on."""
    passes: list[str] = []
    asked = map_chunks

    def map_and_kill(chunks: Any, function: Any, **more: Any) -> Iterator[Any]:
        for number, result in enumerate(asked(chunks, function, **more)):
            yield result
            if number == 0 and kill_a_worker():
                passes.append(function.func.__name__)

    monkeypatch.setattr(clustered, "map_chunks", map_and_kill)
    return passes


@pytest.mark.sandbox
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("two_cpus")
# Of a Ray that had to be started twice: it forgets its own processes.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_every_file_is_the_pool_s_to_the_byte_though_workers_are_killed(
    tmp_path: Path, killed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in (("SHARD_TEXTS", 100), ("COMPARED_ROWS", 50), ("CHUNK_ROWS", 40)):
        monkeypatch.setattr(clustered, name, size)
    monkeypatch.setattr(clustered, "SIZES", Sizes(partition_pairs=2000, group_texts=20))
    recipe = write_sources(tmp_path)
    pool, ray = run_of(tmp_path, recipe, "pool"), run_of(tmp_path, recipe, "ray")
    counts = execute_all(pool)
    assert execute_all(ray) == counts
    assert files_of(ray) == files_of(pool)
    assert "_each" in killed
    dropped = [row.reason for row in read_rows(pool.dropped("problems", "m"), Dropped)]
    expected = {"exact_duplicate", "near_duplicate", "in_benchmark", "gold_not_verified"}
    assert expected <= set(dropped)
    assert counts["open"]["gold_not_checked"] > 300


def test_a_run_s_tasks_are_the_same_with_either_workers(tmp_path: Path) -> None:
    recipe = write_sources(tmp_path)
    with contextlib.ExitStack() as resources:
        pool = tasks(run_of(tmp_path, recipe, "pool"), resources)
        ray = tasks(run_of(tmp_path, recipe, "ray"), resources)
    assert [task.key for task in pool] == [task.key for task in ray]
    assert [task.settings for task in pool] == [task.settings for task in ray]


def test_no_cluster_is_opened_where_everything_is_done(tmp_path: Path) -> None:
    """The address is nobody's: to open it would fail."""
    recipe = write_sources(tmp_path)
    run = run_of(tmp_path, recipe, "pool")
    execute_all(run)
    elsewhere = {**recipe, "workers": "ray", "address": "127.0.0.1:1"}
    same = Run(run.path, parse_recipe(elsewhere, where="-"))
    with contextlib.ExitStack() as resources:
        listed = tasks(same, resources)
        assert all(is_done(same, task, read_manifest(run.path)) for task in listed)
