"""The metadata of a GGUF file that a checkpoint's configuration decides, and what it is called.

llama, qwen2 and qwen3; positions as by default, linear, yarn and llama3. What llama.cpp would
compute in another way than transformers is refused by name. Not here: the tokenizer
(`cuvee.models.gguf_vocabulary`).
"""

import dataclasses
from typing import Any

import gguf
import torch
from numpy.typing import NDArray
from transformers import PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from cuvee.errors import DataError
from cuvee.models.gguf_layout import architecture

_SCALINGS = {"linear": gguf.RopeScalingType.LINEAR, "yarn": gguf.RopeScalingType.YARN}
_YARN_DEFAULTS = {
    "attention_factor": None,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": None,
    "mscale_all_dim": None,
    "truncate": True,
}
"""Of yarn: what llama.cpp assumes where the file says nothing."""
_HUB = "https://huggingface.co/"


@dataclasses.dataclass(frozen=True)
class About:
    """What programs that list GGUF files show of one. None of it changes the model."""

    name: str
    license: str | None = None
    """As model cards name it: `apache-2.0`."""
    base_models: tuple[str, ...] = ()
    """Hub ids (`owner/name`) that it was made from."""


def check_config(config: PretrainedConfig) -> None:
    """Raise DataError for what llama.cpp's code for the architecture would compute differently."""
    architecture(config.model_type)
    if config.hidden_act != "silu":
        raise DataError(f"config.json: hidden_act {config.hidden_act!r}; only 'silu' is exported")
    if getattr(config, "use_sliding_window", False):
        raise DataError("config.json: use_sliding_window is not exported")
    rope = config.rope_parameters
    known = ("default", "llama3", *_SCALINGS)
    if rope["rope_type"] not in known:
        raise DataError(
            f"config.json: rope_type {rope['rope_type']!r}; exported are {', '.join(known)}"
        )
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise DataError("config.json: partial_rotary_factor is not exported")
    if rope["rope_type"] == "yarn":
        for key, default in _YARN_DEFAULTS.items():
            if rope.get(key, default) not in (default, None):
                raise DataError(f"config.json: yarn with {key} {rope[key]!r} is not exported")


def add_config(writer: gguf.GGUFWriter, config: PretrainedConfig) -> None:
    """Write the sizes and the positions of the model."""
    heads = int(config.num_attention_heads)
    head_size = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    writer.add_type("model")
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    _add_scaling(writer, config.rope_parameters)


def _add_scaling(writer: gguf.GGUFWriter, rope: dict[str, Any]) -> None:
    scaling = _SCALINGS.get(rope["rope_type"])
    if scaling is None:
        return
    writer.add_rope_scaling_type(scaling)
    writer.add_rope_scaling_factor(float(rope["factor"]))
    if scaling == gguf.RopeScalingType.YARN:
        writer.add_rope_scaling_orig_ctx_len(int(rope["original_max_position_embeddings"]))


def add_about(writer: gguf.GGUFWriter, about: About) -> None:
    """Write name, licence and what the model was made from."""
    writer.add_name(about.name)
    if about.license is not None:
        writer.add_license(about.license)
    if about.base_models:
        writer.add_base_model_count(len(about.base_models))
    for number, hub_id in enumerate(about.base_models):
        owner, _, name = hub_id.rpartition("/")
        writer.add_base_model_name(number, name)
        if owner:
            writer.add_base_model_organization(number, owner)
            writer.add_base_model_repo_url(number, _HUB + hub_id)


def rope_factors(config: PretrainedConfig) -> NDArray[Any] | None:
    """Return by what llama 3 divides each frequency, [head size / 2]; None for other models."""
    if config.rope_parameters["rope_type"] != "llama3":
        return None
    slowed, _ = ROPE_INIT_FUNCTIONS["llama3"](config, device="cpu")
    size = 2 * len(slowed)
    exponents = torch.arange(0, size, 2, dtype=torch.float32) / size
    plain = 1.0 / config.rope_parameters["rope_theta"] ** exponents
    factors: NDArray[Any] = (plain / slowed).float().numpy()
    return factors
