"""What docs/evaluate.md says is what the code does: the example, the flags, the protocol."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from cuvee.cli import app
from cuvee.cli.evaluate import EVALUATE_EXAMPLES
from cuvee.evaluate.alone import LLAMA_SLOTS
from cuvee.evaluate.scored import NAMES, read_scored
from cuvee.recipe import Evaluate, Recipe, parse_recipe

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "evaluate.md").read_text(encoding="utf-8")


def block(kind: str, number: int = 0) -> str:
    found: list[str] = re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)
    return found[number]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which the page's example was run."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "sums.jsonl").write_text(block("jsonl"))
    (folder / "sums.yaml").write_text(block("yaml"))
    program, *arguments = shlex.split(block("bash"))
    assert program == "cuvee"
    ledger = ["--ledger", str(folder / "ledger.sqlite"), "--set", "evaluate.serve.threads=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = CliRunner().invoke(app, [*arguments, *ledger])
    assert done.exit_code == 0, done.output
    return folder


def test_the_example_runs_and_writes_the_files_of_the_table(example: Path) -> None:
    listed = re.findall(r"^\| `(\w+)\.parquet` \| `(\w+)`", PAGE, re.MULTILINE)
    assert tuple(name for name, _ in listed) == NAMES
    found = read_scored(example / "scored" / "random")
    rows = (found.problems, found.traces, found.verdicts, found.scores)
    assert [type(some[0]).__name__ for some in rows] == [row for _, row in listed]
    assert [len(some) for some in rows] == [2, 4, 4, 1]
    assert (example / "scored" / "random" / "log.txt").exists()
    assert (example / "scored" / "random" / "engines").is_dir()


def test_the_keys_of_the_protocol_are_those_of_a_score(example: Path) -> None:
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| .*\|$", PAGE, re.MULTILINE)
    listed = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    [score] = read_scored(example / "scored" / "random").scores
    assert set(json.loads(score.protocol)) == listed - {"where", "window", "count"}


def test_the_commands_of_the_page_are_those_of_the_help() -> None:
    shown = re.findall(r"^(cuvee evaluate .*?)(?:  +#.*)?$", block("\n"[:0]), re.MULTILINE)
    assert len(shown) == 5
    same = [line for line in shown if line in EVALUATE_EXAMPLES]
    assert len(same) >= 4, "all but the checkpoint's, which the help writes to a folder of its own"


def test_defaults_are_those_of_the_code() -> None:
    assert Recipe.model_fields["ledger"].get_default() in PAGE
    assert f"{LLAMA_SLOTS} with llama.cpp" in PAGE
    assert f"else {Evaluate().concurrency}" in PAGE


def test_every_flag_of_the_page_exists() -> None:
    said = CliRunner().invoke(app, ["evaluate", "--help"], env={"COLUMNS": "200"}).output
    assert set(re.findall(r"`(--[a-z-]+)", PAGE)) <= set(re.findall(r"--[a-z-]+", said))


def test_the_recipe_with_teachers_is_read() -> None:
    domain = {"problems": [{"source": "generator:arithmetic", "count": 1}], "verifier": "math"}
    teacher = {"name": "deepseek-r1", "url": "https://host/v1", "model": "m"}
    data = {
        "name": "page",
        "base": "random:two-layer",
        "domains": {"math": domain},
        "teachers": [teacher],
    } | yaml.safe_load(block("yaml", 1))
    assert parse_recipe(data, where="docs/evaluate.md").evaluate.teachers == ["deepseek-r1"]
