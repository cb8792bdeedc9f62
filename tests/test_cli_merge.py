"""`cuvee merge` and `cuvee diff` as they are typed."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner, Result

from cuvee.cli import app
from cuvee.cli.merge import parse_size
from cuvee.errors import RecipeError
from cuvee.merge.threads import cores

RECIPE = Path(__file__).parent.parent / "recipes" / "smoke.yaml"
CONFIG = """
merge_method: slerp
base_model: a
models: [b]
parameters:
  t: [{filter: mlp, value: 0}, {value: 1}]
dtype: float32
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder with two checkpoints of two tensors, `a` and `b`, and a config."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        described = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
        (tmp_path / name / "config.json").write_text(json.dumps(described))
        random = np.random.default_rng(seed)
        tensors = {
            f"model.layers.0.{part}.weight": random.normal(size=(8, 16)).astype(np.float32)
            for part in ("mlp.up_proj", "self_attn.q_proj")
        }
        save_file(tensors, tmp_path / name / "model.safetensors", {"format": "pt"})
    (tmp_path / "c.yml").write_text(CONFIG)
    return tmp_path


def cuvee(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def refused(*arguments: str) -> str:
    """Return the message of a command that must end with code 2, on one line."""
    result = cuvee(*arguments)
    assert result.exit_code == 2, result.output
    return " ".join(result.output.split())


def test_a_config_merges_into_a_folder(here: Path) -> None:
    result = cuvee("merge", "c.yml", "out", "--threads", "2", "--max-ram", "4GB")
    assert result.exit_code == 0, result.output
    assert "merged model: out" in result.output
    merged, a, b = (load_file(here / name / "model.safetensors") for name in ("out", "a", "b"))
    mlp, attention = "model.layers.0.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.weight"
    np.testing.assert_allclose(merged[mlp], a[mlp], rtol=1e-6)
    np.testing.assert_allclose(merged[attention], b[attention], rtol=1e-6)


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(here: Path) -> None:
    before = sorted(here.rglob("*"))
    result = cuvee("merge", "c.yml", "out", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "slerp of b" in result.output
    assert sorted(here.rglob("*")) == before


def test_flags_stand_for_keys_of_the_config(here: Path) -> None:
    result = cuvee("merge", "c.yml", "out", "--seed", "3", "--allow-nonfinite")
    assert result.exit_code == 0, result.output
    assert json.loads((here / "out" / "cuvee_merge.json").read_text())["config"]["seed"] == 3
    (here / "c.yml").write_text(CONFIG + "seed: 4\n")
    assert "says seed: 4" in refused("merge", "c.yml", "out2", "--seed", "3")


def test_a_wrong_config_is_refused_with_all_its_faults(here: Path) -> None:
    (here / "c.yml").write_text(CONFIG + "slices: [1]\nmergemethod: x\n")
    message = refused("merge", "c.yml", "out")
    assert "c.yml: slices: not supported" in message
    assert "mergemethod: unknown key; did you mean 'merge_method'?" in message
    assert not (here / "out").exists()


def test_a_filter_without_a_tensor_is_refused(here: Path) -> None:
    (here / "c.yml").write_text(CONFIG.replace("mlp", "mpl"))
    assert "filter 'mpl': no tensor has it" in refused("merge", "c.yml", "out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["c.yml"], "c.yml: a merge config; name the folder to write: merge c.yml OUT"),
        ([str(RECIPE), "out"], "a recipe or a run, which takes no OUT"),
        ([".", "out"], "a recipe or a run, which takes no OUT"),
        (["c.yml", "out", "--limit", "3"], "--limit: only without OUT"),
        (["c.yml", "out", "--set", "a=1", "--out", "x"], "--out, --set: only without OUT"),
        ([str(RECIPE), "--threads", "2", "--dry-run"], "--threads, --dry-run: only with OUT"),
        ([str(RECIPE), "--max-ram", "1GB"], "--max-ram: only with OUT"),
        ([str(RECIPE), "--seed", "0", "--allow-nonfinite"], "--seed, --allow-nonfinite: only"),
        (["c.yml", "out", "--max-ram", "4"], "--max-ram 4: a size with its unit is allowed"),
        (["none.yml", "out"], "none.yml: cannot read the config"),
        (["none.yml"], "none.yml: cannot read the recipe"),
    ],
)
@pytest.mark.usefixtures("here")
def test_forms_that_cannot_be_mixed_are_refused_by_name(arguments: list[str], message: str) -> None:
    assert message in refused("merge", *arguments)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4GB", 4 * 10**9),
        ("1.5GiB", 3 * 2**29),
        ("800 mb", 800 * 10**6),
        (".5TB", 5 * 10**11),
        ("64KiB", 65536),
    ],
)
def test_a_size_is_a_number_with_a_unit(text: str, expected: int) -> None:
    assert parse_size(text, flag="--max-ram") == expected


@pytest.mark.parametrize("text", ["", "4", "GB", "-1GB", "0GB", "1e3GB", "4 GBs", "4G", "0.0001kB"])
def test_what_is_no_size_is_named(text: str) -> None:
    with pytest.raises(RecipeError, match="--max-ram"):
        parse_size(text, flag="--max-ram")


def test_as_many_threads_as_cores_that_may_be_used() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)


@pytest.mark.usefixtures("here")
def test_diff_of_a_checkpoint_and_itself_finds_nothing() -> None:
    result = cuvee("diff", "a", "a", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["identical"] is True


def test_diff_shows_a_table_and_writes_a_page(here: Path) -> None:
    result = cuvee("diff", "a", "b", "--html", "d.html", "--threads", "1")
    assert result.exit_code == 0, result.output
    assert "model.layers.0.mlp.up_proj.weight" in result.stdout
    assert "<svg" in (here / "d.html").read_text()


@pytest.mark.usefixtures("here")
def test_diff_names_what_is_no_checkpoint() -> None:
    assert "no such folder" in refused("diff", "a", "nowhere")


def test_help_shows_both_forms_with_examples() -> None:
    output = " ".join(cuvee("merge", "--help").output.split())
    assert "CONFIG OUT:" in output
    assert "RECIPE: the stage of a run" in output
    assert "cuvee merge ties.yml merged --max-ram 4GB" in output
