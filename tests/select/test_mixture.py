"""The mixture: all examples of all domains, each domain's in order, mixed as the seed says."""

import contextlib
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.errors import DataError
from cuvee.recipe import Recipe, parse_recipe
from cuvee.records import Example, read_rows, write_rows
from cuvee.runfolder import Run, Task, execute, is_done, read_manifest
from cuvee.select.mixture import interleaved
from cuvee.select.stage import tasks


def example(domain: str, number: int) -> Example:
    name = f"{domain}{number}"
    return Example(name, f"p-{name}", domain, "ann", f"Question {name}?", "r", "a", 9)


def write(folder: Path, **counts: int) -> list[Path]:
    """Write so many examples a domain; return the files."""
    for domain, count in counts.items():
        rows = [example(domain, number) for number in range(count)]
        write_rows(folder / f"{domain}.parquet", rows, Example)
    return [folder / f"{domain}.parquet" for domain in counts]


def recipe(**more: Any) -> Recipe:
    domain = {"problems": [{"source": "generator:arithmetic", "count": 1}], "verifier": "math"}
    data = {
        "name": "blend",
        "base": "random:two-layer",
        "domains": {"math": domain, "code": domain},
        "teachers": [{"name": "ann", "scripted": {}}],
        "baseline": "mixture",
    }
    return parse_recipe(data | more, where="test")


def mixture_of(run: Run) -> Task:
    with contextlib.ExitStack() as resources:
        found: Task = tasks(run, resources)[-1]
    assert found.key == "select/mixture"
    return found


def ids(file: Path) -> list[str]:
    return [row.id for row in read_rows(file, Example)]


@given(st.lists(st.integers(0, 30), min_size=2, max_size=4), st.integers(0, 2**40))
def test_every_row_stands_once_and_each_domain_keeps_its_order(
    counts: list[int], seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = write(Path(folder), **{f"d{n}": count for n, count in enumerate(counts)})
        rows = list(interleaved(files, seed))
        assert rows == list(interleaved(files, seed))
        for file in files:
            assert [row for row in rows if row.domain == file.stem] == read_rows(file, Example)
        assert len(rows) == sum(counts)


def test_every_way_to_mix_is_as_likely_as_any_other(tmp_path: Path) -> None:
    files = write(tmp_path, a=2, b=1)
    seen = Counter("".join(r.domain for r in interleaved(files, seed)) for seed in range(600))
    assert set(seen) == {"aab", "aba", "baa"}
    assert min(seen.values()) > 150  # 200 are expected; 150 is four standard deviations below


def test_the_order_of_a_seed_stays_the_same_from_version_to_version(tmp_path: Path) -> None:
    files = write(tmp_path, math=5, code=4)
    found = [row.id for row in interleaved(files, 42)]
    assert " ".join(found) == "math0 code0 code1 math1 code2 math2 code3 math3 math4"


def test_the_stage_writes_it_after_the_domains_and_only_where_it_is_asked_for(
    tmp_path: Path,
) -> None:
    run = Run(tmp_path, recipe())
    write(run.folder("select"), math=3, code=2)
    with contextlib.ExitStack() as resources:
        assert [t.name for t in tasks(run, resources)] == ["math", "code", "mixture"]
        plain = Run(tmp_path, recipe(baseline=None))
        assert [t.name for t in tasks(plain, resources)] == ["math", "code"]
    task = mixture_of(run)
    assert execute(run, task) == {"examples": 5}
    assert sorted(ids(run.examples("mixture"))) == ["code0", "code1", "math0", "math1", "math2"]
    assert is_done(run, task, read_manifest(run.path))


def test_a_changed_domain_seed_or_order_of_domains_makes_it_outdated(tmp_path: Path) -> None:
    run = Run(tmp_path, recipe())
    write(run.folder("select"), math=3, code=2)
    execute(run, mixture_of(run))
    manifest = read_manifest(run.path)
    assert not is_done(run, mixture_of(Run(tmp_path, recipe(seed=1))), manifest)
    turned = dict(reversed(run.recipe.model_dump()["domains"].items()))
    assert not is_done(run, mixture_of(Run(tmp_path, recipe(domains=turned))), manifest)
    write(run.folder("select"), code=3)
    assert not is_done(run, mixture_of(run), manifest)


def test_an_example_of_two_domains_stands_there_twice(tmp_path: Path) -> None:
    row = example("math", 0)
    for name in ("math", "code"):
        write_rows(tmp_path / f"{name}.parquet", [row], Example)
    files = [tmp_path / "math.parquet", tmp_path / "code.parquet"]
    assert [r.id for r in interleaved(files, 0)] == ["math0", "math0"]


def test_a_domain_without_its_file_is_named(tmp_path: Path) -> None:
    run = Run(tmp_path, recipe())
    write(run.folder("select"), math=3)
    with pytest.raises(DataError, match=r"code\.parquet: missing; `cuvee select` writes it"):
        execute(run, mixture_of(run))
