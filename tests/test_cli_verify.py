"""`cuvee verify FILE` as it is typed; and how a file and a recipe are told apart."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from cuvee.cli import app
from cuvee.cli.verify import read_columns
from cuvee.errors import RecipeError
from cuvee.records import Verdict, read_rows

ADD = {"kind": "function", "fn_name": "f", "cases": [{"args": [1, 2], "expected": 3}]}
ROWS: list[dict[str, Any]] = [
    {"id": "a", "problem": "1 + 1", "answer": "2", "response": r"\boxed{2}"},
    {"id": "b", "problem": "1 + 1", "answer": "2", "response": r"\boxed{3}"},
    {"id": "c", "problem": "1 + 1", "answer": "2", "response": "I do not know."},
    {"id": "d", "problem": "1 + 1", "answer": None, "response": r"\boxed{2}"},
]
CUT_GZIP = gzip.compress(b"{}\n" * 1000, mtime=0)[:30]  # no time of day: ids of tests hold it
REASONS = ["equal", "different", "no_final_answer", "no_gold"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder with the rows in every form that rows may have."""
    monkeypatch.chdir(tmp_path)
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    Path("rows.jsonl").write_text(lines)
    Path("rows.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    Path("rows.json").write_text(json.dumps(ROWS))
    pq.write_table(pa.Table.from_pylist(ROWS), "rows.parquet")
    Path("empty").mkdir()
    return tmp_path


def cuvee(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def refused(*arguments: str, code: int = 2) -> str:
    """Return the message of a command that must end with a code, on one line."""
    result = cuvee(*arguments)
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def verdicts_of(path: Path) -> list[Verdict]:
    if path.suffix == ".parquet":
        return read_rows(path, Verdict)
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [Verdict(**json.loads(line)) for line in raw.splitlines()]


@pytest.mark.parametrize("out", ["v.jsonl", "v.jsonl.gz", "v.parquet"])
@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "json", "parquet"])
def test_a_file_is_checked_without_a_recipe(here: Path, form: str, out: str) -> None:
    result = cuvee("verify", f"rows.{form}", "--out", out)
    assert result.exit_code == 0, result.output
    verdicts = verdicts_of(here / out)
    assert [v.trace_id for v in verdicts] == ["a", "b", "c", "d"]
    assert [v.reason for v in verdicts] == REASONS
    for line in ("correct equal 1 25.0% a", "not_checked no_gold 1 25.0% d"):
        assert line in " ".join(result.output.split())


def test_without_out_nothing_is_written(here: Path) -> None:
    before = set(here.iterdir())
    assert "no_final_answer" in cuvee("verify", "rows.jsonl").output
    assert set(here.iterdir()) == before


def test_golds_columns_verifier_and_limit_do_what_they_say(here: Path) -> None:
    result = cuvee("verify", "--golds", "rows.jsonl", "--limit", "3", "--out", "g.jsonl")
    assert result.exit_code == 0, result.output
    assert [v.reason for v in verdicts_of(here / "g.jsonl")] == ["equal"] * 3
    row = {"q": "?", "key": "B", "said": "The answer is (B).", "answer": "x"}
    Path("c.jsonl").write_text(json.dumps(row) + "\n")
    mapped = ("--columns", "gold=key,reply=said", "--columns", "question=q")
    cuvee("verify", "c.jsonl", *mapped, "--verifier", "choice", "--out", "c.parquet")
    (verdict,) = verdicts_of(here / "c.parquet")
    assert (verdict.verdict, verdict.extracted, verdict.expected) == ("correct", "B", "B")


@pytest.mark.sandbox
def test_programs_run_in_the_sandbox_that_is_named(here: Path) -> None:
    program = "```python\ndef f(a, b):\n    return a + b\n```"
    Path("p.jsonl").write_text(json.dumps({"tests": ADD, "response": program}) + "\n")
    for flags, kind in (((), "bubblewrap"), (("--sandbox", "none"), "none")):
        assert cuvee("verify", "p.jsonl", "--out", "p.parquet", *flags).exit_code == 0
        (verdict,) = verdicts_of(here / "p.parquet")
        assert (verdict.reason, verdict.checker) == ("passed", kind)


def test_broken_lines_are_rows_that_name_file_and_line(here: Path) -> None:
    good = json.dumps(ROWS[0]).encode()
    lines = [
        good,
        b"not json",
        b'{"answer": "\xff"}',
        b"",
        b"[1]",
        b"[" * 100_000,
        b"9" * 5000,
        good,
    ]
    Path("bad.jsonl").write_bytes(b"\n".join(lines) + b'\n{"cut": "of')
    result = cuvee("verify", "bad.jsonl", "--out", "v.jsonl")
    assert result.exit_code == 0, result.output
    verdicts = verdicts_of(here / "v.jsonl")
    assert [v.reason for v in verdicts] == ["equal", *["bad_row"] * 5, "equal", "bad_row"]
    details = [str(v.detail) for v in verdicts if v.reason == "bad_row"]
    for detail, line, why in zip(
        details,
        (2, 3, 5, 6, 7, 9),
        ("not JSON", "not UTF-8", "a row is a JSON object", "not JSON", "not JSON", "not JSON"),
        strict=True,
    ):
        assert detail.startswith(f"bad.jsonl, line {line}: {why}")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.jsonl", None, "no.jsonl: no such file"),
        ("no.parquet", None, "no.parquet: no such file"),
        ("not.parquet", b"PAR0", "not.parquet: not a readable Parquet file"),
        ("cut.jsonl.gz", CUT_GZIP, "cut.jsonl.gz: cannot be read"),
        ("not.jsonl.gz", b"{}", "not.jsonl.gz: cannot be read"),
        ("x.jsonl", b'{"said": 1}\n', "x.jsonl: no column for the gold: looked for gold"),
        ("x.json", b"[[", "x.json, line 1: not JSON"),
    ],
)
def test_what_cannot_be_read_is_said_and_nothing_is_written(
    here: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    assert message in refused("verify", name, "--out", "v.jsonl", code=1)
    assert not (here / "v.jsonl").exists()
    assert not list(here.glob(".*.tmp"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("rows.txt",), "rows.txt: there is no such file or folder; rows end in .jsonl,"),
        (("rows.jsonl", "--set", "seed=1"), "rows.jsonl: --set: only with a RECIPE"),
        (("recipe.yaml", "--golds", "--processes", "2"), "--golds, --processes: only with a FILE"),
        (("empty", "--sandbox", "none"), "empty: --sandbox: only with a FILE"),
        (("rows.jsonl", "--out", "v.txt"), "--out v.txt: a file ending in .jsonl"),
        (("rows.jsonl", "--columns", "reply"), "--columns 'reply': write our name"),
        (("rows.jsonl", "--columns", "answer=x"), "columns maps answer; known: id, question"),
        (("rows.jsonl", "--verifier", "maths"), "verifier 'maths': allowed are math, code"),
        (("rows.jsonl", "--sandbox", "docker"), "sandbox 'docker': allowed are bubblewrap"),
        (("rows.jsonl", "--math-seconds", "0"), "--math-seconds 0.0: input should be greater"),
    ],
)
def test_flags_that_make_no_sense_are_refused(
    here: Path, flags: tuple[str, ...], message: str
) -> None:
    assert message in refused("verify", *flags)


def test_a_recipe_is_told_by_its_name_or_its_folder(here: Path) -> None:
    assert "no.yaml: cannot read the recipe" in refused("verify", "no.yaml")
    assert "neither a recipe nor the folder of a run" in refused("verify", "empty")


def test_an_unwritable_place_is_an_error(here: Path) -> None:
    Path("file").write_text("")
    assert "file" in refused("verify", "rows.jsonl", "--out", "file/v.jsonl", code=1)


def test_columns_are_read_with_or_without_blanks() -> None:
    assert read_columns(["a=b, c = d", "e=f=g"]) == {"a": "b", "c": "d", "e": "f=g"}
    for wrong in ("", "a", "=b", "a=", "a=b,"):
        with pytest.raises(RecipeError, match="write our name"):
            read_columns([wrong])


def test_the_help_says_which_is_which() -> None:
    shown = " ".join(cuvee("verify", "--help").output.split())
    assert "RECIPE ends in .yaml or .yml, or is the folder of a run" in shown
    assert "cuvee verify --golds problems.jsonl" in shown
