"""A run folder that is broken, or of another version: noted, left out, and planned all the same."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cuvee.plan.estimate import estimate
from cuvee.plan.reading import read
from cuvee.records import Trace, Verdict, write_rows
from cuvee.runfolder import Run

from .test_pilot import MACHINE, _folder, smoke


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def _without_a_column(file: Path) -> None:
    pq.write_table(pq.read_table(file).drop_columns(["problem_id"]), file)


def _of_another_type(file: Path) -> None:
    table = pq.read_table(file)
    words = pa.array(["\x1b[31mmany"] * table.num_rows)
    place = table.schema.get_field_index("completion_tokens")
    pq.write_table(table.set_column(place, "completion_tokens", words), file)


@pytest.mark.parametrize("harm", [_cut, _without_a_column, _of_another_type])
def test_a_broken_file_is_noted_and_the_plan_is_made_without_it(
    harm: Callable[[Path], None], tmp_path: Path
) -> None:
    recipe = smoke(tmp_path, 2)
    folder = _folder(tmp_path, recipe)
    harm(folder / "02_traces" / "math" / "ann.parquet")
    found = read(folder, recipe)
    assert not found.teach
    assert found.selected["math"].right == (0.5, 1.0)  # its verdicts are sound
    (note,) = found.notes
    assert note.startswith("teach/math/ann: not measured: ")
    assert len(note) < 260 and note.isprintable()
    plan = estimate(recipe, measured=found, assume=(), machine=MACHINE)
    assert note in plan.notes
    (teach,) = [row for row in plan.rows if row.name == "math/ann" and row.stage == "teach"]
    assert teach.answer_tokens is not None and teach.answer_tokens.origin == "assumed"


def test_broken_verdicts_leave_the_answers_measured(tmp_path: Path) -> None:
    recipe = smoke(tmp_path, 2)
    folder = _folder(tmp_path, recipe)
    _cut(folder / "03_verdicts" / "math.parquet")
    found = read(folder, recipe)
    assert not found.selected
    assert found.teach["math", "ann"].requests == 4
    assert found.notes[0].startswith("verify and select of math: not measured: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "what was done, and how long it took, is unknown"),
        ('{"version": 0, "stages": []}', "what was done, and how long it took, is unknown"),
        ('{"tasks": {"teach/math/ann": {"took": 2}}}', "1 entries are none of this version"),
        ('{"tasks": {"teach/math/ann": {"seconds": "2", "counts": {}}}}', "1 entries are none"),
    ],
)
def test_a_manifest_of_another_version_counts_as_nothing_done(
    text: str, said: str, tmp_path: Path
) -> None:
    recipe = smoke(tmp_path, 2)
    folder = _folder(tmp_path, recipe)
    (folder / "MANIFEST.json").write_text(text)
    found = read(folder, recipe)
    assert any(said in note for note in found.notes)
    assert not found.manifest and not found.teach
    assert found.selected["math"].answers == 4
    assert not any(row.done for row in estimate(
        recipe, measured=found, assume=(), machine=MACHINE).rows)  # fmt: skip


def test_a_recipe_account_or_summary_that_cannot_be_read_is_noted(tmp_path: Path) -> None:
    recipe = smoke(tmp_path, 2)
    folder = _folder(tmp_path, recipe)
    run = Run(folder, recipe)
    (folder / "account.txt").write_text("nobody")
    Path(recipe.ledger).write_bytes(b"no database")
    (run.specialist("math")).mkdir(parents=True)
    (run.specialist("math") / "train_summary.json").write_text('{"tokens": null}')
    entries = json.loads((folder / "MANIFEST.json").read_text())["tasks"]
    entries["train/math"] = {"counts": {}, "seconds": 5.0}
    (folder / "MANIFEST.json").write_text(json.dumps({"tasks": entries}))
    found = read(folder, recipe)
    assert sorted(note.partition(":")[0] for note in found.notes) == ["train", "what was spent"]
    assert found.teach
    (folder / "recipe.yaml").write_bytes(b"\xff\xfe name: [")
    (note,) = read(folder, recipe).notes
    assert "its recipe.yaml is none of this version" in note


def test_files_of_rounds_are_no_domain_of_the_first_round(tmp_path: Path) -> None:
    recipe = smoke(tmp_path, 2)
    folder = _folder(tmp_path, recipe)
    run = Run(folder, recipe)
    write_rows(run.traces("math", "ann", in_round=2), [], Trace)
    write_rows(run.verdicts("math", in_round=2), [], Verdict)
    entries = json.loads((folder / "MANIFEST.json").read_text())["tasks"]
    entries["teach/round-2/math/ann"] = entries["verify/round-2/math"] = entries["teach/math/ann"]
    (folder / "MANIFEST.json").write_text(json.dumps({"tasks": entries}))
    found = read(folder, recipe)
    assert set(found.teach) == {("math", "ann")}
    assert not found.notes
