"""The report in a real browser: nothing overflows, nothing runs, nothing is fetched."""

from collections.abc import Callable
from typing import Any

from cuvee.release.facts import Facts
from cuvee.release.report import render_report

Browser = Callable[..., dict[str, Any]]

LOOK = """
function look(window, page) {
  const screen = page.documentElement.clientWidth;
  const outside = [...page.querySelectorAll("main *, header *")].filter(element => {
    const box = element.getBoundingClientRect();
    return box.width && !element.closest(".scroll *") &&
      (box.right > screen + 0.5 || box.left < -0.5);
  });
  return {
    screen: screen, scroll: page.documentElement.scrollWidth, title: page.title,
    outside: outside.map(element => element.outerHTML.slice(0, 90)).slice(0, 5),
    scripts: page.scripts.length, images: page.images.length,
    requests: window.performance.getEntriesByType("resource").length,
    text: page.querySelector("#samples").textContent,
    background: window.getComputedStyle(page.body).backgroundColor,
  };
}
"""


def test_nothing_is_wider_than_the_screen(browser: Browser, facts: Facts) -> None:
    found = browser(render_report(facts), 360, 390, 820, 850, 1050, 1070, 1200, look=LOOK)
    assert {width: seen["outside"] for width, seen in found.items() if seen["outside"]} == {}
    assert all(seen["scroll"] <= seen["screen"] for seen in found.values())


def test_hostile_text_is_text_and_the_page_asks_for_nothing(browser: Browser, facts: Facts) -> None:
    found = browser(render_report(facts), 390, look=LOOK)["390"]
    assert found["title"] == "small-blend · report of a run"
    assert (found["scripts"], found["images"], found["requests"]) == (0, 0, 0)
    assert '</pre></details><script>document.title = "owned"</script><img src=x' in found["text"]
    assert "evilU+202Etxt.exeU+202C" in found["text"]
    assert found["background"] == "rgb(253, 252, 250)"


def test_a_dark_system_gets_a_dark_page(browser: Browser, facts: Facts) -> None:
    found = browser(render_report(facts), 390, look=LOOK, dark=True)["390"]
    assert found["background"] == "rgb(23, 20, 21)"
