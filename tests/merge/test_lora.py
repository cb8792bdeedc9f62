"""Adapters as PEFT writes them: the same weights as merge_and_unload, or a refusal by name."""

import json
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config

from cuvee.errors import MergeError
from cuvee.merge.inputs.headers import Checkpoint, read_headers
from cuvee.merge.inputs.lora import Adapter, LowRank, add_low_rank, read_adapter
from cuvee.merge.inputs.lora_options import rank_and_scale
from cuvee.models.random_model import write_random_model

pytestmark = pytest.mark.filterwarnings(
    "ignore:Setting `save_embedding_layers`:UserWarning",
    "ignore:Model (with|has) `tie_word_embeddings=True`:UserWarning",
    "ignore:fan_in_fan_out is set to False:UserWarning",
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
)
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints: llama and qwen2 (its attention has biases) untied, and llama tied."""
    folder = tmp_path_factory.mktemp("bases")
    write_random_model(folder / "llama", architecture="llama", tied=False)
    write_random_model(folder / "qwen2", architecture="qwen2", tied=False, seed=1)
    write_random_model(folder / "tied", architecture="llama", tied=True, seed=2)
    return {path.name: path for path in folder.iterdir()}


def train(base: Path, out: Path, **options: Any) -> dict[str, NDArray[np.float32]]:
    """Write an adapter with random weights; return what PEFT merges it to."""
    model = AutoModelForCausalLM.from_pretrained(base)
    adapted = get_peft_model(model, LoraConfig(**({"r": 4, "lora_alpha": 6} | options)))
    generator = torch.Generator().manual_seed(3)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    adapted.save_pretrained(out)
    # Read again: the file has patterns in another order, and the first that matches counts.
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), out)
    return {k: v.numpy() for k, v in loaded.merge_and_unload().state_dict().items()}


def applied(base: Checkpoint, adapter: Adapter) -> dict[str, NDArray[np.float32]]:
    """Return all tensors of base and adapter together."""
    stored = {k: v.float().numpy() for k, v in load_file(base.path / "model.safetensors").items()}
    for name, header in adapter.replaced.items():
        raw = header.file.read_bytes()[header.begin : header.end]
        stored[name] = np.frombuffer(raw, np.float32).reshape(header.shape).copy()
    for name, low in adapter.low_rank.items():
        add_low_rank(stored[name], low, 0, len(stored[name]))
    return stored


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"target_modules": ALL},
    "rslora": {"target_modules": ALL, "use_rslora": True, "r": 8},
    "patterns": {
        "target_modules": ALL,
        "rank_pattern": {"q_proj": 3, r"layers\.1\.mlp\..*": 7, "mlp.up_proj": 5},
        "alpha_pattern": {"model.layers.0.self_attn.q_proj": 11, ".*_proj": 2},
        "use_rslora": True,
    },
    "whole modules": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "norm"]},
    "embeddings": {"target_modules": ["embed_tokens", "lm_head", "o_proj"]},
    "trained biases": {"target_modules": ["q_proj", "o_proj"], "bias": "lora_only"},
    "all biases": {"target_modules": ["q_proj"], "bias": "all"},
    "one layer": {"target_modules": ["v_proj"], "layers_to_transform": [1]},
    "an expression": {"target_modules": r".*\.1\.self_attn\.[qk]_proj"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_base_and_adapter_are_what_peft_merges(
    bases: dict[str, Path], tmp_path: Path, architecture: str, options: dict[str, Any]
) -> None:
    expected = train(bases[architecture], tmp_path, **options)
    base = read_headers(bases[architecture])
    adapter = read_adapter(tmp_path, base)
    assert adapter.low_rank or adapter.replaced
    found = applied(base, adapter)
    assert found.keys() == expected.keys()
    before = load_file(base.path / "model.safetensors")
    for name, tensor in found.items():
        np.testing.assert_allclose(tensor, expected[name], rtol=2e-6, atol=2e-6, err_msg=name)
        changed = name in adapter.low_rank or name in adapter.replaced
        assert changed or np.array_equal(tensor, before[name].numpy())


@pytest.mark.parametrize("options", [{"target_modules": ["c_attn", "c_proj", "c_fc"]}])
def test_matrices_that_the_base_stores_transposed(tmp_path: Path, options: dict[str, Any]) -> None:
    config = GPT2Config(vocab_size=50, n_embd=24, n_layer=1, n_head=2, n_positions=16)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    expected = train(tmp_path / "base", tmp_path / "adapter", **options)
    base = read_headers(tmp_path / "base")
    adapter = read_adapter(tmp_path / "adapter", base)
    assert "transformer.h.0.attn.c_proj.weight" in adapter.low_rank  # square: config decides
    for name, tensor in applied(base, adapter).items():
        np.testing.assert_allclose(tensor, expected[name], rtol=2e-6, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_factors_of_other_dtypes_are_widened(
    bases: dict[str, Path], tmp_path: Path, dtype: torch.dtype
) -> None:
    train(bases["llama"], tmp_path, target_modules=["q_proj"])
    file = tmp_path / "adapter_model.safetensors"
    narrow = {name: tensor.to(dtype) for name, tensor in load_file(file).items()}
    save_file(narrow, file)
    adapter = read_adapter(tmp_path, read_headers(bases["llama"]))
    for name, low in adapter.low_rank.items():
        stored = "base_model.model." + name.removesuffix(".weight")
        assert np.array_equal(low.a, narrow[f"{stored}.lora_A.weight"].float().numpy())
        assert np.array_equal(low.b, narrow[f"{stored}.lora_B.weight"].float().numpy())


@pytest.mark.parametrize("modules_to_save", [None, ["embed_tokens"]])
def test_adapter_tied_like_its_base_computes_what_peft_computes_unmerged(
    bases: dict[str, Path], tmp_path: Path, modules_to_save: list[str] | None
) -> None:
    base = read_headers(bases["tied"])
    targets = ["q_proj"] if modules_to_save else ["q_proj", "embed_tokens"]
    by_peft = train(
        base.path,
        tmp_path,
        target_modules=targets,
        modules_to_save=modules_to_save,
        ensure_weight_tying=True,
    )
    found = applied(base, read_adapter(tmp_path, base))
    assert "lm_head.weight" not in found
    model, plain = (AutoModelForCausalLM.from_pretrained(base.path).eval() for _ in range(2))
    adapted = PeftModel.from_pretrained(model, tmp_path)
    plain.load_state_dict({k: torch.from_numpy(v) for k, v in found.items()}, strict=False)
    ids = torch.tensor([[5, 9, 200]])
    with torch.no_grad():
        assert torch.allclose(plain(ids).logits, adapted(ids).logits, atol=2e-5)
    if modules_to_save is None:
        # merge_and_unload adds the delta of a tied pair to its one matrix twice: a fault.
        name = "model.embed_tokens.weight"
        before = load_file(base.path / "model.safetensors")[name].numpy()
        twice = before + 2 * (found[name] - before)
        np.testing.assert_allclose(by_peft[name], twice, atol=2e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]},
    ],
)
@pytest.mark.filterwarnings("ignore:Input and output embeddings are no longer tied:UserWarning")
def test_one_of_two_tied_embeddings_is_refused(
    bases: dict[str, Path], tmp_path: Path, options: dict[str, Any]
) -> None:
    train(bases["tied"], tmp_path, **options)
    with pytest.raises(MergeError, match="the base ties its embeddings and the adapter changes"):
        read_adapter(tmp_path, read_headers(bases["tied"]))


@pytest.fixture
def adapter(bases: dict[str, Path], tmp_path: Path) -> Path:
    """An adapter of the llama base that a test may damage."""
    train(bases["llama"], tmp_path, target_modules=["q_proj", "v_proj"])
    return tmp_path


def edit(path: Path, **changes: Any) -> None:
    file = path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"use_dora": True}, "use_dora True: not supported"),
        ({"peft_type": "LOHA"}, "peft_type 'LOHA': only LORA"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"megatron_config": {"a": 1}}, "megatron_config"),
        ({"lora_bias": True}, "lora_bias"),
        ({"target_parameters": ["mlp.experts"]}, "target_parameters"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
        ({"an_option_of_tomorrow": 3}, "an_option_of_tomorrow 3: not supported"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights 'pissa_niter_4'"),
        ({"bias": "some"}, "bias 'some'"),
        ({"r": 0}, "r 0: a number above 0"),
        ({"lora_alpha": None}, "lora_alpha None: a number above 0"),
        ({"rank_pattern": {"(": 4}}, r"rank_pattern '\('"),
        ({"alpha_pattern": {"q_proj": "4"}}, "alpha_pattern 'q_proj': '4'"),
        ({"rank_pattern": [4]}, r"rank_pattern \[4\]"),
        ({"r": 3}, r"factors that do not fit: .*r 3, base \(64, 64\)"),
        ({"modules_to_save": ["lm_head"]}, "not in the file: lm_head.weight"),
    ],
)
def test_options_that_cannot_be_honoured_are_refused_by_name(
    bases: dict[str, Path], adapter: Path, changes: dict[str, Any], named: str
) -> None:
    edit(adapter, **changes)
    with pytest.raises(MergeError, match=named):
        read_adapter(adapter, read_headers(bases["llama"]))


def test_all_problems_are_listed_at_once(bases: dict[str, Path], adapter: Path) -> None:
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    layer = "base_model.model.model.layers"
    del tensors[f"{layer}.0.self_attn.q_proj.lora_B.weight"]
    tensors[f"{layer}.1.self_attn.q_proj.lora_A.weight"] = torch.zeros(4, 32)
    tensors[f"{layer}.7.self_attn.q_proj.lora_A.weight"] = torch.zeros(4, 64)
    tensors[f"{layer}.7.self_attn.q_proj.lora_B.weight"] = torch.zeros(64, 4)
    tensors[f"{layer}.0.self_attn.v_proj.lora_magnitude_vector"] = torch.zeros(64)
    tensors["base_model.model.score.weight"] = torch.zeros(2, 64)
    tensors["base_model.model.model.norm.weight"] = torch.zeros(32)
    tensors["prompt_embeddings"] = torch.zeros(2)
    tensors["base_model.model.model.counter"] = torch.zeros(2, dtype=torch.int64)
    save_file(tensors, file)
    edit(adapter, use_dora=True, lora_bias=True)
    with pytest.raises(MergeError) as raised:
        read_adapter(adapter, read_headers(bases["llama"]))
    for part in (
        "model.layers.0.self_attn.q_proj has A alone",
        "model.layers.1.self_attn.q_proj: A (4, 32), B (64, 4), r 4, base (64, 64)",
        "the base has no weights of model.layers.7.self_attn.q_proj",
        "lora_magnitude_vector",
        "whole tensors the base lacks: score.weight",
        "whole tensors of another shape: model.norm.weight (32,) against (64,)",
        "prompt_embeddings (F32)",
        "base_model.model.model.counter (I64)",
        "use_dora True",
        "lora_bias True",
    ):
        assert part in str(raised.value)


def test_a_bias_that_was_trained_must_be_in_the_file(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    train(bases["qwen2"], tmp_path, target_modules=["q_proj"])
    edit(tmp_path, bias="lora_only")
    with pytest.raises(MergeError, match=r"not in the file: model\.layers\.0\.self_attn\.q_proj"):
        read_adapter(tmp_path, read_headers(bases["qwen2"]))


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_factors_that_are_not_finite_are_named(
    bases: dict[str, Path], adapter: Path, value: float
) -> None:
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors["base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"][3, 1] = value
    save_file(tensors, file)
    with pytest.raises(MergeError, match=r"infinite values: model\.layers\.1\.self_attn\.v_proj"):
        read_adapter(adapter, read_headers(bases["llama"]))


def test_a_pickle_is_not_read(bases: dict[str, Path], adapter: Path) -> None:
    file = adapter / "adapter_model.safetensors"
    file.rename(adapter / "adapter_model.bin")
    with pytest.raises(MergeError, match="a pickle can run any code"):
        read_adapter(adapter, read_headers(bases["llama"]))
    (adapter / "adapter_model.bin").unlink()
    with pytest.raises(MergeError, match=r"no adapter_model\.safetensors"):
        read_adapter(adapter, read_headers(bases["llama"]))


NAMES = st.sampled_from(["q_proj", "layers", "0", "mlp", "self_attn", "up_proj"])


@given(
    module=st.lists(NAMES, min_size=1, max_size=4).map(".".join),
    patterns=st.dictionaries(
        st.one_of(st.lists(NAMES, min_size=1, max_size=3).map(".".join), st.just(r".*\.mlp.*")),
        st.integers(1, 9),
        max_size=4,
    ),
    rslora=st.booleans(),
)
def test_patterns_pick_what_peft_picks(
    *, module: str, patterns: dict[str, int], rslora: bool
) -> None:
    config = {"r": 10, "lora_alpha": 20, "rank_pattern": patterns, "use_rslora": rslora}
    rank = patterns.get(get_pattern_key(list(patterns), module), 10)
    scale = 20 / sqrt(rank) if rslora else 20 / rank
    assert rank_and_scale(module, config) == (rank, scale)


@settings(deadline=None)  # the first call compiles
@given(
    rows=st.integers(1, 9),
    rank=st.integers(1, 9),
    d=st.integers(1, 70),
    cut=st.integers(0, 9),
    seed=st.integers(0, 99),
)
def test_a_row_is_the_same_bits_in_any_block(
    rows: int, rank: int, d: int, cut: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    low = LowRank(
        draw.standard_normal((rows, rank), np.float32),
        draw.standard_normal((rank, d), np.float32),
        1.7,
    )
    start = draw.standard_normal((rows, d), np.float32)
    whole, parts, cut = start.copy(), start.copy(), min(cut, rows)
    add_low_rank(whole, low, 0, rows)
    add_low_rank(parts[:cut], low, 0, cut)
    add_low_rank(parts[cut:], low, cut, rows)
    assert np.array_equal(whole, parts)
    exact = start + 1.7 * (low.b.astype(np.float64) @ low.a.astype(np.float64))
    np.testing.assert_allclose(whole, exact, rtol=1e-5, atol=1e-5)


def test_delta_worked_by_hand() -> None:
    out = np.array([[1, 2], [3, 4]], np.float32)
    low = LowRank(np.array([[9], [2]], np.float32), np.array([[10, -1]], np.float32), 0.5)
    add_low_rank(out[1:], low, 1, 2)
    assert out.tolist() == [[1, 2], [13, 3]]
