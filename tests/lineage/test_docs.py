"""What docs/lineage.md says of the command and its JSON is so."""

import dataclasses
import inspect
import re
from pathlib import Path

import typer
from typer.main import get_command

from cuvee.cli.explain import explain
from cuvee.lineage.listing import Listing
from cuvee.lineage.way import Way

PAGE = (Path(__file__).parents[2] / "docs" / "lineage.md").read_text(encoding="utf-8")


def test_the_flags_are_those_of_the_command() -> None:
    app = typer.Typer()
    app.command()(explain)
    known = {flag for parameter in get_command(app).params for flag in parameter.opts}
    shown = set(re.findall(r"(?<![\w-])--[a-z-]+", PAGE))
    assert shown == {flag for flag in known if flag.startswith("--")} - {"--help"} - {
        "--install-completion",
        "--show-completion",
    }


def test_the_keys_of_the_json_are_fields() -> None:
    fields = {field.name for field in dataclasses.fields(Listing)}
    assert fields == {"groups", "missing"}
    assert "steps" in {field.name for field in dataclasses.fields(Way)}
    file = Path(inspect.getfile(Way))
    assert "/".join(file.parts[-4:]) in PAGE
