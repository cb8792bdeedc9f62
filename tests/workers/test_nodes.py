"""What is said of nodes, addresses and missing Ray, without a cluster."""

import importlib.util
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cuvee.cli import app
from cuvee.errors import CuveeError, RecipeError
from cuvee.recipe import parse_recipe
from cuvee.recipe.cluster import ON_RAY, refused_address
from cuvee.runfolder import STAGES
from cuvee.verify.clustered import CHUNK_CHARACTERS, CHUNK_ROWS, chunked
from cuvee.workers.cluster import cluster
from cuvee.workers.nodes import differences, versions


def test_the_same_versions_differ_in_nothing() -> None:
    assert differences(versions(), versions()) == []


def test_a_difference_names_both_versions() -> None:
    here = {"cuvee": "1", "sympy": "2"}
    assert differences(here, {"cuvee": "1", "sympy": "3"}) == ["sympy is 3, here 2"]
    assert differences(here, {"cuvee": "1"}) == ["sympy is not installed, here 2"]


def test_an_address_is_for_ray_and_for_no_client() -> None:
    assert refused_address("ray", None) == refused_address("ray", "10.0.0.1:6379") == ""
    assert "only with workers: ray" in refused_address("pool", "auto")
    assert "ray://" in refused_address("ray", "ray://head:10001")


def test_stages_are_named_as_stages_are() -> None:
    assert set(ON_RAY) < set(STAGES)


def test_an_address_where_nobody_is_ends_with_words() -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'cuvee[ray]'")
    with pytest.raises(CuveeError, match="the Ray cluster at 'nowhere' does not answer"):  # noqa: SIM117
        with cluster("nowhere"):
            pass


def test_a_recipe_names_its_workers() -> None:
    recipe = {
        "name": "a",
        "base": "random:two-layer",
        "workers": "ray",
        "domains": {"math": {"problems": [{"source": "a.jsonl"}], "verifier": "math"}},
        "teachers": [{"name": "t", "scripted": {}}],
    }
    assert parse_recipe(recipe, where="-").address is None
    assert parse_recipe(recipe | {"address": "auto"}, where="-").address == "auto"
    with pytest.raises(RecipeError, match="only with workers: ray"):
        parse_recipe(recipe | {"address": "auto", "workers": "pool"}, where="-")


def test_chunks_are_short_in_rows_and_in_text() -> None:
    short = [(number, {"reply": "x"}) for number in range(2 * CHUNK_ROWS + 1)]
    assert [len(chunk) for chunk in chunked(short)] == [CHUNK_ROWS, CHUNK_ROWS, 1]
    long = [(number, {"reply": "x" * (CHUNK_CHARACTERS // 2)}) for number in range(5)]
    assert [len(chunk) for chunk in chunked(long)] == [2, 2, 1]
    assert [row for chunk in chunked(short) for row in chunk] == short


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--workers", "dask"], "--workers dask: pool or ray"),
        (["--address", "auto"], "address 'auto': only with workers: ray"),
        (["--workers", "ray", "--address", "ray://h:1"], "is not supported"),
    ],
)
def test_flags_that_cannot_be_honoured_are_refused(
    tmp_path: Path, flags: list[str], said: str
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"gold": "1", "reply": "1"}\n')
    result = CliRunner().invoke(app, ["verify", str(rows), *flags])
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())
