"""What docs/serve.md says of flags and commands is what the code takes."""

import re
import shlex
from pathlib import Path

from typer.main import get_command

from cuvee.cli import app
from cuvee.serve.start import LONGEST_CONTEXT, Asked
from cuvee.serve.talk import HELP

PAGE = (Path(__file__).parent.parent / "docs" / "serve.md").read_text(encoding="utf-8")


def flags(name: str) -> set[str]:
    command = get_command(app).commands[name]  # type: ignore[attr-defined]
    return {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}


def test_every_example_has_flags_that_there_are() -> None:
    lines = [
        line
        for text in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
        for line in text.splitlines()
    ]
    assert lines
    for line in lines:
        words = shlex.split(line.rpartition("| ")[2], comments=True)
        assert words[0] == "cuvee"
        assert {word for word in words if word.startswith("--")} <= flags(words[1])


def test_every_flag_that_is_named_is_one_of_serve_s() -> None:
    section = PAGE.partition("## `cuvee chat`")[0]
    assert set(re.findall(r"`(--[a-z-]+)", section)) <= flags("serve")


def test_the_commands_of_the_table_are_those_of_help() -> None:
    listed = re.findall(r"^\| `(/\w+)", PAGE, re.MULTILINE)
    assert listed == re.findall(r"^(/\w+)", HELP, re.MULTILINE)


def test_the_numbers_are_the_code_s() -> None:
    assert f"up to {LONGEST_CONTEXT:,}" in PAGE
    assert Asked("m").guarded
