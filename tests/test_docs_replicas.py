"""What docs/replicas.md says is what recipe and code do."""

import re
from pathlib import Path

import yaml

from cuvee.models.replicas import (
    FIRST_WAIT_SECONDS,
    LONGEST_WAIT_SECONDS,
    MOST_DEATHS,
    SILENT_SECONDS,
)
from cuvee.recipe.teachers import Teacher

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "replicas.md").read_text(encoding="utf-8")


def test_the_recipe_that_is_shown_is_read_and_follows_its_own_advice() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (teacher,) = (Teacher.model_validate(item) for item in yaml.safe_load(text)["teachers"])
    assert teacher.serve is not None
    assert teacher.serve.replicas == 2
    assert teacher.concurrency == teacher.serve.replicas * teacher.serve.slots


def test_the_numbers_are_the_code_s() -> None:
    page = " ".join(PAGE.split())
    assert f"no healthy word for {SILENT_SECONDS:g} s" in page
    assert f"replaced after {FIRST_WAIT_SECONDS:g} s" in page
    assert f"the wait doubles ({LONGEST_WAIT_SECONDS:g} s at most)" in page
    assert f"after {MOST_DEATHS} deaths without an answer in between" in page


def test_the_benchmark_that_is_named_exists_with_its_flags() -> None:
    (script, flags) = re.findall(r"`python (\S+\.py)([^`]*)`", PAGE)[0]
    source = (ROOT / script).read_text(encoding="utf-8")
    for flag in re.findall(r"--[a-z-]+", flags):
        assert f'"{flag}"' in source
