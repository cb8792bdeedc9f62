"""What docs/merge-search.md says is so: flags, the file of candidates, methods, numbers."""

import re
from pathlib import Path

from typer.testing import CliRunner

from cuvee.cli import app
from cuvee.cli.merge_search import EXAMPLES
from cuvee.recipe import parse_recipe
from cuvee.search.candidates import MOST_ORDERED, USUAL, read_candidates
from cuvee.search.held_apart import MINIMUM, WANTED
from cuvee.search.search import TRIES

DOCS = Path(__file__).parent.parent / "docs" / "merge-search.md"
PAGE = DOCS.read_text(encoding="utf-8")


def test_the_flags_are_those_of_the_command() -> None:
    shown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE))
    help_text = CliRunner().invoke(app, ["merge-search", "--help"], env={"COLUMNS": "160"}).output
    assert shown == {"--dry-run", "--tries", "--problems", "--candidates", "--samples", "--keep"}
    for flag in shown:
        assert flag in help_text
    commands = re.findall(r"^cuvee merge-search [^#\n]*[^#\s]", PAGE, re.MULTILINE)
    assert sum(command in EXAMPLES for command in commands) == 2


def test_the_file_of_candidates_is_read_as_the_page_says(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    file = tmp_path / "mine.yaml"
    file.write_text(block)
    domain = {"problems": [{"source": "generator:arithmetic"}], "verifier": "math"}
    recipe = parse_recipe(
        {
            "name": "seen",
            "base": "random:two-layer",
            "domains": {"math": domain, "code": domain},
            "teachers": [{"name": "ann", "scripted": {}}],
        },
        where="test",
    )
    methods = [section["method"] for section in read_candidates(file, recipe)]
    assert methods == ["linear", *["ties"] * 2, *["dare_ties"] * 2, *["arcee_fusion"] * 4]


def test_the_usual_ways_and_the_numbers_are_those_of_the_code() -> None:
    listed = PAGE.partition("- `linear`")[2].partition("`--dry-run` lists")[0]
    assert re.findall(r"`(\w+)`", f"`linear`{listed}") == [method for method, _ in USUAL]
    assert MOST_ORDERED == 5
    assert f"default {TRIES}" in PAGE
    assert f"{WANTED} unless given. Fewer than {MINIMUM} are refused" in PAGE
    help_text = CliRunner().invoke(app, ["merge-search", "--help"], env={"COLUMNS": "160"}).output
    assert f"[default: {TRIES}]" in help_text
    assert f"Default: {WANTED}, and at least {MINIMUM}." in help_text


def test_more_than_half_of_such_searches_find_something_by_chance() -> None:
    assert "of 16 independent tries" in PAGE
    assert 1 - 0.95**TRIES > 0.5
