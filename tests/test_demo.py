"""`make demo` replays recorded answers of real teachers: nothing is sent, nothing is missing."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cuvee.pipeline import run_stages
from cuvee.recipe import load_recipe
from cuvee.records import Trace, read_rows
from cuvee.runfolder import Run, read_manifest

RECIPES = Path(__file__).parents[1] / "recipes"


def test_the_recording_answers_every_request_of_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(RECIPES.parent)  # the recipe's paths begin there
    recipe = load_recipe(
        RECIPES / "demo.yaml",
        overrides=[f"ledger={tmp_path / 'ledger.sqlite'}", "sandbox=none", "base=random:two-layer"],
    )
    run_stages(recipe, tmp_path / "run", ["problems", "teach"])
    run = Run(tmp_path / "run", recipe)
    asked = {
        name: entry["counts"]
        for name, entry in read_manifest(run.path).items()
        if name.startswith("teach/")
    }
    assert {name: (c["sent"], c["failed"]) for name, c in asked.items()} == {
        f"teach/{domain}/{teacher}-{domain}": (0, 0)
        for domain in ("math", "code")
        for teacher in ("qwen", "smollm2")
    }
    traces = read_rows(run.traces("code", "qwen-code"), Trace)
    assert sum(trace.finish_reason == "stop" for trace in traces) > 100
    assert all("<think>" not in trace.answer for trace in traces)


def test_the_recording_says_what_it_is() -> None:
    recording = RECIPES / "demo_answers.parquet"
    note = pq.read_schema(recording).metadata[b"cuvee.note"].decode()
    for said in ("Qwen2.5-Coder-1.5B-Instruct", "SmolLM2-135M-Instruct", "Apache-2.0", "sha256"):
        assert said in note
    assert recording.stat().st_size < 5_000_000
