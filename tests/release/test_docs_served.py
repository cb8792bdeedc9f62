"""What docs/served.md says is what the code does: its commands run, one after another."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from cuvee.cli import app
from cuvee.recipe import Release, dump_recipe
from cuvee.runfolder import Run

PAGE = (Path(__file__).parents[2] / "docs" / "served.md").read_text(encoding="utf-8")


def lines(kind: str) -> list[str]:
    blocks: list[str] = re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_the_page_runs_as_written(released: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = released.path.parent
    (folder / "runs").mkdir()
    (released.path / "recipe.yaml").write_text(dump_recipe(released.recipe))
    (folder / "runs" / "demo").symlink_to(released.path)
    monkeypatch.chdir(folder)
    said = {}
    for line in lines("bash"):
        program, *arguments = shlex.split(line)
        assert program == "cuvee"
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, f"{line}\n{done.output}"
        said[line] = done.output
    assert {p.name for p in (folder / "gguf").iterdir()} >= {
        "06_merged.F16.gguf", "06_merged.Q8_0.gguf", "parity.parquet", "parity.json",
    }  # fmt: skip
    listed = said["cuvee release runs/demo --push ORG/NAME --dry-run"]
    assert "model.safetensors" in listed and "not uploaded:" in listed
    assert "nothing was sent" in listed


def test_every_command_of_the_page_exists_and_its_flags_too() -> None:
    shown: list[str] = re.findall(r"^(cuvee [^#\n]*)", PAGE, re.MULTILINE)
    assert len(shown) == 7
    for line in shown:
        command = shlex.split(line)[1]
        done = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
        assert done.exit_code == 0, line
        assert set(re.findall(r"--[a-z-]+", line)) <= set(re.findall(r"--[a-z-]+", done.output))


def test_the_recipe_of_the_page_is_read_and_its_files_are_those_of_the_stage(
    released: Run,
) -> None:
    [block] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    Release(**yaml.safe_load(block)["release"])
    table = re.findall(r"^\| (`.*?) \|", PAGE.partition("in `08_release`")[2], re.MULTILINE)
    named = {name for row in table for name in re.findall(r"`(.*?)`", row)}
    there = {path.name + "/" * path.is_dir() for path in released.folder("release").iterdir()}
    expected = {n.replace("small-blend", "NAME").replace("Q8_0", "TYPE") for n in there}
    assert named == expected
