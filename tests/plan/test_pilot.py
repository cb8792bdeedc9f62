"""A pilot of the smoke recipe: what the plan says of the whole, and what the whole then took."""

import json
from pathlib import Path

import pytest
import yaml

from cuvee.pipeline import run_stages
from cuvee.plan.estimate import estimate
from cuvee.plan.machine import Machine
from cuvee.plan.reading import read
from cuvee.recipe import Recipe, parse_recipe
from cuvee.records import Trace, Verdict, write_rows
from cuvee.runfolder import Run

SMOKE = Path(__file__).parents[2] / "recipes" / "smoke.yaml"
MACHINE = Machine(cores=2, ram=16 * 10**9, disk=50 * 10**9, gpus=())
STAGES = ("problems", "teach", "verify", "select")


def smoke(folder: Path, limit: int | None) -> Recipe:
    """Return the smoke recipe with a ledger of its own."""
    data = yaml.safe_load(SMOKE.read_text(encoding="utf-8"))
    ledger = str(folder / f"{limit}.sqlite")  # two, so that nothing is answered from the pilot's
    for domain, count in (("math", 60), ("code", 40)):
        data["domains"][domain]["problems"][0]["count"] = count
        data["domains"][domain]["select"]["target"] = count
    return parse_recipe({**data, "ledger": ledger, "limit": limit}, where="smoke")


@pytest.mark.slow
def test_what_a_pilot_foretells_is_what_the_run_then_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pilot, whole = smoke(tmp_path, 20), smoke(tmp_path, None)
    run_stages(pilot, tmp_path / "pilot", STAGES)
    plan = estimate(whole, measured=read(tmp_path / "pilot", whole), assume=(), machine=MACHINE)
    run_stages(whole, tmp_path / "whole", STAGES)
    tasks = json.loads((tmp_path / "whole" / "MANIFEST.json").read_text())["tasks"]
    foretold = taken = 0.0
    for row in plan.rows:
        if row.stage == "teach":
            counts = tasks[row.tasks[0]]["counts"]
            assert row.requests is not None and row.answer_tokens is not None
            assert row.requests.value == counts["sent"]
            assert row.answer_tokens.origin == "measured"
            # Rare faults (an endless repetition) make the tails heavy: a third either way.
            assert row.answer_tokens.value == pytest.approx(counts["completion_tokens"], rel=0.35)
            foretold += row.answer_tokens.value
            taken += counts["completion_tokens"]
    assert foretold == pytest.approx(taken, rel=0.2)
    for expected in plan.expected:
        funnel = tmp_path / "whole" / "04_examples" / "funnel" / f"{expected.domain}.json"
        chosen = json.loads(funnel.read_text())["total"]["chosen"]
        assert expected.examples is not None
        assert expected.examples.low <= chosen <= expected.examples.high
        assert expected.pass_rate.origin == "measured"
    again = estimate(whole, measured=read(tmp_path / "whole", whole), assume=(), machine=MACHINE)
    done = {row.tasks[0] for row in again.rows if row.done}
    # All that ran, and nothing else; the mixture's examples are a copy of the others.
    assert done == set(tasks) - {"select/mixture"}
    assert {row.stage for row in again.rows if not row.done} == {
        "train", "merge", "evaluate", "release"
    }  # fmt: skip


def test_a_teacher_asked_otherwise_is_not_measured(tmp_path: Path) -> None:
    pilot = smoke(tmp_path, 2)
    folder = _folder(tmp_path, pilot)
    found = read(folder, pilot)
    assert set(found.teach) == {("math", "ann")}
    assert found.teach["math", "ann"].completion == (30.0, 40.0)
    assert found.teach["math", "ann"].around == pytest.approx(1.0)  # 2 s, of which 16 / 16 asking
    assert found.selected["math"].right == (0.5, 1.0)
    changed = [
        t.model_copy(update={"system": "Be brief."}) if t.name == "ann" else t
        for t in pilot.teachers
    ]
    other = read(folder, pilot.model_copy(update={"teachers": changed}))
    assert not other.teach
    assert other.notes == ("ann: not measured: the model or its sampling differs",)


def test_a_folder_that_is_not_there_measures_nothing(tmp_path: Path) -> None:
    assert read(tmp_path / "none", smoke(tmp_path, None)).folder is None


def _folder(tmp_path: Path, recipe: Recipe) -> Path:
    """Write a run folder in which ann has answered two problems twice."""
    folder = tmp_path / "run"
    run = Run(folder, recipe)
    traces = [_trace(f"t{n}", f"p{n // 2}", tokens) for n, tokens in enumerate((20, 40, 40, 40))]
    write_rows(run.traces("math", "ann"), traces, Trace)
    verdicts = [
        Verdict(t.id, t.problem_id, "math", "wrong" if t.id == "t0" else "correct", "equal",
                None, None, None, "math-verify", 0.0)
        for t in traces
    ]  # fmt: skip
    write_rows(run.verdicts("math"), verdicts, Verdict)
    entry = {"counts": {}, "seconds": 2.0}
    (folder / "MANIFEST.json").write_text(json.dumps({"tasks": {"teach/math/ann": entry}}))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(json.loads(recipe.model_dump_json())))
    return folder


def _trace(name: str, problem: str, tokens: int) -> Trace:
    return Trace(
        name, problem, "math", "ann", 0, "", "", "stop", 10, tokens, 4.0, "", None, None
    )  # fmt: skip
