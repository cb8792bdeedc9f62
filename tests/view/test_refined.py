"""Grades, refining and rounds in the viewer: shown where they belong, as text, on any screen."""

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from cuvee.lineage.shelves import domain_shelf
from cuvee.records import Trace, read_rows
from cuvee.runfolder import Run
from cuvee.select.refine.rows import Refined

from ..lineage.scripted_run import MUSING, scripted_run
from .test_browser import OUTSIDE
from .test_server import get

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return scripted_run(tmp_path_factory.mktemp("scripted"))


@pytest.fixture(scope="module")
def root(made: Run, serve_run: Callable[[Run], Any]) -> Iterator[str]:
    with serve_run(made) as address:
        yield address


def an_example(run: Run, *, accepted: bool) -> Refined:
    path = domain_shelf(run, "sums").refined
    assert path is not None
    found = [r for r in read_rows(path, Refined) if r.way == "teacher" and r.accepted == accepted]
    return found[0]


def text_of(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", "", html).split())


def test_a_trace_shows_before_and_after_side_by_side(made: Run, root: str) -> None:
    row = an_example(made, accepted=True)
    status, html = get(f"{root}domain/sums/trace/{row.id}")
    assert status == 200
    before, after = re.findall(
        r"<h4>reasoning as (?:written|trained on)</h4><pre[^>]*>(.*?)</pre>", html, re.DOTALL
    )
    assert re.findall("<del>(.*?)</del>", before, re.DOTALL)
    assert before.count(MUSING) == 3
    assert MUSING not in after
    assert "<del>" not in after
    assert "rules: accepted; teacher: accepted" in text_of(html)
    assert "5 of 5, the lowest point, by jo" in text_of(html)
    assert "Clarity: &lt;b&gt;all&lt;/b&gt;." in html
    assert "graded by jo" in html
    assert "refined by rae" in html


def test_what_did_not_hold_up_says_why(made: Run, root: str) -> None:
    row = an_example(made, accepted=False)
    for page in (f"trace/{row.id}", f"problem/{row.problem_id}?sample=1"):
        _, html = get(f"{root}domain/sums/{page}")
        assert f"teacher: {row.reason}" in text_of(html)


def test_hostile_text_is_text_on_both_sides(made: Run, root: str) -> None:
    _, html = get(f"{root}domain/sums/trace/{an_example(made, accepted=True).id}")
    assert "<script>document" not in html
    assert html.count("&lt;script&gt;document.title") >= 4
    assert not set(html) & set("\u202e\u200b\x1b")


def test_the_answer_of_a_refiner_is_said_to_stand_with_its_trace(made: Run, root: str) -> None:
    path = domain_shelf(made, "sums").refiner
    assert path is not None
    status, html = get(f"{root}find?id={read_rows(path, Trace)[0].id}")
    assert status == 404
    assert "judge or refiner" in html


def test_a_choice_that_is_not_refined_yet_is_in_the_lists(made: Run, root: str) -> None:
    kept = made.examples("sums").read_bytes()
    made.examples("sums").unlink()
    try:
        _, html = get(f"{root}domain/sums/traces?end=chosen")
        assert "1–12 of 12" in html
    finally:
        made.examples("sums").write_bytes(kept)


def test_nothing_is_wider_than_a_phone(made: Run, root: str, chromium: "Browser") -> None:
    row = an_example(made, accepted=True)
    for width in (360, 900, 1280):
        context = chromium.new_context(viewport={"width": width, "height": 900})
        page = context.new_page()
        for path in (f"trace/{row.id}", f"problem/{row.problem_id}?sample=1"):
            page.goto(f"{root}domain/sums/{path}")
            found = page.evaluate(OUTSIDE)
            assert found["outside"] == [], (width, path)
            assert found["scroll"] <= found["screen"]
            assert page.title() != "owned"
        context.close()
