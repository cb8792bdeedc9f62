"""What docs/bench.md says is what the command does: the example, the columns, the flags."""

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cuvee.cli import app
from cuvee.models.gguf_write import write_gguf
from cuvee.models.random_model import write_random_model
from cuvee.serve.bench.shown import cell_table, load_table

PAGE = (Path(__file__).parent.parent / "docs" / "bench.md").read_text(encoding="utf-8")


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_random_model(tmp_path / "m")
    for kind in ("F32", "Q8_0"):
        write_gguf(tmp_path / "m", tmp_path / f"m.{kind}.gguf", quantization=kind)
    (command,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    program, *arguments = shlex.split(command)
    assert program == "cuvee"
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [*arguments, "--threads", "1"])
    assert done.exit_code == 0, done.output
    found = json.loads(Path("speed.json").read_text())
    (keys,) = re.findall(r"every single round: (.*)\.", PAGE)
    assert set(re.findall(r"`(\w+)`", keys)) == set(found)


def test_every_column_is_explained() -> None:
    columns = [*cell_table([]).columns, *load_table([]).columns]
    plain = {"prompt", "at once", "model", "file GB"}
    missing = {str(column.header) for column in columns} - plain
    assert [name for name in missing if f"`{name}`" not in PAGE] == []


def test_every_flag_that_is_shown_exists() -> None:
    shown = CliRunner().invoke(app, ["bench", "--help"], env={"COLUMNS": "200"}).output
    of_release = {"--gguf", "--out"}
    flags = set(re.findall(r"(--[a-z][a-z-]*)", PAGE)) - of_release
    assert flags
    assert [flag for flag in flags if flag not in shown] == []
