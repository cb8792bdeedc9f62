"""`cuvee preflight` as it is typed: files of rows in every form, runs, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner, Result

from cuvee.cli import app
from cuvee.models.random_model import write_random_model
from cuvee.records import Example, read_rows, write_rows
from cuvee.train.preflight_rows import write_examples

SMALL = ("--set", "train.max_tokens=512")


def turns(*roles_and_texts: tuple[str, str], **more: Any) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": r, "content": t} for r, t in roles_and_texts]
    messages[-1] |= more
    return {"messages": messages}


SUM = {"id": "sum", "prompt": "2 + 2?", "reasoning": "Four.", "answer": r"\boxed{4}"}
CHAT = turns(("user", "3 + 3?"), ("assistant", "<think>\nSix.\n</think>\n\n6"))
APART = turns(("user", "4 + 4?"), ("assistant", "8"), reasoning_content="Eight.")
WHOLE = {"prompt": "5 + 5?", "answer": "<think>Ten.</think>10"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder with a base and a file of rows."""
    monkeypatch.chdir(tmp_path)
    write_random_model(Path("base"))
    write_lines("rows.jsonl", SUM, CHAT, APART, WHOLE)
    return tmp_path


def write_lines(name: str, *rows: dict[str, Any]) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def cuvee(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["preflight", *arguments])


def refused(*arguments: str, code: int) -> str:
    """Return the message of a command that must end with a code, on one line."""
    result = cuvee(*arguments)
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def found_in(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(folder) / "preflight.json").read_text())
    return found


# Files


def test_rows_of_both_forms_become_the_same_examples(here: Path) -> None:
    assert write_examples(Path("rows.jsonl"), Path("out.parquet")) == 4
    rows = read_rows(Path("out.parquet"), Example)
    assert [(r.id, r.prompt, r.reasoning, r.answer) for r in rows] == [
        ("sum", "2 + 2?", "Four.", r"\boxed{4}"),
        ("row 2", "3 + 3?", "Six.", "6"),
        ("row 3", "4 + 4?", "Eight.", "8"),
        ("row 4", "5 + 5?", "Ten.", "10"),
    ]
    assert len({r.problem_id for r in rows}) == 4


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_file_is_shown_without_a_recipe(here: Path, form: str) -> None:
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist([CHAT, APART]), "rows.parquet")
    done = cuvee(f"rows.{form}", "--model", "base", "--out", "pages", *SMALL)
    assert done.exit_code == 0, done.output
    assert "⟦<think>" in done.output
    assert found_in("pages")["kept"] == (4 if form == "jsonl" else 2)
    assert found_in("pages")["max_tokens"] == 512
    assert "preflight" in Path("pages/preflight.html").read_text()
    assert not list(Path("pages").glob(".*"))


def test_without_out_nothing_is_kept(here: Path) -> None:
    before = sorted(here.rglob("*"))
    done = cuvee("rows.jsonl", "--model", "base", *SMALL, "--limit", "2")
    assert done.exit_code == 0, done.output
    assert "2 of 2 examples" in done.output
    assert sorted(here.rglob("*")) == before


def test_conversations_that_are_no_question_and_reply_are_counted_by_reason(here: Path) -> None:
    more = turns(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    system = turns(("system", "s"), ("user", "a"), ("assistant", "b"))
    alone = turns(("user", "a"))
    tool = turns(("user", "a"), ("assistant", "b"))
    tool["messages"][1]["content"] = None
    write_lines("rows.jsonl", SUM, more, system, more, alone, tool)
    said = refused("rows.jsonl", "--model", "base", code=1)
    assert (
        "2 of 6 rows: more than one user and one assistant turn (the first is rows.jsonl, line 2)"
        in said
    )
    assert "1 of 6 rows: a system turn" in said
    assert "1 of 6 rows: no user turn followed by an assistant turn" in said
    assert "1 of 6 rows: a turn without the texts `role` and `content`" in said


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "a", "text": "b"}, "line 1: no answer; a row has"),
        ({"question": "a"}, "no prompt and no answer; a row has"),
        ({"prompt": ["a"], "answer": "b"}, "`prompt` is no text but a list"),
        ({"prompt": "a", "reasoning": 3, "answer": "b"}, "`reasoning` is no text but a int"),
    ],
)
def test_a_row_that_is_no_example_is_named(here: Path, row: dict[str, Any], said: str) -> None:
    write_lines("rows.jsonl", row)
    assert said in refused("rows.jsonl", "--model", "base", code=1)


def test_an_error_shows_the_page_and_ends_with_1(here: Path) -> None:
    said = refused(
        "rows.jsonl", "--model", "base", "--out", "pages", "--set", "train.max_tokens=16", code=1
    )
    assert "error: " in said
    assert "rows.jsonl: training would not start" in said
    assert any(f["level"] == "error" for f in found_in("pages")["findings"])
    assert "training would not start" in Path("pages/preflight.html").read_text()


def test_an_empty_file_is_an_error(here: Path) -> None:
    Path("rows.jsonl").write_text("")
    assert "empty" in refused("rows.jsonl", "--model", "base", code=1)


def test_the_folder_of_an_earlier_preflight_is_written_anew_and_no_other(here: Path) -> None:
    said = ("rows.jsonl", "--model", "base", *SMALL, "--out")
    assert cuvee(*said, "pages", "--limit", "1").exit_code == 0
    assert cuvee(*said, "pages").exit_code == 0
    assert found_in("pages")["examples"] == 4
    Path("mine/arrow").mkdir(parents=True)
    assert "arrow in it is of no preflight" in refused(*said, "mine", code=2)
    assert "a file is in the way" in refused(*said, "rows.jsonl", code=2)
    assert Path("mine/arrow").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("rows.jsonl",), "need --model"),
        (("rows.jsonl", "--model", "nowhere"), "no such folder"),
        (("rows.jsonl", "--model", "base", "--domain", "math"), "--domain: only with a RECIPE"),
        (("rows.jsonl", "--model", "base", "--set", "train.max_token=9"), "did you mean"),
        (("rows.jsonl", "--model", "base", "--set", "seed=9"), "only train.KEY=VALUE"),
        (("rows.txt", "--model", "base"), "rows end in"),
        (("r.yaml", "--limit", "3"), "--limit: only with a FILE"),
        (("r.yaml", "--domain", "chess"), "there are math, code"),
        (("r.yaml",), "no examples of math yet"),
    ],
)
def test_flags_that_do_not_fit_are_refused(
    here: Path, arguments: tuple[str, ...], said: str
) -> None:
    write_recipe()
    assert said in refused(*arguments, code=2)


def test_a_missing_file_is_named(here: Path) -> None:
    assert "no.jsonl: no such file" in refused("no.jsonl", "--model", "base", code=1)


# Runs


def write_recipe(**more: Any) -> None:
    generated = {"problems": [{"source": "generator:arithmetic", "count": 4}], "verifier": "math"}
    recipe = {
        "name": "demo",
        "base": "base",
        "domains": {"math": generated, "code": generated},
        "teachers": [{"name": "alice", "url": "http://127.0.0.1:9/v1", "model": "m"}],
        "train": {"max_tokens": 256},
    }
    Path("r.yaml").write_text(yaml.safe_dump(recipe | more, sort_keys=False))


def write_run_examples(domain: str, *, count: int, reasoning: str = "Four.") -> None:
    rows = [
        Example(f"{domain}{n}", f"p{n}", domain, "alice", f"{n}?", reasoning, "4", 0)
        for n in range(count)
    ]
    write_rows(Path(f"runs/demo/04_examples/{domain}.parquet"), rows, Example)


def test_each_domain_of_a_run_is_shown_with_the_recipe_s_settings(here: Path) -> None:
    write_recipe()
    write_run_examples("math", count=5)
    write_run_examples("code", count=3)
    done = cuvee("r.yaml", "--out", "pages")
    assert done.exit_code == 0, done.output
    assert "demo, math: 5 of 5 examples" in done.output
    assert "demo, code: 3 of 3 examples" in done.output
    assert found_in("pages/math")["max_tokens"] == 256
    assert found_in("pages/code")["examples"] == 3
    done = cuvee("r.yaml", "--domain", "code", "--set", "train.max_tokens=99")
    assert "demo, math" not in done.output
    assert "packed rows of 99 tokens" in done.output


def test_every_domain_is_shown_where_one_would_stop_the_training(here: Path) -> None:
    write_recipe()
    write_run_examples("math", count=3, reasoning="word " * 300)
    write_run_examples("code", count=3)
    said = refused("r.yaml", code=1)
    assert "demo, code: 3 of 3 examples" in said
    assert said.endswith("demo, math: training would not start (see the errors)")
