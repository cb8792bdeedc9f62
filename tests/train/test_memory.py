"""The estimate: what it adds up to, how it moves, and the peak of real trainings."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.models.shape import ModelShape
from cuvee.recipe import Train
from cuvee.train.duration import Speed, operations, seconds
from cuvee.train.memory import Memory, estimate, fullest, table

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "memory.py"
GGUF = Path(__file__).parents[2] / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
PARTS = ("weights", "gradients", "optimizer", "activations", "logits", "overhead")

QWEN_32B = ModelShape(
    architecture="qwen2",
    vocabulary=152064,
    hidden=5120,
    intermediate=27648,
    layers=64,
    heads=40,
    key_value_heads=8,
    head_size=128,
    tied=False,
    biased=("attn_q", "attn_k", "attn_v"),
)


def settings(**changed: Any) -> Train:
    return Train.model_validate({"batch_size": 32, "max_tokens": 16384, **changed})


def on(strategy: str, **changed: Any) -> Train:
    return settings(launcher={"gpus": 8, "nodes": 4, "strategy": strategy}, **changed)


def of_32b(train: Train, *, length: int = 16384, processes: int = 32) -> Memory:
    return estimate(QWEN_32B, train, lengths=[length], processes=processes, device="cuda")


def test_the_32b_has_the_parameters_its_card_says() -> None:
    assert QWEN_32B.parameters == 32_763_876_352  # 32.8e9; 31.0e9 outside the embedding


@given(
    length=st.integers(16, 40_000),
    micro=st.integers(1, 4),
    strategy=st.sampled_from(("ddp", "fsdp", "zero3")),
    packing=st.booleans(),
    checkpointing=st.booleans(),
    rank=st.sampled_from((None, 8)),
    weights=st.sampled_from(("fp32", "bf16")),
    device=st.sampled_from(("cpu", "cuda")),
)
def test_parts_are_at_least_nothing_and_add_up(
    length: int, micro: int, rank: int | None, device: Any, **chosen: Any
) -> None:
    train = on(
        chosen["strategy"],
        micro_batch=micro,
        batch_size=micro * 64,
        packing=chosen["packing"],
        gradient_checkpointing=chosen["checkpointing"],
        weights=chosen["weights"],
        lora=None if rank is None else {"rank": rank},
    )
    found = estimate(QWEN_32B, train, lengths=[length, length // 2], processes=32, device=device)
    parts = [getattr(found, part) for part in PARTS]
    assert sum(parts) == found.total
    assert min(parts) >= 0
    assert all(isinstance(part, int) for part in parts)


def test_a_trained_weight_takes_sixteen_bytes_in_float32_and_eight_in_bfloat16() -> None:
    tiny_rows = {"length": 16, "processes": 1}
    full = of_32b(settings(precision="fp32"), **tiny_rows)
    assert full.optimizer == 8 * QWEN_32B.parameters
    assert full.weights == 4 * QWEN_32B.parameters
    half = of_32b(settings(weights="bf16"), **tiny_rows)
    assert half.optimizer == 4 * QWEN_32B.parameters
    assert half.weights == 2 * QWEN_32B.parameters


@pytest.mark.parametrize("strategy", ["fsdp", "zero3"])
def test_shards_hold_a_part_of_optimizer_and_ddp_all_of_it(strategy: str) -> None:
    whole, part = of_32b(on("ddp")), of_32b(on(strategy))
    assert part.optimizer == whole.optimizer // 32
    assert part.weights < whole.weights
    assert part.total < whole.total


def test_ddp_holds_its_gradients_twice() -> None:
    one = of_32b(settings(), processes=1)
    assert of_32b(on("ddp"), processes=32).gradients >= one.gradients * 3 // 2


def test_checkpointing_saves_activations_at_the_cost_of_time() -> None:
    with_it, without = on("fsdp"), on("fsdp", gradient_checkpointing=False)
    assert of_32b(with_it).activations < of_32b(without).activations / 10
    cost = [operations(QWEN_32B, tokens=1, row=16384, train=train) for train in (with_it, without)]
    assert 1.2 < cost[0] / cost[1] < 4 / 3


def test_lora_takes_no_gradients_of_frozen_weights() -> None:
    found = of_32b(settings(lora={"rank": 16}), processes=1)
    adapters = QWEN_32B.adapter_parameters(16)
    assert found.optimizer == 8 * adapters
    assert found.gradients <= 4 * adapters
    assert found.weights >= 4 * (QWEN_32B.parameters + adapters)


def test_packing_with_a_mask_grows_with_the_square_of_the_row() -> None:
    train = on("fsdp", gradient_checkpointing=False)
    single = of_32b(train, length=8192).activations
    assert of_32b(train, length=32768).activations > 4.4 * single
    plain = on("fsdp", gradient_checkpointing=False, packing=False)
    assert of_32b(plain, length=32768).activations == pytest.approx(
        4 * of_32b(plain, length=8192).activations, rel=0.01
    )


def test_flash_attention_keeps_no_mask() -> None:
    train = on("fsdp", gradient_checkpointing=False)
    flash = estimate(
        QWEN_32B, train, lengths=[16384], processes=32, device="cuda", attention="flash"
    )
    unmasked = train.model_copy(update={"packing": False})
    assert flash.activations == of_32b(unmasked).activations
    assert flash.activations < of_32b(train).activations
    assert not any("mask" in said for said in flash.assumptions)


def test_sequence_parallel_divides_the_row() -> None:
    launcher = {"gpus": 8, "nodes": 4, "strategy": "zero3", "sequence_parallel": 4}
    train = settings(packing=False, launcher=launcher)
    batch = fullest(train, [100, 1000])
    assert (batch.rows, batch.width, batch.masked) == (1, 250, False)


def test_the_fullest_micro_batch_is_packed_into_one_row_or_padded_to_the_longest() -> None:
    packed = fullest(settings(micro_batch=2), [10, 30, 20])
    assert (packed.rows, packed.width, packed.masked) == (1, 50, True)
    padded = fullest(settings(micro_batch=2, packing=False), [10, 30, 20])
    assert (padded.rows, padded.width, padded.masked) == (2, 30, True)
    equal = fullest(settings(micro_batch=2, packing=False), [30, 30])
    assert (equal.rows, equal.width, equal.masked) == (2, 30, False)
    with pytest.raises(ValueError, match="at least one row"):
        fullest(settings(), [])


def test_the_table_has_every_strategy_and_marks_the_recipe_s() -> None:
    rows = table(QWEN_32B, on("fsdp"), lengths=[16384], processes=32)
    assert len(rows) == 6
    assert [(r["strategy"], r["gradient_checkpointing"]) for r in rows if r["chosen"]] == [
        ("fsdp", True)
    ]
    assert rows[0]["total"] == of_32b(on("ddp")).total
    assert json.loads(json.dumps(rows)) == rows


def test_operations_of_a_token_by_hand() -> None:
    shape = dataclasses.replace(QWEN_32B, layers=1, vocabulary=10, biased=())
    matrices = 5120 * (5120 + 1024 + 1024 + 5120 + 3 * 27648)
    plain = settings(gradient_checkpointing=False)
    by_hand = 6 * (matrices + 10 * 5120) + 12 * 5120 * 100
    assert operations(shape, tokens=1, row=100, train=plain) == by_hand
    again = 8 * matrices + 6 * 10 * 5120 + 16 * 5120 * 100
    assert operations(shape, tokens=1, row=100, train=settings()) == again


def test_time_is_operations_over_speed() -> None:
    speed = Speed(operations=1e15, share=0.5, source="")
    train = settings()
    needed = operations(QWEN_32B, tokens=1000, row=500, train=train)
    took = seconds(QWEN_32B, tokens=1000, row=500, train=train, processes=8, speed=speed)
    assert took == pytest.approx(needed / 4e15)


def compared(*arguments: str) -> list[dict[str, Any]]:
    """Run the benchmark; return its rows."""
    command = [sys.executable, str(BENCHMARK), "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_close(row: dict[str, Any]) -> None:
    ratio = row["estimated_growth"] / row["growth"]
    assert 0.8 <= ratio <= 1.2, row


@pytest.fixture
def pages_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each tensor its own pages: what is measured is what is allocated, without holes."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")


@pytest.mark.slow
@pytest.mark.usefixtures("pages_of_their_own")
@pytest.mark.parametrize("shape", ["llama", "qwen2", "qwen3", "packed", "lora"])
def test_estimate_is_within_a_fifth_of_the_measured_growth(shape: str) -> None:
    (row,) = compared("--shapes", shape)
    assert_close(row)


@pytest.mark.slow
@pytest.mark.usefixtures("pages_of_their_own")
@pytest.mark.skipif(not GGUF.is_file(), reason=f"{GGUF} is not there")
def test_estimate_is_within_a_fifth_for_a_real_model(tmp_path: Path) -> None:
    from cuvee.models.gguf_read import read_gguf

    folder = tmp_path / "smollm2"
    folder.mkdir()
    read_gguf(GGUF, folder)
    for row in compared("--model", str(folder), "--tokens", "512"):
        assert_close(row)
