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
from cuvee.recipe.serving import PARALLEL, Serve, addressed
from cuvee.recipe.teachers import Teacher

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "replicas.md").read_text(encoding="utf-8")


def test_the_recipes_that_are_shown_are_read_and_follow_their_own_advice() -> None:
    texts = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    shown = [yaml.safe_load(text) for text in texts]
    here, there = (Teacher.model_validate(addressed(page)["teachers"][0]) for page in shown)
    for teacher in (here, there):
        assert teacher.serve is not None
        assert teacher.concurrency == teacher.serve.replicas * teacher.serve.slots
        assert teacher.serve.replicas > 1
    assert there.serve is not None
    assert (there.serve.over, there.serve.address) == ("ray", shown[1]["address"])


def test_every_key_of_the_table_is_one_of_serve_s() -> None:
    rows = re.findall(r"^\| (`.*?`) \|", PAGE, re.MULTILINE)
    assert len(rows) == 5
    for row in rows:
        for key in re.findall(r"`(\w+)", row):
            assert key in {*Serve.model_fields, *PARALLEL}


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
