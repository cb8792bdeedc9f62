"""What docs/problems.md says is what the code does: the table of forms, the examples, reasons."""

import contextlib
import re
from pathlib import Path

import pytest
import yaml

from cuvee.problems.forms import FORMS, Form
from cuvee.problems.rows import MAPPED
from cuvee.problems.stage import tasks
from cuvee.recipe import Source, parse_recipe
from cuvee.records import Problem, Trace, read_rows
from cuvee.runfolder import Run, execute
from cuvee.verify.columns import COLUMNS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "problems.md").read_text(encoding="utf-8")
ROOM = ROOT / "src" / "cuvee" / "problems"
YAML = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]


def code(*names: str | None) -> str:
    return ", ".join(f"`{name}`" for name in names if name) or "–"


def row(form: Form) -> str:
    told = code(*form.marks)
    if form.refused:
        return f"| {form.name} | {told} | refused: {form.refused} | | | |"
    gold = f"box in `{form.solution}`" if form.solution else code(form.gold)
    if form.program:
        gold = f"{gold}; code: `{form.program}`" if form.solution else code(form.program)
    sets = ", ".join(f"{name} ({licence or '–'})" for name, licence in form.sets.items()) or "–"
    answers = code(form.reasoning, form.reply)
    return f"| {form.name} | {told} | {code(form.question)} | {gold} | {answers} | {sets} |"


def table() -> str:
    head = (
        "| form | its columns | question | gold | answers | sets (licence) |\n" + "|---" * 6 + "|"
    )
    return "\n".join([head, *map(row, FORMS)])


def test_the_table_of_forms_is_the_one_in_the_code() -> None:
    assert table() in PAGE, f"the table in docs/problems.md should be:\n{table()}"


def test_the_sources_that_are_shown_are_read_as_sources() -> None:
    shown = [source for page in YAML for source in page.get("problems", [])]
    assert len(shown) > 5
    for source in shown:
        assert Source.model_validate(source).source


def test_every_key_of_a_source_is_in_the_table_or_shown() -> None:
    missing = [key for key in Source.model_fields if f"`{key}`" not in PAGE]
    assert missing == ["seed", "args"], "of generators alone: docs/recipe.md has them"


def test_the_names_that_are_looked_for_are_listed() -> None:
    for ours in ("question", "gold", "tests"):
        assert [name for name in COLUMNS[ours] if f"`{name}`" not in PAGE] == []
    assert [name for name in MAPPED if f"`{name}`" not in PAGE] == []


def test_every_reason_in_the_table_is_in_the_code_and_the_other_way_round() -> None:
    listed = PAGE.partition("| reason |")[2].partition("## ")[0]
    documented = set(re.findall(r"`(\w+)`", listed))
    text = "".join(path.read_text(encoding="utf-8") for path in ROOM.glob("*.py"))
    assert [reason for reason in documented if f'"{reason}"' not in text] == []
    stated = set(re.findall(r'"((?:no_(?:question|gold|tests)|gold_\w+|\w+_duplicate))"', text))
    assert stated - documented == {"gold_not_checked"}, "that one is a count"


def test_the_recipe_that_is_shown_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (lines,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "chat.jsonl").write_text(lines, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (shown,) = [page for page in YAML if "name" in page]
    run = Run(tmp_path / "run", parse_recipe(shown, where="docs/problems.md"))
    with contextlib.ExitStack() as resources:
        (task,) = tasks(run, resources)
        execute(run, task)
    questions = [problem.question for problem in read_rows(run.problems("talk"), Problem)]
    assert questions == ["Name a primary colour.", "And a fruit?"]
    assert [t.reasoning for t in read_rows(run.published("talk"), Trace)] == ["Easy.", ""]


def test_the_recipe_with_a_published_teacher_is_a_recipe() -> None:
    (shown,) = [page for page in YAML if "teachers" in page and "name" not in page]
    made = parse_recipe({"name": "x", "base": "random:two-layer", **shown}, where="docs")
    assert [teacher.published for teacher in made.teachers] == [True, False]
