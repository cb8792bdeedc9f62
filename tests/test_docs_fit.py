"""What docs/fit.md names is there: options, and the numbers it states."""

import re
from pathlib import Path

from typer.testing import CliRunner

from cuvee.cli import app
from cuvee.fit.files import BYTES_A_TOKEN
from cuvee.fit.serving import BATCH, GPU_CONTEXT, RAM_RESERVE
from cuvee.fit.speed import GPU_SHARE, HIGH, LOW, RAM_SHARE

PAGE = (Path(__file__).parent.parent / "docs" / "fit.md").read_text(encoding="utf-8")


def test_every_option_on_the_page_is_one_of_the_command() -> None:
    offered = CliRunner().invoke(app, ["fit", "--help"], env={"COLUMNS": "200"}).output
    named = set(re.findall(r"--[a-z][a-z-]+", PAGE))
    assert named
    assert [option for option in sorted(named) if option not in offered] == []


def test_the_numbers_on_the_page_are_those_of_the_code() -> None:
    assert (BYTES_A_TOKEN, BATCH) == (45, 512)
    assert (GPU_CONTEXT, RAM_RESERVE) == (500_000_000, 2_000_000_000)
    assert (GPU_SHARE, RAM_SHARE, LOW, HIGH) == (0.75, 0.6, 0.5, 1.4)
