"""What docs/select.md says is what the code does: filters, keys, defaults, limits, examples."""

import dataclasses
import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import yaml

from cuvee.recipe import Domain, Select
from cuvee.records import Dropped, Verdict
from cuvee.select.difficulty import tally
from cuvee.select.funnel import Fate, Shares, count_funnel, write_funnel
from cuvee.select.objection import FILTERS
from cuvee.select.prose import END
from cuvee.select.repetition import LOOP_CHARACTERS, LOOP_TAIL, LOOP_TIMES
from cuvee.select.sift import Asked
from cuvee.select.structure import LONGEST_PROGRAM
from cuvee.select.vote import Vote

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "select.md").read_text(encoding="utf-8")
TABLE = PAGE.partition("## Filters")[2].partition("## Policies")[0]


def rows() -> list[list[str]]:
    lines = re.findall(r"^\| (.*) \|$", TABLE, re.MULTILINE)
    return [[cell.strip() for cell in line.split(" |")] for line in lines[1:]]


def test_the_table_has_the_filters_in_order_with_their_reasons() -> None:
    listed = {row[0]: tuple(re.findall(r"`(\w+)`", row[2])) for row in rows()}
    assert listed == dict(FILTERS)
    assert list(listed) == list(FILTERS)


def test_every_key_stands_in_the_table_with_its_default() -> None:
    keys = {name for row in rows() for name in re.findall(r"`([a-z_]+)`", row[1])}
    assert set(Select.model_fields) - {"length"} <= keys, "length is the policy's"
    defaults = Select().model_dump(mode="json")
    for row in rows():
        for name, shown in re.findall(r"`([a-z_]+)` \(([^()]+)\)", row[1]):
            stated = yaml.safe_load(shown.strip("`"))
            assert (None if stated == "none" else stated) == defaults.get(name), name
    assert f"`{defaults['policy']}` (default)" in PAGE
    assert f"`per_problem` ({defaults['per_problem']})" in PAGE


def test_limits_are_those_of_the_code() -> None:
    words = {4: "four"}
    assert f"{LONGEST_PROGRAM:,} characters" in TABLE
    assert f"at least {LOOP_CHARACTERS} characters, rounds of up to {LOOP_TAIL // 4:,}" in TABLE
    assert f"the same {words[LOOP_TIMES]} times" in TABLE
    assert f"last {END} characters" in TABLE


def test_every_field_of_a_vote_and_a_share_is_named() -> None:
    for record in (Vote, Shares):
        for field in dataclasses.fields(record):
            assert f"`{field.name}`" in PAGE, field.name


def test_the_recipe_that_is_shown_is_read() -> None:
    [text] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    select = Domain.model_validate(yaml.safe_load(text)["domains"]["math"]).select
    assert (select.policy, select.length, select.balance) == (
        "closest",
        4000,
        ("source", "difficulty"),
    )


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fates = [Fate("p", "ann", fit=True, chosen=True), Fate("p", "bo", fit=False, chosen=False)]
    dropped = [Dropped("b", "math", kind="trace", model="bo", reason="language", detail=None)]
    verdict = Verdict("a", "p", "math", "correct", "equal", None, None, None, "-", 0.0)
    funnel = count_funnel(
        "math",
        fates,
        dropped,
        problems={"p": Asked("test", "?", "?")},
        tallies=tally([verdict]),
        votes=[],
    )
    write_funnel(tmp_path / "runs/demo/04_examples/funnel/math.json", funnel)
    monkeypatch.chdir(tmp_path)
    [text] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(text, "docs/select.md", "exec"), {})  # noqa: S102 - our own page
    assert printed.getvalue().splitlines()[:2] == [
        "language 1 dropped, 1 left",
        "0.0-0.2 1 problems, 1 examples",
    ]
