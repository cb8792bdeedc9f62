"""Merges tried end to end on two-layer models: merged, served, asked, ranked, gone on with."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from cuvee.cli import app
from cuvee.errors import DataError, MergeError, RecipeError
from cuvee.evaluate.scored import read_scored
from cuvee.recipe import dump_recipe, load_recipe
from cuvee.records import Example, Problem, read_rows
from cuvee.runfolder import Run, hash_path
from cuvee.search.search import Wanted, search
from cuvee.search.trial import DONE
from cuvee.teach.ledger import Ledger

from .conftest import DOMAINS, MakeRun

GRID = """
candidates:
  - {method: linear, parameters: {weight: 1.0}}
  - {method: ties, parameters: {weight: 1.0, density: 0.5}}
"""


def mine(run: Run, text: str = GRID) -> Path:
    file = run.path.parent / "mine.yaml"
    file.write_text(text)
    return file


def answers(run: Run) -> int:
    with Ledger.open(run.recipe.ledger) as ledger:
        return ledger.count_answers()


def done(run: Run) -> dict[str, float]:
    files = (run.path / "search" / "scored").glob(f"*/*/{DONE}")
    return {file.parent.name: file.stat().st_mtime for file in files}


def test_a_search_writes_what_it_tried_and_the_second_asks_nothing(make_run: MakeRun) -> None:
    run = make_run()
    folder = run.path / "search"
    before = hash_path(run.folder("train"))
    first = search(run, Wanted(file=mine(run), tries=1, problems=4))
    assert (len(first.rows), first.not_tried) == (2, 1)
    assert answers(run) == 2 * 2 * 4
    scored = done(run)

    found = search(run, Wanted(file=mine(run), problems=4))

    assert (len(found.rows), found.not_tried) == (3, 0)
    assert scored.items() <= done(run).items(), "what was scored was not tried again"
    assert answers(run) == 3 * 2 * 4
    assert not list((folder / "scratch").iterdir()), "weights are removed"
    assert hash_path(run.folder("train")) == before
    assert not run.merged().exists()

    table = pq.read_table(folder / "tried.parquet").to_pylist()
    assert {row["name"].split("-")[0] for row in table} == {"arcee_fusion", "linear", "ties"}
    assert [row["recipes_own"] for row in table].count(True) == 1
    for row in table:
        assert set(json.loads(row["domains"])) == set(DOMAINS)
        assert (row["n_problems"], row["n_samples"]) == (8, 8)
        assert (row["p_value"] is None) == (row["p_corrected"] is None) == row["recipes_own"]
    opened = yaml.safe_load((folder / "tried.yaml").read_text())
    assert [row["name"] for row in opened["tried"]] == [row["name"] for row in table]
    best = yaml.safe_load((folder / "best.yaml").read_text())
    assert best["merge"] == json.loads(table[0]["merge"])


def test_no_benchmark_and_nothing_that_was_trained_on_is_asked(make_run: MakeRun) -> None:
    run = make_run()
    search(run, Wanted(file=mine(run, "candidates: []"), problems=6))
    kept_out = {row.id for row in read_rows(run.benchmark("held"), Problem)}
    kept_out |= {row.problem_id for d in DOMAINS for row in read_rows(run.examples(d), Example)}
    (folder,) = (run.path / "search" / "scored").glob("*/*")
    for domain in DOMAINS:
        scored = read_scored(folder / domain)
        asked = {trace.problem_id for trace in scored.traces}
        assert len(asked) == 6
        assert not asked & kept_out
        assert json.loads(scored.scores[0].protocol)["sampling"]["temperature"] == 0.7


def test_other_problems_are_other_conditions_and_shown_apart(make_run: MakeRun) -> None:
    run = make_run()
    search(run, Wanted(file=mine(run), tries=1, problems=3))
    asked = answers(run)
    found = search(run, Wanted(file=mine(run, "candidates: []"), problems=4))
    assert [row.overall.n_problems for row in found.rows] == [8]
    assert answers(run) == asked + 2, "three of the four problems were answered before"


def test_kept_weights_are_the_merge_that_the_stage_makes(make_run: MakeRun) -> None:
    run = make_run()
    found = search(run, Wanted(file=mine(run, "candidates: []"), problems=2, keep=True))
    kept = run.path / "search" / "models" / found.rows[0].name
    assert (kept / "F32.gguf").exists()
    (run.path / "recipe.yaml").write_text(dump_recipe(run.recipe))
    result = CliRunner().invoke(app, ["merge", str(run.path)])
    assert result.exit_code == 0, result.output
    name = "model.safetensors"
    assert (kept / "merged" / name).read_bytes() == (run.merged() / name).read_bytes()


def test_a_dry_run_checks_everything_and_tries_nothing(make_run: MakeRun) -> None:
    run = make_run()
    found = search(run, Wanted(file=mine(run), problems=4, dry_run=True))
    assert found.said[0].startswith("arcee_fusion math > algebra")
    assert len(found.said) == 3
    assert not done(run)
    wrong = mine(run, "candidates: [{method: slerp, parameters: {t: 0.5}}]")
    with pytest.raises((RecipeError, MergeError), match="slerp"):
        search(run, Wanted(file=wrong, problems=4, dry_run=True))


def test_a_run_without_specialists_is_refused(make_run: MakeRun) -> None:
    run = make_run(models=False)
    with pytest.raises(DataError, match=r"05_specialists/math: no specialist; `cuvee train`"):
        search(run, Wanted(problems=4))


def test_a_context_too_small_for_the_answers_is_refused(make_run: MakeRun) -> None:
    run = make_run()
    sampling = run.recipe.evaluate.sampling.model_copy(update={"max_tokens": 300})
    evaluate = run.recipe.evaluate.model_copy(update={"sampling": sampling})
    wide = Run(run.path, run.recipe.model_copy(update={"evaluate": evaluate}))
    with pytest.raises(RecipeError, match=r"serve.context: 256 is too small"):
        search(wide, Wanted(problems=4))


@pytest.mark.slow
def test_killed_and_started_again_it_goes_on_with_what_is_not_scored(make_run: MakeRun) -> None:
    run = make_run()
    (run.path / "recipe.yaml").write_text(dump_recipe(run.recipe))
    assert load_recipe(run.path / "recipe.yaml") == run.recipe
    flags = ["--candidates", str(mine(run)), "--problems", "6", "--json"]
    command = [sys.executable, "-m", "cuvee.cli", "merge-search", str(run.path), *flags]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL) as process:  # fmt: skip
        deadline = time.monotonic() + 300
        while not done(run) and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    scored = done(run)
    assert 1 <= len(scored) < 3, "it was killed between the first and the last"

    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)

    assert len(done(run)) == 3
    assert scored.items() <= done(run).items()
    assert answers(run) == 3 * 2 * 6
    said = json.loads(again.stdout)
    assert (len(said["tried"]), said["not_tried"]) == (3, 0)
    assert "of them scored before" in again.stderr
