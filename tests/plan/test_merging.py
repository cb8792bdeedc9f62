"""The memory of a merge: what the merge itself would ask for, and what is said where it is not."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from cuvee.merge.plan import make_plan, memory_needed
from cuvee.merge.stage import merge_config
from cuvee.models.random_model import write_random_model
from cuvee.models.shape import ModelShape, shape_of
from cuvee.plan.estimate import estimate
from cuvee.plan.machine import Machine
from cuvee.plan.measured import NOTHING_YET
from cuvee.plan.merging import merge_bytes
from cuvee.recipe import Recipe, parse_recipe
from cuvee.runfolder import Run

QWEN_32B = ModelShape("qwen2", 152064, 5120, 27648, 64, 40, 8, 128, tied=False)


def recipe(base: str = "random:two-layer", **merge: object) -> Recipe:
    """Return a recipe of two domains."""
    domain = {"problems": [{"source": "generator:arithmetic", "count": 9}], "verifier": "math"}
    data = {
        "name": "r", "base": base, "domains": {"one": domain, "two": domain},
        "teachers": [{"name": "t", "scripted": {}}], "merge": merge,
        "train": {"launcher": {"cpu": True}},
    }  # fmt: skip
    return parse_recipe(data, where="test")


@pytest.mark.parametrize(
    "merge",
    [
        {},
        {"mode": "mergekit"},
        {"method": "linear", "parameters": {"weight": 1.0}},
        {"method": "ties", "parameters": {"weight": 1.0, "density": 0.5}},
    ],
    ids=["fusion", "mergekit", "linear", "ties"],
)
def test_it_is_what_the_merge_itself_asks_for(merge: dict[str, Any], tmp_path: Path) -> None:
    opened = recipe(**merge)
    run = Run(tmp_path, opened)
    folders = [run.specialist(name) for name in opened.domains]
    for folder in (*folders, tmp_path / "base"):
        write_random_model(folder)
    config = merge_config(run, base=tmp_path / "base")
    plan = make_plan(config, tmp_path / "out", threads=2, max_ram=None)
    counted = merge_bytes(shape_of(folders[0]), opened, threads=2)
    assert counted == pytest.approx(memory_needed(plan, 2), rel=0.02)


def test_too_little_ram_is_said_with_the_threads_that_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_random_model(tmp_path / "base")
    opened = recipe(str(tmp_path / "base"))
    shape = shape_of(tmp_path / "base")
    three = merge_bytes(shape, opened, threads=3)
    machine = Machine(cores=8, ram=three, disk=50 * 10**9, gpus=())

    def said(on: Machine, of: Recipe = opened) -> list[str]:
        found = estimate(of, measured=NOTHING_YET, assume=(), machine=on).misfits
        return [m.nearest for m in found if m.stage == "merge"]

    assert said(machine) == ["3 threads, one a core: `taskset -c 0-2 cuvee run ...`"]
    assert said(dataclasses.replace(machine, cores=3)) == []
    (nearest,) = said(dataclasses.replace(machine, ram=10**8))
    assert nearest.startswith("a machine with 0.3 GB")


def test_a_merge_of_32_billion_weights_takes_a_few_gigabytes_however_large_the_files() -> None:
    needed = merge_bytes(QWEN_32B, recipe(), threads=8)
    assert 0.5e9 < needed < 3e9
    whole = merge_bytes(QWEN_32B, recipe(mode="mergekit"), threads=8)
    assert whole - needed == 48 * 152064 * 5120  # bytes an element of the largest tensor
