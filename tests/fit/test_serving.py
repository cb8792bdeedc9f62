"""Memory, layers on a GPU and speed: worked by hand, measured, and published."""

import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cuvee.cli import app
from cuvee.errors import DataError, RecipeError
from cuvee.fit.overview import Machine, Wanted, chosen, headline, nearest, overview
from cuvee.fit.serving import (
    kv_bytes,
    largest_context,
    layers_on_gpu,
    serving_memory,
    working_bytes,
)
from cuvee.fit.speed import GIB, RAM_SHARE, Bandwidth, bytes_of, gpu_of, tokens_per_second
from cuvee.models.shape import LINEAR, ModelShape

QWEN_32B = ModelShape(
    architecture="qwen2", vocabulary=152064, hidden=5120, intermediate=27648, layers=64, heads=40,
    key_value_heads=8, head_size=128, tied=False, biased=LINEAR[:3], context=131072,
)  # fmt: skip
SMOLLM = ModelShape(
    architecture="llama", vocabulary=49152, hidden=576, intermediate=1536, layers=30, heads=9,
    key_value_heads=3, head_size=64, tied=True, context=8192,
)  # fmt: skip
QWEN_1B = ModelShape(
    architecture="qwen2", vocabulary=151936, hidden=1536, intermediate=8960, layers=28, heads=12,
    key_value_heads=2, head_size=128, tied=False, biased=LINEAR[:3], context=32768,
)  # fmt: skip
MIB = 1 << 20
RAM = Bandwidth(76.8e9, RAM_SHARE, "four channels of DDR4-2400")


@pytest.mark.parametrize(
    ("shape", "context", "slots", "kv", "compute", "output"),
    [
        (SMOLLM, 2048, 1, 45.00, 16.64, 0.19),
        (SMOLLM, 2048, 4, 180.00, 16.64, 0.75),
        (SMOLLM, 8192, 1, 180.00, 22.64, 0.19),
        (SMOLLM, 4096, 2, 180.00, 18.64, 0.38),
        (QWEN_1B, 2048, 1, 56.00, 69.52, 0.58),
        (QWEN_1B, 8192, 1, 224.00, 75.52, 0.58),
    ],
)
def test_buffers_are_those_of_llama_cpps_log(
    shape: ModelShape, context: int, slots: int, kv: float, compute: float, output: float
) -> None:
    """Read in the log of xllamacpp 2026.10 on a CPU, in MiB."""
    assert kv_bytes(shape, context=context, slots=slots) == kv * MIB
    said = working_bytes(shape, context=context, slots=slots) / MIB
    assert said == pytest.approx(compute + output, abs=0.03)


def test_the_process_grows_by_what_is_said() -> None:
    """SmolLM2 in bf16, 4 slots of 2,048: measured 225.6 MB beside the file, 8.5 before."""
    said = serving_memory(SMOLLM, "BF16", context=2048, slots=4)
    assert said.total == said.weights + said.kv + said.working
    assert said.total - said.weights == pytest.approx(225.6e6, rel=0.25)
    assert said.weights + 225.6e6 == pytest.approx(said.total, rel=0.1)


def test_a_smaller_cache_type_and_rounding_up_by_256() -> None:
    whole = kv_bytes(SMOLLM, context=256, slots=1)
    assert kv_bytes(SMOLLM, context=1, slots=1) == whole == 30 * 2 * 192 * 256 * 2
    assert kv_bytes(SMOLLM, context=256, slots=1, kv="q8_0") == whole * 17 // 32
    with pytest.raises(DataError, match="known are f32, f16"):
        kv_bytes(SMOLLM, context=1, slots=1, kv="int3")


@pytest.mark.parametrize("shape", [SMOLLM, QWEN_1B, QWEN_32B], ids=lambda s: str(s.hidden))
def test_more_memory_never_takes_fewer_layers_and_nothing_is_lost(shape: ModelShape) -> None:
    before = -1
    for gpu in (0, GIB, 2 * GIB, 8 * GIB, 24 * GIB, 80 * GIB):
        placed = layers_on_gpu(shape, "Q4_K_M", gpu=gpu, context=4096, slots=2)
        assert placed.gpu_layers >= before
        assert placed.gpu <= gpu
        cache = kv_bytes(shape, context=4096, slots=2)
        assert abs(placed.gpu_kv + placed.ram_kv - cache) < shape.layers
        before = placed.gpu_layers
    assert before == shape.layers + 1


def test_the_largest_context_fits_and_the_next_does_not() -> None:
    ram = 30 * GIB
    found = largest_context(QWEN_32B, "Q4_K_M", gpu=0, ram=ram, slots=2)
    assert 0 < found < 131072
    assert layers_on_gpu(QWEN_32B, "Q4_K_M", gpu=0, context=found, slots=2).ram <= ram
    assert layers_on_gpu(QWEN_32B, "Q4_K_M", gpu=0, context=found + 256, slots=2).ram > ram


def test_the_reported_speed_of_a_32b_on_8_gb_and_64_gb() -> None:
    """1.62 tokens/s: Q8_0 with Ollama, RTX 4060 Ti of 8 GB, E5-2680 v4 (76.8 GB/s at most).

    Tolerance: 25 %. The report does not say how many memory channels were filled.
    """
    gpu, bandwidth = gpu_of("rtx 4060 ti")
    placed = layers_on_gpu(QWEN_32B, "Q8_0", gpu=gpu, context=4096, slots=1)
    pace = tokens_per_second(placed, ram=RAM, gpu=bandwidth)
    assert pace.tokens == pytest.approx(1.62, rel=0.25)
    assert pace.low < 1.62 < pace.high


def test_what_does_not_fit_names_the_nearest_that_does() -> None:
    machine = Machine(gpu=0, ram=24 * GIB, ram_bandwidth=RAM)
    wanted = Wanted(context=8192, slots=4)
    rows = overview(QWEN_32B, machine, wanted, types=["Q8_0", "Q4_K_M", "Q2_K"])
    q8 = rows[0]
    assert not q8.fits
    assert "fit" in headline(chosen(rows), wanted)
    assert any(line.startswith("Q8_0 fits with") for line in nearest(
        QWEN_32B, machine, wanted, row=q8, rows=rows))  # fmt: skip
    more = dataclasses.replace(machine, ram=machine.ram + q8.short)
    assert chosen(overview(QWEN_32B, more, wanted, types=["Q8_0"])).fits


def test_sizes_and_names_of_gpus_are_read_or_refused() -> None:
    assert bytes_of("8GB") == bytes_of("8 GiB") == bytes_of("8") == 8 * GIB
    assert gpu_of("NVIDIA RTX 3070")[0] == 8 * GIB
    for wrong in ("much", "-1GB", "nan"):
        with pytest.raises(RecipeError):
            gpu_of(wrong)


def test_the_command_answers_in_json_and_refuses_by_name(tmp_path: Path) -> None:
    config = {
        "model_type": "qwen2", "vocab_size": 1024, "hidden_size": 512, "intermediate_size": 1024,
        "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2,
    }  # fmt: skip
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config))
    options = ["--gpu", "8GB", "--ram", "8GB", "--ram-bandwidth", "50", "--json"]
    done = CliRunner().invoke(app, ["fit", str(file), *options])
    assert done.exit_code == 0, done.output
    said = json.loads(done.output)
    assert {row["quantization"] for row in said["types"]} >= {"F32", "Q8_0", "Q4_K_M"}
    assert {row["way"] for row in said["training"]} == {"full", "LoRA 32"}
    for flag in ("--gpus", "--row-tokens", "--gpu-bandwidth"):
        without = CliRunner().invoke(app, ["fit", str(file), "--ram-bandwidth", "50", flag, "4"])
        assert without.exit_code == 2
        assert f"{flag}: only with --gpu" in without.output
    file.write_text(json.dumps({**config, "model_type": "mixtral"}))
    refused = CliRunner().invoke(app, ["fit", str(file), *options])
    assert refused.exit_code != 0
    assert "mixtral" in refused.output
