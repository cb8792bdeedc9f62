"""`mode: mergekit` against mergekit 0.1.5 itself, and where the exact mode differs on purpose."""

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from cuvee.merge.blocks import apply, stack_of
from cuvee.merge.config.read import parse_config
from cuvee.merge.diagnostics.record import Merged
from cuvee.merge.kernels import LANES
from cuvee.merge.methods import fusion_mergekit
from cuvee.merge.methods.divergence import MOMENTS, row_divergence
from cuvee.merge.methods.fusion import arcee_fusion
from cuvee.merge.stream import merge

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "numpy.core", DeprecationWarning)  # mergekit's own
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.merge_methods import arcee_fusion as oracle
    from mergekit.merge_methods import merge_tensors
    from mergekit.options import MergeOptions

Weights = dict[str, Tensor]
CONFIGS = {"llama": LlamaConfig, "qwen2": Qwen2Config}
LARGE = {"hidden_size": 256, "intermediate_size": 4000, "num_hidden_layers": 1}
"""Three matrices of 1,024,000 elements: sampled, since they have more than a million."""
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}


def write_models(
    folder: Path, *, names: str, dtype: str, sizes: Mapping[str, int], kind: str = "llama"
) -> list[str]:
    """Write checkpoints that are a few fine-tuning steps apart; return their folders."""
    config = CONFIGS[kind](
        vocab_size=300, num_attention_heads=4, num_key_value_heads=2, bos_token_id=None,
        eos_token_id=1, pad_token_id=0, dtype=dtype, tie_word_embeddings=kind == "llama", **sizes,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float()
    model.config.architectures = [type(model).__name__]
    for number, name in enumerate(names):
        generator = torch.Generator().manual_seed(number)
        weights = {
            key: (value.detach() + 1e-3 * torch.randn(value.shape, generator=generator)).to(
                getattr(torch, dtype)
            )
            for key, value in model.named_parameters()
        }
        model.config.save_pretrained(folder / name)
        save_file(weights, folder / name / "model.safetensors", metadata={"format": "pt"})
    return [str(folder / name) for name in names]


def load(folder: Path) -> Weights:
    return {key: value for f in folder.glob("*.safetensors") for key, value in load_file(f).items()}


def fusion_yaml(models: list[str], **keys: str) -> dict[str, Any]:
    """Return the YAML of a fusion of two models with the second as the anchor."""
    listed = [{"model": model} for model in models]
    return {"merge_method": "arcee_fusion", "models": listed, "base_model": models[1], **keys}


def theirs(yaml: dict[str, Any], out: Path, *, seed: int | None) -> Weights:
    options = MergeOptions(
        random_seed=seed, quiet=True, copy_tokenizer=False, write_model_card=False
    )
    run_merge(MergeConfiguration.model_validate(yaml), str(out), options)
    return load(out)


def ours(yaml: dict[str, Any], out: Path, **keys: Any) -> tuple[Weights, Merged]:
    config = parse_config({**yaml, "mode": "mergekit", **keys}, where="config")
    merged = merge(config, out, threads=2)
    return load(out), merged


def share_equal(a: Weights, b: Weights) -> float:
    """Return the share of elements that are equal in value; the tensors must be the same."""
    assert {k: (v.shape, v.dtype) for k, v in a.items()} == {
        k: (v.shape, v.dtype) for k, v in b.items()
    }
    equal = sum(int((value == b[key]).sum()) for key, value in a.items())
    return equal / sum(value.numel() for value in a.values())


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


# --- whole checkpoints against mergekit 0.1.5


@pytest.mark.parametrize(("kind", "dtype"), [("llama", "bfloat16"), ("qwen2", "float32")])
def test_a_merge_with_sampled_tensors_is_mergekit_s(tmp_path: Path, kind: str, dtype: str) -> None:
    models = write_models(tmp_path, names="ab", dtype=dtype, sizes=LARGE, kind=kind)
    yaml = fusion_yaml(models, dtype=dtype, out_dtype=dtype)
    found = []
    for seed in (0, 1):
        expected = theirs(yaml, tmp_path / f"theirs {seed}", seed=seed)
        result, merged = ours(yaml, tmp_path / f"ours {seed}", seed=seed, version="0.1.5")
        assert sum(value.numel() > fusion_mergekit.SAMPLE for value in result.values()) == 3
        # All of them where torch's kernels are the same; softmax may differ on other machines.
        assert share_equal(result, expected) >= 0.999
        assert merged.adopted > 0
        found.append(result)
    if dtype == "float32":  # bfloat16 scores are so coarse that both samples may agree
        assert share_equal(*found) < 1


def test_tensors_draw_in_the_order_of_mergekit_s_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Twelve layers: by name, layers 10 and 11 come before layer 2. All tensors are sampled.
    monkeypatch.setattr(oracle, "_QUANTILE_SAMPLE_SIZE", 20)
    monkeypatch.setattr(fusion_mergekit, "SAMPLE", 20)
    sizes = SMALL | {"num_hidden_layers": 12}
    models = write_models(tmp_path, names="ab", dtype="float32", sizes=sizes, kind="qwen2")
    yaml = fusion_yaml(models, dtype="float32", out_dtype="float32")
    expected = theirs(yaml, tmp_path / "theirs", seed=3)
    result, _ = ours(yaml, tmp_path / "ours", seed=3)
    assert len(result) > 100
    assert share_equal(result, expected) >= 0.999
    another, _ = ours(yaml, tmp_path / "another", seed=4)
    assert share_equal(another, expected) < 0.999


DTYPES = [
    ("float32", "bfloat16", "bfloat16"),
    ("float32", "bfloat16", "float32"),  # mergekit's result is float32 until it is written
    ("float32", "float16", "bfloat16"),
    ("float32", "float16", "float16"),
    ("bfloat16", "float32", "bfloat16"),
    ("bfloat16", "float32", "float16"),
    ("float16", "bfloat16", "float16"),
]


@pytest.mark.parametrize(("stored", "dtype", "out_dtype"), DTYPES)
def test_any_dtypes_of_files_arithmetic_and_result_are_followed(
    tmp_path: Path, stored: str, dtype: str, out_dtype: str
) -> None:
    models = write_models(tmp_path, names="ab", dtype=stored, sizes=SMALL)
    yaml = fusion_yaml(models, dtype=dtype, out_dtype=out_dtype)
    expected = theirs(yaml, tmp_path / "theirs", seed=0)
    assert share_equal(ours(yaml, tmp_path / "ours")[0], expected) >= 0.999


@pytest.mark.parametrize("out_dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize(
    "stored", [("float32", "float32"), ("bfloat16",) * 2, ("bfloat16", "float32")]
)
def test_without_a_dtype_the_files_dtypes_are_computed_in(
    tmp_path: Path, stored: tuple[str, str], out_dtype: str
) -> None:
    models = write_models(tmp_path, names="ab", dtype="float32", sizes=SMALL)
    for model, dtype in zip(models, stored, strict=True):
        file = Path(model, "model.safetensors")
        weights = {key: value.to(getattr(torch, dtype)) for key, value in load_file(file).items()}
        save_file(weights, file, metadata={"format": "pt"})
    yaml = fusion_yaml(models, out_dtype=out_dtype)
    expected = theirs(yaml, tmp_path / "theirs", seed=0)
    assert share_equal(ours(yaml, tmp_path / "ours")[0], expected) >= 0.999


def test_a_chain_of_three_is_two_runs_of_mergekit(tmp_path: Path) -> None:
    math, science, code = write_models(tmp_path, names="msc", dtype="bfloat16", sizes=LARGE)
    dtypes = {"dtype": "bfloat16", "out_dtype": "bfloat16"}
    mid = str(tmp_path / "mid")
    theirs(fusion_yaml([math, science], **dtypes), tmp_path / "mid", seed=1)
    expected = theirs(fusion_yaml([mid, code], **dtypes), tmp_path / "theirs", seed=1)
    listed = [{"model": model} for model in (code, math, science)]
    yaml = {"merge_method": "arcee_fusion", "models": listed, **dtypes}
    result, merged = ours(
        yaml, tmp_path / "ours", order=[math, science, code], anchor="later", seed=1
    )
    assert share_equal(result, expected) >= 0.999
    earlier, _ = ours(yaml, tmp_path / "e", order=[code, science, math], anchor="earlier", seed=1)
    assert share_equal(earlier, expected) < 0.999
    assert merged.adopted > 0


def test_earlier_as_the_anchor_is_the_other_base_model(tmp_path: Path) -> None:
    a, b = write_models(tmp_path, names="ab", dtype="bfloat16", sizes=SMALL)
    yaml = fusion_yaml([b, a], dtype="bfloat16", out_dtype="bfloat16")  # a is the anchor
    expected = theirs(yaml, tmp_path / "theirs", seed=0)
    del yaml["base_model"]
    result, _ = ours(yaml, tmp_path / "ours", order=[a, b], anchor="earlier")
    assert share_equal(result, expected) >= 0.999


# --- version 0.1.0: two permutations a tensor


def fused_as_0_1_0(anchor: Tensor, other: Tensor) -> Tensor:
    """Return the fusion up to 0.1.4, written from its description: torch's own generator draws."""
    if anchor.numel() == 0:
        return anchor
    p, q = (torch.softmax(values, dim=-1) + 1e-8 for values in (other, anchor))
    importance = (other - anchor).abs() * (p * (p / q).log()).sum(dim=-1, keepdim=True)

    def quantiles(shares: list[float]) -> Tensor:
        flat = importance.flatten()
        if flat.numel() > 1_000_000:
            flat = flat[torch.randperm(flat.numel())[:1_000_000]]
        return flat.sort().values[(torch.tensor(shares) * (flat.numel() - 1)).long()]

    median = quantiles([0.5])[0]
    q1, q3 = quantiles([0.25, 0.75])
    mask = (importance >= median + 1.5 * (q3 - q1)).float()
    fused: Tensor = anchor + (other - anchor) * mask
    return fused


@pytest.mark.parametrize(("dtype", "seed"), [("bfloat16", 1), ("float32", 0)])
def test_version_0_1_0_draws_two_permutations_a_tensor_in_order_of_names(
    tmp_path: Path, dtype: str, seed: int
) -> None:
    models = write_models(tmp_path, names="ab", dtype=dtype, sizes=LARGE)
    other, anchor = (load(Path(model)) for model in models)
    with seeded(seed):
        expected = {
            name: fused_as_0_1_0(anchor[name], other[name]).to(getattr(torch, dtype))
            for name in sorted(anchor)
        }
    yaml = fusion_yaml(models, dtype=dtype, out_dtype=dtype)
    result, _ = ours(yaml, tmp_path / "old", seed=seed, version="0.1.0")
    assert share_equal(result, expected) >= 0.999
    if dtype == "float32":
        newer, _ = ours(yaml, tmp_path / "new", seed=seed, version="0.1.5")
        assert share_equal(newer, result) < 1


# --- tensors of any shape


@pytest.mark.parametrize("version", ["0.1.0", "0.1.5"])
@pytest.mark.parametrize("shape", [(), (1,), (99,), (3, 1), (5, 7), (2, 3, 4), (0, 5), (0,)])
def test_tensors_of_any_shape_are_mergekit_s(shape: tuple[int, ...], version: Any) -> None:
    generator = np.random.default_rng(0)
    a, b = (np.asarray(generator.normal(size=shape), np.float32) for _ in range(2))
    stack = stack_of([b, a])
    draws = fusion_mergekit.generators(0, 1)
    rule = fusion_mergekit.arcee_fusion_mergekit(
        stack,
        anchor="later",
        version=version,
        dtype="float32",
        file_dtype="float32",
        draws=draws,
    )
    result = apply(stack, rule).reshape(shape)
    if not a.size:
        assert result.shape == shape
        return
    expected = merge_tensors(
        [torch.from_numpy(a), torch.from_numpy(b)], "arcee_fusion", base_index=0
    )
    assert np.array_equal(result, expected.numpy())


# --- where the exact mode differs, on purpose


def pair(
    dtype: torch.dtype, *, update: float, shape: tuple[int, int] = (256, 1024)
) -> list[Tensor]:
    """Return an anchor with weights of usual size, and the same after a small update."""
    generator = torch.Generator().manual_seed(0)
    a = 0.02 * torch.randn(shape, generator=generator)
    return [a.to(dtype), (a + update * torch.randn(shape, generator=generator)).to(dtype)]


def exactly(a: Tensor, b: Tensor) -> Tensor:
    stack = stack_of([b.float().numpy(), a.float().numpy()])
    return torch.from_numpy(apply(stack, arcee_fusion(stack, anchor="later")))


def share_of_other(result: Tensor, a: Tensor, b: Tensor) -> float:
    """Return the share taken from `b` of the elements in which the two differ."""
    return float((result == b)[a != b].float().mean())


def test_float16_inputs_are_nearly_copied_by_mergekit_and_not_by_the_exact_mode() -> None:
    # |delta| KL falls below float16's smallest number: all scores and the threshold are 0.
    a, b = pair(torch.float16, update=1e-4)
    mergekits = merge_tensors([a, b], "arcee_fusion", base_index=0)
    assert share_of_other(mergekits, a, b) > 0.9
    assert share_of_other(exactly(a, b), a, b) < 0.5


def test_small_float32_updates_give_mergekit_negative_rows_and_the_exact_mode_none() -> None:
    a, b = pair(torch.float32, update=1e-4)
    rows = oracle._compute_importance(b, a).sum(-1)
    assert (rows < 0).float().mean() > 0.3
    work = np.empty((MOMENTS, LANES), np.float32), np.empty((5, a.shape[1]), np.float32)
    pairs = zip(a.numpy(), b.numpy(), strict=True)
    assert min(row_divergence(*rows, *work)[0] for rows in pairs) > 0
    # A row that counts as negative is never adopted from, however much it moved.
    mergekits = merge_tensors([a, b], "arcee_fusion", base_index=0)
    untouched = (mergekits == a).all(-1)
    assert untouched.float().mean() > 0.3
    assert not (exactly(a, b) == a).all(-1).any()


def test_unseeded_runs_differ_in_mergekit_and_not_in_the_exact_mode() -> None:
    a, b = pair(torch.float32, update=1e-3, shape=(1001, 1000))
    with seeded(0):  # the second run goes on in the stream of the first, as any process might
        one, two = (merge_tensors([a, b], "arcee_fusion", base_index=0) for _ in range(2))
    assert not torch.equal(one, two)
    assert torch.equal(exactly(a, b), exactly(a, b))


def test_a_bfloat16_config_gives_float32_files_in_mergekit_and_bfloat16_ones_here(
    tmp_path: Path,
) -> None:
    models = write_models(tmp_path, names="ab", dtype="bfloat16", sizes=SMALL)
    yaml = fusion_yaml(models, dtype="bfloat16")
    expected = theirs(yaml, tmp_path / "theirs", seed=0)
    assert {value.dtype for value in expected.values()} == {torch.float32}
    said = json.loads((tmp_path / "theirs" / "config.json").read_text())
    assert said.get("dtype", said.get("torch_dtype")) == "bfloat16"
    result, _ = ours(yaml, tmp_path / "ours")
    assert {value.dtype for value in result.values()} == {torch.bfloat16}
    assert share_equal(result, {k: v.bfloat16() for k, v in expected.items()}) >= 0.999


# --- torch


def test_the_exact_mode_imports_neither_torch_nor_transformers(tmp_path: Path) -> None:
    models = write_models(tmp_path, names="ab", dtype="bfloat16", sizes=SMALL)
    program = """
import json, sys
from pathlib import Path
from cuvee.merge.config.read import parse_config
from cuvee.merge.stream import merge
yaml, out = json.loads(sys.argv[1]), Path(sys.argv[2])
merge(parse_config(yaml, where="config"), out, threads=2)
print(sorted({"torch", "transformers"} & sys.modules.keys()))
"""

    yaml = json.dumps(fusion_yaml(models))
    command = [sys.executable, "-c", program, yaml, str(tmp_path / "merged")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
