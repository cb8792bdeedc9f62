"""The bytes a layer keeps, formula against what torch saves; parameters against transformers."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from cuvee.errors import DataError
from cuvee.models.shape import ModelShape
from cuvee.recipe import Lora
from cuvee.train.activations import (
    MicroBatch,
    Numbers,
    input_bytes,
    layer_bytes,
    outside_bytes,
)

CONFIGS: dict[str, type[PreTrainedConfig]] = {
    "llama": LlamaConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
}
TOKENS = 32

pytestmark = [
    # peft uses the old names; transformers warns of them until version 6.
    pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning")
]


def config(architecture: str, *, layers: int = 2, tied: bool = True) -> PreTrainedConfig:
    """Return sizes that are all different, so that none can stand for another."""
    return CONFIGS[architecture](
        vocab_size=301,
        hidden_size=96,
        intermediate_size=200,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        tie_word_embeddings=tied,
    )


def write(folder: Path, made: PreTrainedConfig) -> Path:
    made.save_pretrained(folder)
    return folder


def model(architecture: str, *, layers: int, numbers: Numbers) -> PreTrainedModel:
    made: PreTrainedModel = AutoModelForCausalLM.from_config(config(architecture, layers=layers))
    if numbers.weight == 2:
        made = made.bfloat16()
    if numbers.lora:
        settings = LoraConfig(
            r=numbers.lora.rank,
            lora_dropout=numbers.lora.dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        made = get_peft_model(made, settings).base_model.model
    return made.train()


def saved(made: PreTrainedModel, *, masked: bool) -> int:
    """Return the bytes of all storages autograd saves in a forward pass but the weights."""
    weights = {weight.untyped_storage().data_ptr() for weight in made.parameters()}
    bfloat16 = next(made.parameters()).dtype == torch.bfloat16
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.zeros(1, TOKENS, dtype=torch.long)
    positions = torch.arange(TOKENS // 2).repeat(2)[None] if masked else None
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        made.base_model(input_ids=ids, position_ids=positions, use_cache=False)
    assert bfloat16 or made.dtype == torch.float32
    return sum(
        tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in weights
    )


KINDS = {
    "fp32": Numbers(4, 4),
    "autocast": Numbers(2, 4),
    "bf16 weights": Numbers(2, 2),
    "lora, fp32": Numbers(4, 4, Lora(rank=3)),
    "lora, autocast": Numbers(2, 4, Lora(rank=3)),
    "lora with dropout, fp32": Numbers(4, 4, Lora(rank=3, dropout=0.5)),
    "lora with dropout, autocast": Numbers(2, 4, Lora(rank=3, dropout=0.5)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", CONFIGS)
def test_a_layer_keeps_what_the_formula_says(architecture: str, kind: str, tmp_path: Path) -> None:
    numbers = KINDS[kind]
    shape = ModelShape.of(write(tmp_path, config(architecture)))
    two, three = (model(architecture, layers=count, numbers=numbers) for count in (2, 3))
    copies = 0
    if numbers.casts:
        rank = numbers.lora.rank if numbers.lora else 0
        copies = 2 * (shape.layer_matrices + shape.adapter_parameters(rank) // shape.layers)
        if not numbers.lora:
            copies += 2 * shape.biases
    for masked in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=numbers.product == 2):
            both = saved(three, masked=masked), saved(two, masked=masked)
        batch = MicroBatch(rows=1, width=TOKENS, masked=masked)
        expected = layer_bytes(shape, numbers, batch, attention="sdpa")
        biases = 2 * shape.biases if numbers.casts else 0  # small: not in the formula
        assert 0 <= expected + copies - (both[0] - both[1]) <= biases
        if not numbers.lora:
            mask = batch.pairs if masked else 0  # held by the model, not saved
            outside = outside_bytes(shape, numbers, batch, attention="sdpa") - mask
            assert 3 * both[1] - 2 * both[0] == outside


def test_checkpointing_keeps_the_input_of_each_layer(tmp_path: Path) -> None:
    numbers = Numbers(4, 4)
    shape = ModelShape.of(write(tmp_path, config("llama")))
    kept = []
    for layers in (2, 3):
        made = model("llama", layers=layers, numbers=numbers)
        made.activation_checkpointing_enable({"use_reentrant": False})
        seen: set[int] = set()
        layer_inputs = []

        def note(_: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            layer_inputs.append(given[0].nbytes)  # noqa: B023 - used within this turn

        for block in made.model.layers:
            block.register_forward_pre_hook(note)
        assert not seen
        made.model(input_ids=torch.zeros(1, TOKENS, dtype=torch.long), use_cache=False)
        kept.append(sum(layer_inputs))
    batch = MicroBatch(rows=1, width=TOKENS, masked=False)
    assert kept[1] - kept[0] == input_bytes(shape, numbers, batch)


@pytest.mark.parametrize(
    ("architecture", "tied", "biased"),
    [*itertools.product(CONFIGS, (True, False), (True, False))],
)
def test_parameters_are_those_transformers_makes(
    architecture: str, tied: bool, biased: bool, tmp_path: Path
) -> None:
    made = config(architecture, tied=tied)
    if biased and architecture != "qwen2":
        made.attention_bias = True
    if biased and architecture == "llama":
        made.mlp_bias = True
    with torch.device("meta"):
        weights = AutoModelForCausalLM.from_config(made)
    assert ModelShape.of(write(tmp_path, made)).parameters == weights.num_parameters()


def test_adapters_are_those_peft_makes(tmp_path: Path) -> None:
    made = model("qwen3", layers=2, numbers=Numbers(4, 4, Lora(rank=5)))
    trained = sum(weight.numel() for weight in made.parameters() if weight.requires_grad)
    assert ModelShape.of(write(tmp_path, config("qwen3"))).adapter_parameters(5) == trained


def test_sizes_that_are_not_stated_are_as_transformers_takes_them(tmp_path: Path) -> None:
    sizes = {
        "vocab_size": 100,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
    }
    for kind, head_size in (("llama", 16), ("qwen2", 16), ("qwen3", 128)):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, **sizes}))
        assert ModelShape.of(tmp_path).head_size == head_size
        assert not ModelShape.of(tmp_path).tied


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no readable configuration"),
        ("[]", r"not for model_type \[\]"),
        ('{"model_type": "mixtral"}', "not for model_type 'mixtral'"),
        ('{"model_type": "llama", "hidden_size": "64"}', "hidden_size"),
    ],
)
def test_a_configuration_that_says_no_shape_is_refused(
    text: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(DataError, match=said):
        ModelShape.of(tmp_path)
