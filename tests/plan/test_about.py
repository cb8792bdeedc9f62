"""What teachers are asked about answers: hand-worked numbers, and what a real run asked."""

import math
import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cuvee.pipeline import run_stages
from cuvee.plan.estimate import estimate
from cuvee.plan.figures import Figure
from cuvee.plan.machine import Machine
from cuvee.plan.measured import NOTHING_YET
from cuvee.plan.reading import read
from cuvee.plan.rows import Plan, Row
from cuvee.recipe import Recipe, parse_recipe
from cuvee.runfolder import read_manifest
from cuvee.select.refine.asked import PROMPT as REFINE
from cuvee.verify.judge import PROMPT as JUDGE
from cuvee.verify.judge_rubric import PROMPT as RUBRIC

MACHINE = Machine(cores=2, ram=16 * 10**9, disk=50 * 10**9, gpus=())
API = {"url": "https://api.example.com/v1", "model": "m", "concurrency": 10,
       "usd_per_mtok": {"input": 1, "output": 10}}  # fmt: skip
GIVEN = ("prompt_tokens=50", "answer_tokens=200", "tokens_per_second=20", "pass_rate=0.5",
         "fit_rate=1", "alike=0")  # fmt: skip


def planned(domain: Mapping[str, Any], *assume: str, **changes: Any) -> Plan:
    """Return the plan of 100 problems, two answers each, and a second teacher `jo`."""
    data = {
        "name": "r",
        "base": "random:two-layer",
        "domains": {
            "sums": {
                "problems": [{"source": "generator:arithmetic", "count": 100}],
                "verifier": "math",
                "select": {"tokens": [100, 300], "target": 60},
                **domain,
            }
        },
        "teachers": [
            {"name": "t", "samples": 2, "sampling": {"max_tokens": 1000}, **API},
            {"name": "jo", "domains": [], **API},
        ],
        "train": {"max_tokens": 512, "launcher": {"cpu": True}},
        **changes,
    }
    recipe = parse_recipe(data, where="test")
    return estimate(recipe, measured=NOTHING_YET, assume=[*GIVEN, *assume], machine=MACHINE)


def row(plan: Plan, stage: str, name: str) -> Row:
    return next(row for row in plan.rows if (row.stage, row.name) == (stage, name))


def value(figure: Figure | None) -> float:
    assert figure is not None
    return figure.value


def test_a_judge_is_shown_what_an_answer_states_and_is_asked_once_of_each() -> None:
    plan = planned(
        {"verifier": "judge", "judge": "jo"}, "judged_rate=0.75", "stated_tokens=30",
        "judge_tokens=40",
    )  # fmt: skip
    judge = row(plan, "verify", "sums")
    assert value(judge.requests) == 100 * 2 * 0.75
    shown = len(JUDGE) / 4 + 50 + 30
    assert value(judge.prompt_tokens) == pytest.approx(150 * shown)
    assert value(judge.answer_tokens) == 150 * 40
    assert value(judge.usd) == pytest.approx((150 * shown * 1 + 6000 * 10) / 1e6)
    assert value(judge.hours) * 3600 == pytest.approx(150 * (40 / 20) / 10)


def test_a_rubric_is_asked_for_right_answers_as_often_as_its_samples_say() -> None:
    rubric = {"teacher": "jo", "samples": 3, "points": ["True.", "Clear."]}
    graded = row(planned({"rubric": rubric}, "grade_tokens=100"), "verify", "rubric/sums")
    assert value(graded.requests) == 100 * 2 * 0.5 * 3
    shown = (len(RUBRIC) + len("True.Clear.")) / 4 + 50 + 200
    assert value(graded.prompt_tokens) == pytest.approx(300 * shown)
    assert value(graded.answer_tokens) == 300 * 100
    assert graded.tasks == ("verify/rubric/sums",)


def test_a_refiner_is_asked_once_an_example_and_shortens_what_is_trained_on() -> None:
    plan = planned({"refine": {"teacher": "jo"}}, "refine_share=0.5")
    refine = row(plan, "select", "refine/sums")
    assert value(refine.requests) == 60  # of 75 that are expected, the target
    assert value(refine.prompt_tokens) == pytest.approx(60 * (len(REFINE) / 4 + 50 + 200))
    assert value(refine.answer_tokens) == 60 * 100
    train = row(plan, "train", "sums")
    assert train.answer_tokens is not None
    assert train.answer_tokens.value == pytest.approx(train.answer_tokens.high * 150 / 250)
    rules = row(planned({"refine": {"rules": True}}), "select", "refine/sums")
    assert value(rules.requests) == 0


def test_what_is_asked_about_answers_is_paid_from_the_budget() -> None:
    domain = {"rubric": {"teacher": "jo"}, "refine": {"teacher": "jo"}}
    (budget,) = planned(domain, budget={"requests": 360}).budget
    assert budget.needed is not None
    assert budget.needed.value == 200 + 100 + 60
    assert budget.words.endswith("needed")
    (budget,) = planned(domain, budget={"requests": 330}).budget
    assert budget.words.endswith("in select/refine/sums")


def test_an_engine_that_only_grades_is_a_misfit_of_the_stage_it_grades_in(tmp_path: Path) -> None:
    from cuvee.models.gguf_write import write_gguf
    from cuvee.models.random_model import write_random_model

    write_random_model(tmp_path / "m")
    write_gguf(tmp_path / "m", tmp_path / "m.gguf", quantization="F16")
    serve = {"engine": "llama.cpp", "model": str(tmp_path / "m.gguf"), "slots": 4000,
             "context": 65536}  # fmt: skip
    teachers = [{"name": "t", **API}, {"name": "jo", "domains": [], "serve": serve}]
    plan = planned({"rubric": {"teacher": "jo"}}, teachers=teachers)
    graded = row(plan, "verify", "rubric/sums")
    assert value(graded.memory) > MACHINE.ram
    (misfit,) = [m for m in plan.misfits if m.resource == "memory"]
    assert misfit.stage == "verify"
    assert misfit.nearest.startswith("teachers.jo.serve: {slots: ")
    # It is started for that: start_seconds, and its answers at a CPU's speed.
    started = planned({"rubric": {"teacher": "jo"}}, "start_seconds=1800", teachers=teachers)
    again = row(started, "verify", "rubric/sums")
    assert value(again.hours) - value(graded.hours) == pytest.approx((1800 - 20) / 3600)


def test_engines_over_a_cluster_need_nothing_of_this_machine() -> None:
    serve = {"engine": "vllm", "model": "m", "over": "ray", "replicas": 3,
             "args": {"tensor_parallel_size": 4}}  # fmt: skip
    teachers = [{"name": "t", "samples": 2, "serve": serve}, {"name": "jo", "domains": [], **API}]
    plan = planned({}, teachers=teachers)
    assert row(plan, "teach", "sums/t").gpus == 12
    assert not plan.misfits


def scripted(tmp_path: Path, *, limit: int | None = None) -> Recipe:
    """Return a recipe whose answers are judged, graded and refined by scripted teachers."""
    faults = ["wrong_result", "no_answer", "truncated"]
    quiet = {"http_faults": 0.0}
    data = {
        "name": "r",
        "base": "random:two-layer",
        "ledger": str(tmp_path / f"{limit}.sqlite"),
        "limit": limit,
        "domains": {
            "sums": {
                "problems": [{"source": "generator:arithmetic", "count": 24, "seed": 1}],
                "verifier": "judge",
                "judge": "jo",
                "rubric": {"teacher": "gus", "samples": 2},
                "refine": {"teacher": "ria"},
                "select": {"tokens": [1, 4000], "target": 20},
            }
        },
        "teachers": [
            {"name": "ann", "samples": 2, "scripted": quiet | {"skill": 0.6, "faults": faults}},
            *({"name": name, "domains": [], "scripted": quiet} for name in ("jo", "gus", "ria")),
        ],
    }
    return parse_recipe(data, where="test")


def asked_in(ledger: Path) -> int:
    """Return how many answers a ledger holds."""
    with closing(sqlite3.connect(ledger)) as connection:
        return int(connection.execute("SELECT count(*) FROM answers").fetchone()[0])


def requests_of(plan: Plan) -> Counter[str]:
    found: Counter[str] = Counter()
    for each in plan.rows:
        if each.stage in ("teach", "verify", "select") and each.requests is not None:
            found[f"{each.stage}/{each.name}"] = round(each.requests.value)
    return found


@pytest.mark.slow
def test_the_requests_of_a_pilot_s_plan_are_those_that_the_run_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stages = ("problems", "teach", "verify", "select")
    pilot, whole = scripted(tmp_path, limit=12), scripted(tmp_path)
    run_stages(pilot, tmp_path / "pilot", stages)
    same = estimate(
        pilot, measured=read(tmp_path / "pilot", pilot), assume=(), machine=MACHINE
    )  # fmt: skip
    assert sum(requests_of(same).values()) == asked_in(tmp_path / "12.sqlite")
    foretold = estimate(
        whole, measured=read(tmp_path / "pilot", whole), assume=(), machine=MACHINE
    )  # fmt: skip
    run_stages(whole, tmp_path / "whole", stages)
    done = estimate(whole, measured=read(tmp_path / "whole", whole), assume=(), machine=MACHINE)
    assert sum(requests_of(done).values()) == asked_in(tmp_path / "None.sqlite")
    taken = requests_of(done)
    assert set(taken) == {"teach/sums/ann", "verify/sums", "verify/rubric/sums", "select/sums",
                          "select/refine/sums"}  # fmt: skip
    for before in foretold.rows:
        name = f"{before.stage}/{before.name}"
        if taken[name]:
            assert before.requests is not None and before.prompt_tokens is not None
            assert math.floor(before.requests.low) <= taken[name] <= math.ceil(before.requests.high)
            after = row(done, before.stage, before.name)
            assert value(before.prompt_tokens) == pytest.approx(value(after.prompt_tokens), rel=0.4)
    ran = [each for each in done.rows if each.stage in stages]
    assert {each.done for each in ran if not each.name.startswith("benchmarks/")} == {True}
    took = {key: entry["seconds"] for key, entry in read_manifest(tmp_path / "whole").items()}
    for each in ran:  # with its own measurements a run's hours are those it took
        assert value(each.hours) * 3600 == pytest.approx(took[each.tasks[0]], rel=0.1, abs=0.1)
