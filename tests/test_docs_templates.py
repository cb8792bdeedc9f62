"""What docs/templates.md says is what the code does: its example, its forms, its day."""

import re
from pathlib import Path

import pytest

from cuvee.models.checkpoint import load_tokenizer
from cuvee.models.mending import FORMS, PINNED_DAY
from cuvee.models.random_model import write_random_model

PAGE = (Path(__file__).parent.parent / "docs" / "templates.md").read_text(encoding="utf-8")


def test_the_example_prints_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_random_model(tmp_path / "base")
    tokenizer = load_tokenizer(tmp_path / "base")
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.save_pretrained(tmp_path / "base")
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    [shown] = re.findall(r"prints:\n\n```\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/templates.md", "exec"), {})  # noqa: S102 - our own page
    assert capsys.readouterr().out == shown


def test_forms_and_day_are_those_of_the_code() -> None:
    assert all(name in PAGE for name in FORMS)
    assert f"{PINNED_DAY:%d %b %Y}" in PAGE


def test_the_count_of_templates_is_that_of_the_test() -> None:
    conftest = (Path(__file__).parent / "models" / "conftest.py").read_text(encoding="utf-8")
    families = conftest.partition("FAMILIES:")[2].partition("\n}")[0]
    assert len(re.findall(r'^    "\w+": \(', families, re.MULTILINE)) == 16
    assert "sixteen published templates" in PAGE
