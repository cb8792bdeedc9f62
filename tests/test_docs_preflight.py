"""What docs/preflight.md says is what the command does: rows, forms, flags, files, levels."""

import json
import re
from pathlib import Path
from typing import get_args

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cuvee.cli import app
from cuvee.cli.preflight import EXAMPLES
from cuvee.cli.verify import FILES
from cuvee.models.random_model import write_random_model
from cuvee.records import Example, read_rows
from cuvee.train.preflight import Level
from cuvee.train.preflight_rows import REASONING, write_examples

PAGE = (Path(__file__).parent.parent / "docs" / "preflight.md").read_text(encoding="utf-8")
(ROWS,) = re.findall(r"```jsonl\n(.*?)```", PAGE, re.DOTALL)


def test_the_rows_that_are_shown_are_read(tmp_path: Path) -> None:
    file, out = tmp_path / "rows.jsonl", tmp_path / "out.parquet"
    file.write_text(ROWS, encoding="utf-8")
    assert write_examples(file, out) == 2
    first, second = read_rows(out, Example)
    assert (first.id, first.prompt, first.answer) == ("sum", "What is 2 + 2?", r"\boxed{4}")
    assert (second.id, second.reasoning, second.answer) == (
        "row 2",
        "Three and three.",
        r"\boxed{6}",
    )


def test_the_files_that_are_named_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text(ROWS, encoding="utf-8")
    write_random_model(Path("base"))
    done = CliRunner().invoke(
        app, ["preflight", "rows.jsonl", "--model", "base", "--out", "o", "--set",
              "train.max_tokens=512"]
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    named = re.findall(r"^\| `(\w+\.\w+)` \|", PAGE, re.MULTILINE)
    assert sorted(path.name for path in Path("o").iterdir()) == sorted(named)
    columns = pq.read_schema("o/tokens.parquet").names
    assert columns == ["id", "input_ids", "labels", "held_out"]
    assert all(f"`{name}`" in PAGE for name in columns)
    assert json.loads(Path("o/preflight.json").read_text())["kept"] == 2


def test_forms_flags_and_levels_are_named() -> None:
    for name in (*FILES, *REASONING):
        assert f"`{name}`" in PAGE, name
    assert all(f"*{level}*" in PAGE for level in get_args(Level))
    help_text = CliRunner().invoke(app, ["preflight", "--help"]).output
    for flag in re.findall(r"`(--\w+)", PAGE):
        assert flag in help_text, flag


def test_the_examples_of_the_help_are_the_page_s() -> None:
    shown = re.findall(r"^(cuvee preflight .*?)(?:  +#.*)?$", PAGE, re.MULTILINE)
    assert len(shown) == 3
    assert shown[0] in EXAMPLES
    assert shown[2] in EXAMPLES
