"""What docs/plan.md says is what the code does: the commands and the names of assumptions."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cuvee.cli import app
from cuvee.plan.assumptions import KINDS
from cuvee.plan.show import SCHEMA

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "plan.md").read_text(encoding="utf-8")


def test_every_command_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text((ROOT / "recipes" / "smoke.yaml").read_text(encoding="utf-8"))
    found = re.findall(r"^cuvee (plan .*)$", PAGE, re.MULTILINE)
    assert len(found) == 4
    for line in found:
        done = CliRunner().invoke(app, shlex.split(line))
        assert done.exit_code == 0, done.output


def test_the_assumptions_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", PAGE, re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(KINDS)


def test_the_schema_is_the_first() -> None:
    assert SCHEMA == 1
