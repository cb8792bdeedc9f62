"""The report in a real browser: nothing overflows, nothing runs, nothing is fetched."""

import html
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cuvee.release.facts import Facts
from cuvee.release.report import render_report

CHROMIUM = next((p for n in ("chromium", "chromium-browser") if (p := shutil.which(n))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--virtual-time-budget=2000", "--window-size=1300,900", "--dump-dom",
)  # fmt: skip

MEASURE = """
const report = document.querySelector("textarea").value;
const frames = [...document.querySelectorAll("iframe")];
const found = {};
for (const frame of frames) {
  frame.addEventListener("load", () => {
    found[frame.width] = look(frame.contentWindow, frame.contentDocument);
    if (Object.keys(found).length === frames.length)
      document.body.textContent = "FOUND" + JSON.stringify(found) + "END";
  });
  frame.srcdoc = report;
}
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


def measure(folder: Path, report: str, *widths: int, dark: bool = False) -> dict[str, Any]:
    """Load a report, all details open, in frames of some widths; return what is seen, by width.

    The script that looks stands in the page around the frames: the report's own policy
    allows none.
    """
    frames = "".join(f'<iframe width="{w}" height="800" style="border:0"></iframe>' for w in widths)
    source = html.escape(report.replace("<details", "<details open"))
    wrapper = folder / "wrapper.html"
    wrapper.write_text(
        f'<!doctype html><meta charset="utf-8"><body>{frames}<textarea hidden>\n{source}'
        f"</textarea><script>{MEASURE}</script>",
        encoding="utf-8",
    )
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    profile = f"--user-data-dir={folder / 'profile'}"
    done = subprocess.run(
        [str(CHROMIUM), *FLAGS, scheme, profile, wrapper.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = html.unescape(done.stdout).partition("FOUND")[2].partition("END")[0]
    measured: dict[str, Any] = json.loads(found)
    return measured


def test_nothing_is_wider_than_the_screen(tmp_path: Path, facts: Facts) -> None:
    found = measure(tmp_path, render_report(facts), 360, 390, 820, 850, 1050, 1070, 1200)
    assert {width: seen["outside"] for width, seen in found.items() if seen["outside"]} == {}
    assert all(seen["scroll"] <= seen["screen"] for seen in found.values())


def test_hostile_text_is_text_and_the_page_asks_for_nothing(tmp_path: Path, facts: Facts) -> None:
    found = measure(tmp_path, render_report(facts), 390)["390"]
    assert found["title"] == "small-blend · report of a run"
    assert (found["scripts"], found["images"], found["requests"]) == (0, 0, 0)
    assert '</pre></details><script>document.title = "owned"</script><img src=x' in found["text"]
    assert "evilU+202Etxt.exeU+202C" in found["text"]
    assert found["background"] == "rgb(253, 252, 250)"


def test_a_dark_system_gets_a_dark_page(tmp_path: Path, facts: Facts) -> None:
    found = measure(tmp_path, render_report(facts), 390, dark=True)["390"]
    assert found["background"] == "rgb(23, 20, 21)"
