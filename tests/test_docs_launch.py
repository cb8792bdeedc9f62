"""What docs/launch.md shows is what cuvee takes and prints."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from cuvee.cli import app
from cuvee.models.random_model import write_random_model
from cuvee.pipeline import open_recipe
from cuvee.recipe import Train
from cuvee.records import Example, write_rows
from cuvee.runfolder import Run
from cuvee.train.accelerate_config import check

PAGE = (Path(__file__).parent.parent / "docs" / "launch.md").read_text(encoding="utf-8")


def test_the_recipe_shown_is_one_that_can_be_launched() -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    train = Train.model_validate(yaml.safe_load(shown)["train"])
    check(train)
    assert set(yaml.safe_load(shown)["train"]["launcher"]) <= set(type(train.launcher).model_fields)


def test_the_script_shown_is_the_one_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_random_model(tmp_path / "base")
    folder = tmp_path / "runs" / "demo"
    folder.mkdir(parents=True)
    recipe = {
        "name": "demo",
        "base": str(tmp_path / "base"),
        "domains": {"math": {"problems": [{"source": "generator:sums"}], "verifier": "math"}},
        "teachers": [{"name": "alice", "scripted": {}}],
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    run = Run(folder, open_recipe(folder, overrides=[], out=None)[0])
    row = Example("1", "p", "math", "alice", "1 + 1?", "Two.", "2", 0)
    write_rows(run.examples("math"), [row], Example)

    (session,) = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    first, _, shown = session.partition("$ cat train.sh\n")
    words = shlex.split(first.removeprefix("$ cuvee ").partition(" > ")[0])
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    printed = result.stdout.replace(str(folder), "RUN")
    assert printed.replace(shlex.quote(sys.executable), "PYTHON") == shown
