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
const page = document.querySelector("iframe");
page.addEventListener("load", () => {
  const inside = page.contentDocument, root = inside.documentElement;
  const wide = [...inside.querySelectorAll("main *, header *")].filter(e => {
    const box = e.getBoundingClientRect();
    return box.width && !e.closest(".scroll") && (box.right > root.clientWidth + 0.5 || box.left < -0.5);
  });
  document.body.textContent = "FOUND" + JSON.stringify({
    scroll: root.scrollWidth, client: root.clientWidth,
    wide: wide.map(e => e.tagName + "." + e.getAttribute("class")).slice(0, 5),
    title: inside.title, scripts: inside.scripts.length, images: inside.images.length,
    requests: page.contentWindow.performance.getEntriesByType("resource").length,
    text: inside.querySelector("#samples").textContent,
    background: page.contentWindow.getComputedStyle(inside.body).backgroundColor,
  }) + "END";
});
page.srcdoc = document.querySelector("textarea").value;
"""


def measure(folder: Path, report: str, *, width: int, dark: bool = False) -> dict[str, Any]:
    """Load a report in a frame of `width` pixels and return what a script outside it sees."""
    folder.mkdir(exist_ok=True)
    framed = html.escape(report.replace("<details", "<details open"))
    wrapper = folder / "wrapper.html"
    wrapper.write_text(
        f'<!doctype html><meta charset="utf-8"><body><iframe style="width:{width}px;height:800px;'
        f'border:0"></iframe><textarea hidden>{framed}</textarea><script>{MEASURE}</script>',
        encoding="utf-8",
    )
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    command = [str(CHROMIUM), *FLAGS, scheme, f"--user-data-dir={folder / 'profile'}"]
    done = subprocess.run(
        [*command, wrapper.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    found = html.unescape(done.stdout).partition("FOUND")[2].partition("END")[0]
    measured: dict[str, Any] = json.loads(found)
    return measured


@pytest.mark.parametrize("width", [360, 390, 760, 1200])
def test_nothing_is_wider_than_the_screen(tmp_path: Path, facts: Facts, width: int) -> None:
    found = measure(tmp_path, render_report(facts), width=width)
    assert found["wide"] == []
    assert found["scroll"] <= found["client"]


def test_hostile_text_is_text_and_the_page_asks_for_nothing(tmp_path: Path, facts: Facts) -> None:
    found = measure(tmp_path, render_report(facts), width=390)
    assert found["title"] == "small-blend · report of a run"
    assert (found["scripts"], found["images"], found["requests"]) == (0, 0, 0)
    assert '</pre></details><script>document.title = "owned"</script><img src=x' in found["text"]
    assert "evilU+202Etxt.exeU+202C" in found["text"]


def test_a_dark_system_gets_a_dark_page(tmp_path: Path, facts: Facts) -> None:
    light = measure(tmp_path / "light", render_report(facts), width=390)
    dark = measure(tmp_path / "dark", render_report(facts), width=390, dark=True)
    assert light["background"] == "rgb(253, 252, 250)"
    assert dark["background"] == "rgb(23, 20, 21)"
