"""What docs/rounds.md says is what the code does: keys, defaults, reasons, the example."""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import get_args

import yaml

from cuvee.recipe import Rounds, parse_recipe
from cuvee.rounds.decide import Stop

PAGE = (Path(__file__).parent.parent / "docs" / "rounds.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_every_key_stands_in_the_table_with_its_default() -> None:
    listed = dict(re.findall(r"^\| `(\w+)` \(`?([\w.]+)`?\) \|", PAGE, re.MULTILINE))
    defaults = Rounds().model_dump()
    assert set(listed) == set(defaults)
    for name, shown in listed.items():
        assert (None if shown == "none" else yaml.safe_load(shown)) == defaults[name], name


def test_every_reason_to_stop_stands_in_the_table() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", PAGE.split("| `stop` | |")[1], re.MULTILINE)
    assert sorted(listed) == sorted(stop for stop in get_args(Stop) if stop)


def test_the_recipe_that_is_shown_is_read() -> None:
    [text] = blocks("yaml")
    problems = [{"source": "generator:arithmetic", "count": 6}]
    values = {
        "name": "test",
        "base": "random:two-layer",
        "domains": {"math": {"problems": problems, "verifier": "math"}},
    }
    rounds = parse_recipe(values | yaml.safe_load(text), where="docs").rounds
    assert rounds is not None
    assert [rounds.samples_in(number, 1) for number in (1, 2, 3, 4)] == [1, 2, 4, 4]


def test_the_example_prints_what_is_shown() -> None:
    [text], [_, shown] = blocks("python"), blocks("text")
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(text, "docs/rounds.md", "exec"), {})  # noqa: S102 - our own page
    assert printed.getvalue() == shown


def mean_share(right: float, samples: tuple[int, ...]) -> float:
    """Return the mean share of right answers, asked until one is, by going through all ways."""

    def after(tried: int, left: tuple[int, ...], chance: float) -> float:
        if not left:
            return 0.0
        total = 0.0
        for answers in range(2 ** left[0]):
            found = answers.bit_count()
            this = chance * right**found * (1 - right) ** (left[0] - found)
            tries = tried + left[0]
            total += this * found / tries if found else after(tries, left[1:], this)
        return total

    return after(0, samples, 1.0)


def test_the_bias_that_is_told_is_that_of_asking_until_solved() -> None:
    rising, level = (1, 2, 4), (4, 4, 4)
    assert f"answers of {mean_share(0.1, rising):.2f} (of {mean_share(0.1, level):.2f}" in PAGE
    assert f"{mean_share(0.5, rising):.2f} ({mean_share(0.5, level):.2f})" in PAGE
