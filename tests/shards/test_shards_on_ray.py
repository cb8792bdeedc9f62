"""Shards verified by a Ray of two CPUs, on a store over HTTP: same verdicts, nothing lost."""

import dataclasses
import functools
import importlib.util
import os
from collections.abc import Iterator
from typing import Any

import pytest

from cuvee.errors import CuveeError
from cuvee.recipe import Verify
from cuvee.records import Verdict
from cuvee.shards import pieces
from cuvee.shards.record import How
from cuvee.shards.verify import Verified, verify_shards
from cuvee.shards.workers import on_ray
from cuvee.verify.rows import Reading, check_rows

from .conftest import answers, names, put, shard, table

HOW = How(Reading(verifier="math"), Verify(), "none")


@pytest.fixture(scope="module", autouse=True)
def two_cpus(server: Any) -> Iterator[None]:
    """Start after the server: workers take its address from the environment."""
    if importlib.util.find_spec("ray") is None:  # not imported here: cuvee says how it listens
        pytest.skip("Ray is not installed: pip install 'cuvee[ray]'")
    from cuvee.workers.cluster import cluster

    with cluster(None, cpus=2):
        yield


def run(source: str, out: str) -> Verified:
    workers = functools.partial(on_ray, address=None)
    return verify_shards(source, out, HOW, open_workers=workers)


def assert_same(out: str, rows: list[dict[str, str]]) -> None:
    there = [dataclasses.replace(Verdict(**row), seconds=0.0) for row in table(out).to_pylist()]
    expected = check_rows(rows, verifier="math", sandbox="none")
    assert there == [dataclasses.replace(verdict, seconds=0.0) for verdict in expected]


def test_no_row_passes_through_the_driver(shelf: Any) -> None:
    rows = {str(number): answers(str(number), 30 * number) for number in range(5)}
    for name, held in rows.items():
        put(f"shelf://b/t/{name}.parquet", shard(held))
    shelf.asked.clear()
    verified = run("shelf://b/t/*.parquet", "shelf://b/v")
    assert verified.summary.reasons.total() == 300
    ours = {(method, key) for method, key, process in shelf.asked if process == os.getpid()}
    assert all(key.startswith("?") for _, key in ours)  # listings alone
    for name, held in rows.items():
        assert_same(f"shelf://b/v/{name}.parquet", held)


def test_a_worker_that_is_lost_costs_a_try_of_its_shard(shelf: Any) -> None:
    rows = {name: answers(name, 20) for name in "abc"}
    for name, held in rows.items():
        put(f"shelf://b/t/{name}.parquet", shard(held))
    shelf.deadly["b/t/b.parquet"] = 1
    assert run("shelf://b/t", "shelf://b/v").summary.reasons.total() == 60
    for name, held in rows.items():
        assert_same(f"shelf://b/v/{name}.parquet", held)


def test_a_shard_that_ends_every_worker_goes_row_by_row(
    shelf: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHELF_SAFE", str(os.getpid()))
    put("shelf://b/t/a.parquet", shard(answers("a", 20)))
    put("shelf://b/t/b.parquet", shard(answers("b", 300)))
    shelf.deadly["b/t/b.parquet"] = 10**6
    assert run("shelf://b/t", "shelf://b/v").summary.reasons.total() == 320
    assert "b.parquet: no worker came back from it" in capsys.readouterr().err
    assert_same("shelf://b/v/b.parquet", answers("b", 300))


def test_pieces_of_a_big_shard_are_checked_and_joined_by_workers(
    shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 600)
    put("shelf://b/t/a.parquet", shard(answers("a", 100), groups_of=10))
    put("shelf://b/t/bad.parquet", b"no Parquet" * 100)
    verified = run("shelf://b/t", "shelf://b/v")
    assert_same("shelf://b/v/a.parquet", answers("a", 100))
    assert names("shelf://b/v") == ["a.parquet"]
    assert [why.partition(":")[0] for why in verified.failed] == ["bad.parquet"]
    checkers = {process for method, key, process in shelf.asked if "_parts" in key}
    assert os.getpid() not in checkers


def test_what_a_node_cannot_reach_is_said_before_any_work(shelf: Any) -> None:
    put("memory://t/a.parquet", shard(answers("a", 2)))  # of this process alone
    with pytest.raises(CuveeError, match=r"1 of 1 nodes cannot take part(.|\n)*no such file"):
        run("memory://t/a.parquet", "shelf://b/v")
