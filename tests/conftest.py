"""What all tests share: their order, threads, a browser, which need the sandbox."""

import html
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes to make or to run says more of the machine than of the code.
settings.register_profile("cuvee", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("cuvee")

# Two-layer models gain nothing from threads, and processes side by side wait for each other's.
os.environ.setdefault("OMP_NUM_THREADS", "1")

TESTS = Path(__file__).parent
LONGEST = (
    "test_pipeline.py",
    "train/test_launch.py",
    "test_pipeline_faults.py",
    "release/test_push.py",
    "train/test_killed.py",
    "train/test_shared.py",
    "teach/test_ledger_faults.py",
    "train/test_arguments.py",
    "verify/test_conformance.py",
)
"""Files that take longest, begun first: two processes then end at about the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, and skip sandbox tests under SANDBOX=none.

    Without bubblewrap they fail, not skip. The processes of `make test` take whole files in
    this order (`--no-loadscope-reorder`; else the files of most tests came first).
    """
    order = {TESTS / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))
    if os.environ.get("CUVEE_TEST_SANDBOX") == "none":
        skip = pytest.mark.skip(reason="SANDBOX=none: needs bubblewrap")
        for item in items:
            if item.get_closest_marker("sandbox"):
                item.add_marker(skip)


Browser = Callable[..., dict[str, Any]]

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--virtual-time-budget=2000", "--window-size=1300,900", "--dump-dom",
)  # fmt: skip

DRIVE = """
const source = document.querySelector("textarea").value;
const frames = [...document.querySelectorAll("iframe")];
const found = {};
for (const frame of frames) {
  frame.addEventListener("load", () => {
    found[frame.width] = look(frame.contentWindow, frame.contentDocument);
    if (Object.keys(found).length === frames.length)
      document.body.textContent = "FOUND" + JSON.stringify(found) + "END";
  });
  frame.srcdoc = source;
}
"""


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    """Return what loads a page, all details open, in frames of some widths of a real browser.

    `browser(page, *widths, look, dark=False)` returns what `look`, the source of a function
    `look(window, page)`, makes of each frame, by width. It stands in the page around the
    frames: the pages' own policies allow no script.
    """
    names = ("chromium", "chromium-browser")
    chromium = next((path for name in names if (path := shutil.which(name))), None)
    if chromium is None:
        pytest.skip("needs chromium")

    def seen(page: str, *widths: int, look: str, dark: bool = False) -> dict[str, Any]:
        frame = '<iframe width="{}" height="800" style="border:0"></iframe>'
        opened = html.escape(re.sub(r"<details([^>]*?)( open)?>", r"<details\1 open>", page))
        wrapper = tmp_path / "wrapper.html"
        wrapper.write_text(
            f'<!doctype html><meta charset="utf-8"><body>{"".join(map(frame.format, widths))}'
            f"<textarea hidden>\n{opened}</textarea><script>{look}{DRIVE}</script>",
            encoding="utf-8",
        )
        scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        done = subprocess.run(
            [chromium, *FLAGS, scheme, profile, wrapper.as_uri()],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        found = html.unescape(done.stdout).partition("FOUND")[2].partition("END")[0]
        measured: dict[str, Any] = json.loads(found)
        return measured

    return seen
