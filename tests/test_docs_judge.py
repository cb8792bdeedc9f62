"""What docs/judge.md says is what the code does: keys, defaults, reasons, points, examples."""

import dataclasses
import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import yaml

from cuvee.recipe import Domain, Rubric, Teacher
from cuvee.recipe.rubric import DEFAULT_POINTS
from cuvee.select.objection import FILTERS
from cuvee.verify.judge_rubric import HIGHEST, LOWEST, Grade

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "judge.md").read_text(encoding="utf-8")


def test_the_recipe_that_is_shown_is_read() -> None:
    [text] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    data = yaml.safe_load(text)
    domain = Domain.model_validate(data["domains"]["math"])
    assert domain.rubric is not None
    assert (domain.rubric.teacher, domain.rubric.samples) == ("strict", 2)
    assert (domain.select.rubric_min, domain.select.policy) == (4, "best")
    assert [Teacher.model_validate(teacher).name for teacher in data["teachers"]] == [
        "writer",
        "strict",
    ]


def test_every_key_and_column_is_named() -> None:
    for key in Rubric.model_fields:
        assert f"| `rubric.{key}` |" in PAGE
    assert f"| `rubric.samples` | {Rubric(teacher='x').samples} |" in PAGE
    for field in dataclasses.fields(Grade):
        if field.name not in ("trace_id", "problem_id", "domain"):
            assert f"`{field.name}`" in PAGE, field.name
    for reason in FILTERS["rubric"]:
        assert f"`{reason}`" in PAGE


def test_the_default_points_and_grades_are_those_of_the_code() -> None:
    for number, point in enumerate(DEFAULT_POINTS, 1):
        assert f"{number}. {point}\n" in PAGE
    assert f"{LOWEST} (not at all) to {HIGHEST} (entirely)" in PAGE


def test_the_example_prints_what_is_shown() -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    [shown] = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    with redirect_stdout(io.StringIO()) as said:
        exec(code, {})  # noqa: S102
    assert said.getvalue() == shown


def test_the_flags_of_the_benchmark_are_there() -> None:
    source = (ROOT / "benchmarks" / "judge.py").read_text(encoding="utf-8")
    for flag in re.findall(r"--[a-z-]+", PAGE.partition("```bash")[2].partition("```")[0]):
        assert f'"{flag}"' in source, flag
