"""What is shown: every part of the way, and no text that steers the terminal."""

import io
import unicodedata

import pytest
from rich.console import Console, RenderableType

from cuvee.lineage.explain import explain
from cuvee.lineage.find import find_places
from cuvee.lineage.listing import list_run
from cuvee.lineage.requests import open_books
from cuvee.lineage.shelves import open_run, shelves
from cuvee.lineage.tree import show, show_listing
from cuvee.runfolder import Run

from .conftest import Built


def printed(what: RenderableType, *, colours: bool = False) -> str:
    out = io.StringIO()
    Console(file=out, width=200, highlight=False, force_terminal=colours).print(what)
    return out.getvalue()


def told(run: Run, wanted: str, *, full: bool = False, teacher: str | None = None) -> str:
    opened = open_run(run.path)
    with open_books(opened) as books:
        found = find_places(shelves(opened), wanted)
        return "\n".join(
            printed(show(explain(place, books, teacher=teacher), full=full)) for place in found
        )


def test_the_way_of_a_chosen_trace_is_told_in_order(built: Built) -> None:
    text = told(built.run, built.chosen.id)
    parts = [
        f"trace {built.chosen.id} of the domain math",
        "source owner/numbers: train.parquet, row 18",
        "config all, split train, revision 0123abcd, licence apache-2.0",
        f"problem {built.easy.id}, kept",
        "question What is 1 + 1?",
        "gold 2",
        f"trace {built.chosen.id} by ann, sample 0",
        f"request {built.chosen.request}, seed 5, ",
        "bought by this run",
        "took 12 + 30 tokens (prompt + answer), 0.50 s, 0.000072 USD",
        "verdict correct: equal; extracted 2; expected 2; by number",
        "filters passed: finish, ",
        "training set chosen for the specialist math, 31 tokens",
        "other traces of this problem 2",
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_a_trace_that_was_not_chosen_says_why_and_what_was(built: Built) -> None:
    text = told(built.run, built.published.id)
    assert "request published: nothing was asked" in text
    assert "took unknown + unknown tokens (prompt + answer), 0.50 s, cost unknown" in text
    assert "filters dropped: choice (not_chosen)" in text
    assert f"not chosen; of this problem {built.chosen.id} by ann (31 tokens)" in text
    assert f"not chosen; of this problem {built.chosen.id}" in told(built.run, built.easy.id)


def test_a_dropped_problem_names_the_benchmark_item(built: Built) -> None:
    text = told(built.run, built.taken.id)
    assert f"dropped: in_benchmark (sums {built.taken.id})" in text
    assert f"problem {built.taken.id} of the benchmark sums" in text


def test_what_is_not_there_yet_is_named(built: Built) -> None:
    built.run.verdicts("math").unlink()
    text = told(built.run, built.chosen.id)
    assert "verdict none yet" in text
    assert "03_verdicts/math.parquet: not there yet; `cuvee verify` writes it" in text


@pytest.mark.parametrize("full", [True, False])
def test_hostile_text_steers_nothing(built: Built, full: bool) -> None:
    for wanted in (built.hostile.id, built.hard.id):
        text = told(built.run, wanted, full=full)
        assert all(c == "\n" or unicodedata.category(c) not in ("Cc", "Cf") for c in text)
        assert "\\x1b[2J\\x1b]0;owned\\x07" in text
        assert "[bold red]markup[/]" in text
        assert "\\u202etxt.exe" in text


def test_long_texts_are_folded_unless_they_are_wanted_whole(built: Built) -> None:
    folded, whole = told(built.run, built.hostile.id), told(built.run, built.hostile.id, full=True)
    assert "more characters; --full shows them)" in folded
    assert folded.count("alert(1)") < 12
    assert whole.count("alert(1)") > 40


def test_a_listing_is_one_line_a_group(built: Built) -> None:
    listing = list_run(shelves(open_run(built.run.path)))
    lines = printed(show_listing(listing)).splitlines()
    assert len(lines) == 1 + len(listing.groups)
    [chosen] = [line for line in lines if line.startswith("math") and " chosen " in line]
    assert chosen.split() == ["math", "select", "chosen", "1", built.chosen.id]
