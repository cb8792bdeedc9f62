"""What the docs say of merging is what the code does: the table of methods, configs, links."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cuvee.merge.config.read import KEYS, parse_config
from cuvee.merge.methods.spec import Method, Parameter
from cuvee.merge.methods.table import METHODS
from cuvee.recipe.training import Merge

ROOT = Path(__file__).parent.parent
MERGE = (ROOT / "docs" / "merge.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```yaml\n(.*?)```", re.DOTALL)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def described(parameter: Parameter) -> str:
    name = f"`{parameter.name}`" + "*" * parameter.each_model
    default, low, high = parameter.default, parameter.low, parameter.high
    if parameter.kind is bool:
        return f"{name} = {str(default).lower()}"
    within = f"{low:g} … {high:g}" if math.isfinite(high) else f"≥ {low:g}"
    allowed = [within] if math.isfinite(low) else []
    if default is None:
        return f"{name} ({', '.join(['required', *allowed])})"
    return f"{name} = {default:g}" + "".join(f" ({text})" for text in allowed)


def row(method: Method) -> str:
    fewest, most = method.models
    count = f"{fewest}" if most == fewest else f"{fewest} or more"
    base = {"required": "yes", "optional": "with or without", "refused": "no"}[method.base]
    named = [described(parameter) for parameter in method.parameters]
    parameters = ", ".join([*named, *["the config's `seed`"] * method.random])
    return f"| `{method.name}` | {base} | {count} | {parameters or 'none'} | {method.paper} |"


def test_the_table_of_methods_is_the_one_in_the_code() -> None:
    expected = "\n".join(row(method) for method in METHODS.values())
    assert expected in MERGE, f"the table in docs/merge.md should be:\n{expected}"
    listed = re.findall(r"^\| `(\w+)` \| (?:yes|no|with or without) \|", MERGE, re.MULTILINE)
    assert listed == list(METHODS)


def test_every_key_of_a_config_is_in_the_table_of_keys() -> None:
    table = MERGE.partition("## The config")[2].partition("###")[0]
    assert [key for key in KEYS if f"`{key}" not in table] == []


def configs() -> list[dict[str, Any]]:
    found = [yaml.safe_load(text) for text in BLOCK.findall(MERGE)]
    return [data for data in found if {"method", "merge_method"} & data.keys()]


@pytest.mark.parametrize("number", range(len(configs())))
def test_every_config_that_is_shown_is_read(number: int) -> None:
    parse_config(configs()[number], where="docs/merge.md")


def test_the_recipe_s_merge_sections_are_read() -> None:
    page = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
    found = [yaml.safe_load(text) for text in BLOCK.findall(page)]
    sections = [data["merge"] for data in found if "merge" in data]
    assert sections
    for section in sections:
        assert Merge.model_validate(section).method in METHODS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target
