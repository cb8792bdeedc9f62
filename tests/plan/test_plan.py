"""A plan by hand-worked numbers, what it says of each recipe, and its JSON's keys."""

import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cuvee.cli import app
from cuvee.errors import RecipeError
from cuvee.fit.serving import serving_memory
from cuvee.models.gguf_write import write_gguf
from cuvee.models.random_model import write_random_model
from cuvee.models.shape import shape_of
from cuvee.plan.assumptions import KINDS, parse
from cuvee.plan.estimate import estimate
from cuvee.plan.figures import Figure, known, mean_of, share_of
from cuvee.plan.machine import Machine
from cuvee.plan.measured import NOTHING_YET
from cuvee.plan.rows import Plan, Row
from cuvee.plan.yields import yield_of
from cuvee.recipe import parse_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
MACHINE = Machine(cores=2, ram=16 * 10**9, disk=50 * 10**9, gpus=())
SHAPE = {
    "model_type": "llama", "vocab_size": 1000, "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
    "tie_word_embeddings": True,
}  # fmt: skip
PARAMETERS = 2 * (4 * 64 * 64 + 3 * 64 * 128 + 2 * 64) + 1000 * 64 + 64


def planned(base: str, *assume: str, **changes: object) -> Plan:
    """Return the plan of 100 problems, one priced teacher of two samples, ten in flight."""
    recipe = {
        "name": "r",
        "base": base,
        "domains": {
            "math": {
                "problems": [{"source": "generator:arithmetic", "count": 100}],
                "verifier": "math",
                "select": {"tokens": [100, 300], "target": 60},
            }
        },
        "teachers": [
            {
                "name": "t", "url": "https://api.example.com/v1", "model": "m", "samples": 2,
                "concurrency": 10, "sampling": {"max_tokens": 1000},
                "usd_per_mtok": {"input": 1, "output": 10},
            }
        ],
        "train": {"epochs": 2, "max_tokens": 512, "launcher": {"cpu": True}},
        **changes,
    }  # fmt: skip
    opened = parse_recipe(recipe, where="test")
    return estimate(opened, measured=NOTHING_YET, assume=assume, machine=MACHINE)


@pytest.fixture
def base(tmp_path: Path) -> str:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps(SHAPE))
    return str(tmp_path / "base")


def row(plan: Plan, stage: str) -> Row:
    return next(row for row in plan.rows if row.stage == stage)


def value(figure: Figure | None) -> float:
    assert figure is not None
    return figure.value


def test_teaching_is_requests_times_tokens_times_prices(base: str) -> None:
    plan = planned(
        base, "prompt_tokens=50", "answer_tokens=200", "tokens_per_second=20", "pass_rate=0.5"
    )
    teach = row(plan, "teach")
    assert value(teach.requests) == 200
    assert value(teach.prompt_tokens) == 10_000
    assert value(teach.answer_tokens) == 40_000
    assert value(teach.usd) == pytest.approx(10_000 / 1e6 * 1 + 40_000 / 1e6 * 10)
    assert value(teach.hours) * 3600 == pytest.approx(200 * (200 / 20) / 10)


def test_examples_are_between_answers_all_alike_and_each_on_its_own(base: str) -> None:
    # q = 0.5 of two answers: alike 1/2 of the problems, apart 1 - 1/4.
    assert yield_of(0.5, 2, 1, alike=1.0) == pytest.approx(0.5)
    assert yield_of(0.5, 2, 1, alike=0.0) == pytest.approx(0.75)
    assert yield_of(0.5, 2, 2, alike=0.0) == pytest.approx(1.0)
    plan = planned(base, "pass_rate=0.5", "fit_rate=1", "alike=0.5")
    (expected,) = plan.expected
    assert value(expected.examples) == pytest.approx(62.5)
    assert "enough" in expected.words


def test_too_few_examples_are_said_with_how_many_problems_would_do(base: str) -> None:
    (expected,) = planned(base, "pass_rate=0.5", "fit_rate=0.5", "alike=1").expected
    assert value(expected.examples) == pytest.approx(25)
    assert expected.words == (
        "math: 60 asked, about 25 expected: raise samples or add problems "
        "(about 240 in all at this rate; there are 100)"
    )


def test_training_reads_epochs_times_examples_times_tokens(base: str) -> None:
    plan = planned(
        base, "pass_rate=1", "fit_rate=1", "prompt_tokens=50", "answer_tokens=200",
        "cpu_gflops=10", "start_seconds=1",
    )  # fmt: skip
    train = row(plan, "train")
    assert value(train.answer_tokens) == 2 * 60 * 250  # target 60
    layers = 2 * 2 * (4 * 64 * 64 + 3 * 64 * 128) * 4  # 2 layers, checkpointing: four passes
    each = layers + 4 * 2 * 64 * 512 * 4 + 2 * 64_000 * 3
    assert value(train.hours) * 3600 == pytest.approx(30_000 * each / 10e9 + 1)
    assert value(train.disk) == 4 * PARAMETERS
    assert value(train.scratch) == 3 * 12 * PARAMETERS  # two kept, one being written
    assert not plan.misfits


def test_the_budget_says_where_it_stops(base: str) -> None:
    given = ("prompt_tokens=50", "answer_tokens=200")
    (budget,) = planned(base, *given, budget={"usd": 0.205}).budget
    assert budget.words == (
        "budget.usd $0.2 is not enough, $0.41 needed: it stops at about 50% of the asking, in "
        "teach/math/t"
    )
    (budget,) = planned(base, *given, budget={"requests": 200}).budget
    assert budget.words == "budget.requests 200 is enough: 200 needed"


def test_a_training_that_does_not_fit_gets_the_fewest_gpus_that_do(tmp_path: Path) -> None:
    plan = planned("somebody/model-8B", train={"launcher": {"gpus": 1}})
    (memory, gpus, disk) = plan.misfits
    assert memory.needed == pytest.approx(8e9 * 16)
    assert "2 GPUs of 80 GB" in memory.nearest and "strategy: fsdp" in memory.nearest
    assert (gpus.needed, gpus.here) == (2, 0)
    assert disk.resource == "disk"
    assert any("memory is unknown" in note for note in plan.notes)


def test_unknown_problems_are_said_and_do_not_fail(base: str) -> None:
    domain = {"problems": [{"source": "a/b"}], "verifier": "math", "select": {"target": 10}}
    plan = planned(base, domains={"math": domain})
    assert row(plan, "teach").requests is None
    assert "unknown until loaded" in plan.expected[0].words
    assert value(row(plan, "train").answer_tokens) > 0  # sized by its target
    plan = planned(base, "problems.math=7", domains={"math": domain})
    assert value(row(plan, "teach").requests) == 14


def test_a_price_nobody_stated_leaves_the_dollars_unknown(base: str) -> None:
    teacher = {"name": "t", "url": "https://api.example.com/v1", "model": "m"}
    assert row(planned(base, teachers=[teacher]), "teach").usd is None
    plan = planned(base, teachers=[teacher | {"url": "http://127.0.0.1:8000/v1"}])
    assert value(row(plan, "teach").usd) == 0  # a server of one's own


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ("pas_rate=1", "did you mean 'pass_rate'"),
        ("pass_rate.maht=1", "did you mean 'math'"),
        ("pass_rate=2", "0 <= LOW <= HIGH <= 1"),
        ("pass_rate=0.7..0.5", "LOW <= HIGH"),
        ("tokens_per_second=0", "above 0"),
        ("answer_tokens=many", "not a number"),
        ("gpu_gb.math=80", "whole plan"),
        ("gpu_gb", "NAME=VALUE"),
    ],
)
def test_a_wrong_assumption_is_refused(wish: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        parse([wish], scopes=["math"])


def test_a_mean_has_the_interval_of_its_problems() -> None:
    found = mean_of([1.0, 2.0, 3.0], of=math.inf)
    assert (found.value, found.origin) == (2.0, "measured")
    assert found.high - 2 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-5)  # t, 2 degrees
    half = mean_of([1.0, 2.0, 3.0], of=6)
    assert half.high - 2 == pytest.approx((found.high - 2) * math.sqrt(0.5))
    assert mean_of([1.0, 2.0], of=2) == Figure(1.5, 1.5, 1.5, "measured")  # all of them
    share = share_of([1.0] * 6 + [0.0] * 4, samples=10, of=math.inf)
    assert share.low == pytest.approx(0.3127, abs=1e-4)
    assert share.high == pytest.approx(0.8318, abs=1e-4)


def test_ends_never_cross() -> None:
    a, b = Figure(2, 1, 4, "assumed"), Figure(5, 5, 6, "measured")
    assert a * b == Figure(10, 5, 24, "assumed")
    assert b / a == Figure(2.5, 1.25, 6, "assumed")
    assert known(0) + a == a


def serving(base: str, **serve: object) -> Plan:
    """Return the plan where the run's models are served by llama.cpp and scored."""
    return planned(base, evaluate={
        "benchmarks": {"gsm8k": 1}, "sampling": {"max_tokens": 100}, "serve": serve,
    })  # fmt: skip


def test_what_is_served_in_ram_is_counted_for_every_slot(base: str) -> None:
    shape = shape_of(Path(base))
    plan = serving(base, slots=3, context=512, quantization="F16")
    memory = row(plan, "evaluate").memory
    counted = serving_memory(shape, "F16", context=512, slots=3)
    # A header's padding apart, the file's tensors are what is in memory.
    assert value(memory) == pytest.approx(counted.total, rel=1e-3)
    cache = 2 * 2 * 64 * 3 * 512 * 2  # keys and values, layers, width, slots, tokens, f16
    assert counted.kv == cache
    assert memory is not None and memory.low < memory.value < memory.high
    assert value(row(plan, "teach").memory) == 0  # somebody else's server
    assert not plan.misfits


def test_engines_too_large_get_the_slots_the_type_or_the_machine_that_fit(tmp_path: Path) -> None:
    large = {**SHAPE, "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
             "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
             "tie_word_embeddings": False}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(large))  # Llama 2 7B: 7.2 GB in Q8_0

    def nearest(**serve: object) -> str:
        found = serving(str(tmp_path), **serve).misfits
        (misfit,) = [m for m in found if m.stage == "evaluate" and m.resource == "memory"]
        assert misfit.here == MACHINE.ram - 2_000_000_000
        return misfit.nearest

    # 0.5 MB a token: 1.07 GB a slot of 2,048.
    assert nearest(slots=16) == "evaluate.serve: {slots: 6}"
    assert nearest(slots=2, context=8192, quantization="F16") == (
        "evaluate.serve: {quantization: Q8_0, slots: 1}"
    )
    assert "a machine with 2" in nearest(slots=1, context=32768)
    assert "memory" not in {m.resource for m in serving(str(tmp_path), slots=1).misfits
                            if m.stage == "evaluate"}  # fmt: skip


def test_a_teacher_s_file_is_read_and_one_that_is_not_there_is_said(
    base: str, tmp_path: Path
) -> None:
    write_random_model(tmp_path / "m")
    write_gguf(tmp_path / "m", tmp_path / "m.gguf", quantization="F16")
    teachers = [
        {"name": name, "serve": {"engine": "llama.cpp", "model": str(file), "slots": 2}}
        for name, file in (("here", tmp_path / "m.gguf"), ("gone", tmp_path / "no.gguf"))
    ]
    plan = planned(base, teachers=teachers)
    here, gone = (r for r in plan.rows if r.stage == "teach")
    assert value(here.memory) > (tmp_path / "m.gguf").stat().st_size
    assert gone.memory is None
    assert any("teachers.gone.serve" in note for note in plan.notes)


@pytest.mark.parametrize("name", ["smoke", "demo", "fairyr1-32b", "tinyr1-32b"])
def test_every_recipe_has_a_plan_without_a_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    done = CliRunner().invoke(app, ["plan", str(RECIPES / f"{name}.yaml")])
    assert done.exit_code == 0, done.output
    assert max(len(line) for line in done.output.splitlines()) <= 100
    assert done.output.startswith(f"{name}: ")
    assert list(tmp_path.iterdir()) == []  # a plan changes nothing


def test_strict_fails_where_it_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    recipe = str(RECIPES / "fairyr1-32b.yaml")
    assert CliRunner().invoke(app, ["plan", recipe, "--strict"]).exit_code == 1
    recipe = str(RECIPES / "smoke.yaml")
    assert CliRunner().invoke(app, ["plan", recipe, "--strict"]).exit_code == 0
    short = ["plan", recipe, "--strict", "--set", "budget.requests=3"]
    done = CliRunner().invoke(app, short)
    assert "budget.requests 3 is not enough" in done.output
    assert done.exit_code == 1


def test_the_keys_of_the_json_are_stable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["plan", str(RECIPES / "smoke.yaml"), "--json"])
    found = json.loads(done.stdout)
    assert sorted(found) == [
        "assumptions", "budget", "expected", "fits", "headline", "left", "limit", "machine",
        "measured_in", "misfits", "name", "notes", "rows", "schema", "spent_usd", "total",
    ]  # fmt: skip
    assert sorted(found["rows"][0]) == [
        "answer_tokens", "disk", "done", "gpus", "hours", "memory", "name", "note",
        "prompt_tokens", "requests", "scratch", "stage", "tasks", "usd",
    ]  # fmt: skip
    assert sorted(found["rows"][0]["hours"]) == ["high", "low", "origin", "value"]
    assert sorted(found["assumptions"][0]) == ["given", "high", "low", "name", "value", "words"]
    assert found["schema"] == 1
    assert {each["name"].partition(".")[0] for each in found["assumptions"]} <= set(KINDS)
