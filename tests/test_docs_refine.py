"""What docs/refine.md says is what the code does: keys, defaults, limits, files, the example."""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import yaml

from cuvee.recipe import Domain, Refine
from cuvee.select.refine import held, rules

PAGE = (Path(__file__).parent.parent / "docs" / "refine.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_every_key_stands_in_the_table_with_its_default() -> None:
    listed = dict(re.findall(r"^\| `(\w+)` \(`?([\w.]+)`?\) \|", PAGE, re.MULTILINE))
    defaults = Refine().model_dump()
    assert set(listed) == set(defaults)
    for name, shown in listed.items():
        assert (None if shown == "none" else yaml.safe_load(shown)) == defaults[name], name


def test_limits_are_those_of_the_code() -> None:
    assert f"a whole paragraph of {rules.LONG} words or more" in PAGE
    assert f"sentences in a row of {rules.LONG_PASSAGE} words or more" in PAGE
    assert f"of {rules.SHORT} words or more, without calculation" in PAGE
    assert (held.LEAST_NAMED, held.LEAST_FOUNDED) == (0.5, 0.9)


def test_the_recipe_that_is_shown_is_read() -> None:
    [text] = blocks("yaml")
    refine = Domain.model_validate(yaml.safe_load(text)["domains"]["math"]).refine
    assert refine == Refine(rules=True, teacher="deepseek-r1", least_share=0.3)


def test_the_example_prints_what_is_shown() -> None:
    [text], [shown] = blocks("python"), blocks("text")
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(text, "docs/refine.md", "exec"), {})  # noqa: S102 - our own page
    assert printed.getvalue() == shown
