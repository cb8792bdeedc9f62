"""What docs/ledger.md says is what the code does: its commands and their output, its columns."""

import io
import re
import shlex
from contextlib import redirect_stdout
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cuvee.cli import app
from cuvee.cli.ledger import EXAMPLES
from cuvee.records import content_hash, dumps
from cuvee.teach.ledger import Cost, Ledger, Payer
from cuvee.teach.ledger.carry import COLUMNS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "ledger.md").read_text(encoding="utf-8")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder with the page's ledger: two teachers, two answers each, one in doubt."""
    monkeypatch.chdir(tmp_path)
    rows = []
    for number in range(4):
        teacher = "deepseek-r1" if number < 2 else "qwq-32b"
        request = {"identity": teacher, "number": number}
        rows.append(
            {
                "key": content_hash(request),
                "request": dumps(request),
                "response": dumps({"choices": [{"message": {"content": str(number)}}]}),
                "status": 200,
                "seconds": 1.0,
                "created": f"2026-0{1 if number < 2 else 3}-31T12:00:0{number}Z",
                "account": "run-1",
                "teacher": teacher,
                "prompt_tokens": 120,
                "completion_tokens": 1500,
                "usd": 0.003351 if number < 2 else 0.0,
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), "first.parquet")
    assert cuvee("ledger import ledger.sqlite first.parquet")[0] == 0
    with Ledger.open("ledger.sqlite") as ledger:
        payer, most = Payer("run-1", "deepseek-r1"), Cost(120, 32768, 0.071828)
        ledger.mark_sent("0123456789abcdef", payer=payer, reserved=most, budget=None).result()
    return tmp_path


def cuvee(command: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, shlex.split(command))
    return result.exit_code, result.output


def plain(text: str) -> list[str]:
    """Return the lines without runs of spaces; a time that was taken does not count."""
    lines = re.sub(r"in \d+\.\d s", "in 0.0 s", text).splitlines()
    return [" ".join(line.split()) for line in lines if line.strip()]


def test_the_commands_print_what_the_page_says(here: Path) -> None:
    blocks = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    steps = [step for block in blocks for step in re.split(r"^\$ cuvee ", block, flags=re.M)[1:]]
    assert len(steps) == 6
    for step in steps:
        command, _, printed = step.partition("\n")
        code, output = cuvee(command)
        assert (code, plain(output)) == (0, plain(printed)), command


def test_the_python_example_runs(here: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    out = io.StringIO()
    with redirect_stdout(out):
        exec(code)  # noqa: S102 - our own page
    assert out.getvalue() == "deepseek-r1 1500 0.003351\n0.07853\n"


def test_the_columns_of_an_export_are_all_in_the_table() -> None:
    table = PAGE.partition("| column |")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    assert re.findall(r"`(\w+)`", " ".join(cells)) == list(COLUMNS)


def test_every_command_is_on_the_page_and_every_help_has_examples() -> None:
    result = CliRunner().invoke(app, ["ledger", "--help"])
    for name, example in EXAMPLES.items():
        assert name in result.output
        assert re.search(rf"(cuvee ledger {name}|`{name}`)", PAGE), name
        shown = " ".join(CliRunner().invoke(app, ["ledger", name, "--help"]).output.split())
        assert " ".join(example.split()[:4]) in shown
