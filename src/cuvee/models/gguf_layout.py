"""What a GGUF file calls things: tensors, hyper-parameters and how they are laid out.

Used by export and import alike, so that the two are each other's inverse. Known: the
architectures llama, qwen2 and qwen3, dense and with full attention.
"""

import functools
from collections.abc import Mapping
from typing import Any

import gguf
import torch
from transformers import PretrainedConfig

from cuvee.errors import DataError

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}
"""By `model_type` of config.json, which is also `general.architecture` in the file."""

ROPE_FACTORS = "rope_freqs.weight"
"""The tensor that holds llama 3's frequency factors."""


def architecture(model_type: str) -> gguf.MODEL_ARCH:
    """Return gguf's architecture of a `model_type`. Raises DataError where it is unknown."""
    if model_type not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise DataError(f"architecture {model_type!r} has no GGUF form here; known: {known}")
    return ARCHITECTURES[model_type]


def tensor_name(config: PretrainedConfig, name: str) -> str:
    """Return the GGUF name of a tensor of a checkpoint. Raises DataError where it has none."""
    mapping = _name_map(config.model_type, int(config.num_hidden_layers))
    found = mapping.get_name(name, try_suffixes=(".weight", ".bias"))
    if found is None:
        raise DataError(f"tensor {name!r} has no name in GGUF for {config.model_type}")
    return str(found)


@functools.cache
def _name_map(model_type: str, layers: int) -> gguf.TensorNameMap:
    return gguf.get_tensor_name_map(architecture(model_type), layers)


def rope_heads(config: PretrainedConfig, name: str) -> int | None:
    """Return the heads whose rows llama.cpp wants reordered; None where none are.

    transformers turns the two halves of a head against each other, llama.cpp (for the
    architecture llama alone) neighbouring rows.
    """
    if config.model_type != "llama":
        return None
    if ".q_proj." in name:
        return int(config.num_attention_heads)
    if ".k_proj." in name:
        return int(config.num_key_value_heads)
    return None


def halves_to_pairs(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Reorder rows [first half, second half] of each head to [pair, pair, ...]."""
    rows = tensor.shape[0]
    split = tensor.reshape(heads, 2, rows // heads // 2, *tensor.shape[1:])
    return split.swapaxes(1, 2).reshape(tensor.shape).contiguous()


def pairs_to_halves(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Undo `halves_to_pairs`."""
    rows = tensor.shape[0]
    split = tensor.reshape(heads, rows // heads // 2, 2, *tensor.shape[1:])
    return split.swapaxes(1, 2).reshape(tensor.shape).contiguous()


def config_values(architecture_name: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a transformers config from a GGUF file's metadata.

    Raises DataError naming the key that is missing or what is not supported.
    """

    def value(key: str) -> Any:
        full = f"{architecture_name}.{key}"
        if full not in metadata:
            raise DataError(f"GGUF metadata has no {full}")
        return metadata[full]

    scaling = metadata.get(f"{architecture_name}.rope.scaling.type", "none")
    if scaling != "none":
        raise DataError(f"GGUF rope scaling {scaling!r} cannot be imported")
    heads = value("attention.head_count")
    width = value("embedding_length")
    return {
        "hidden_size": width,
        "intermediate_size": value("feed_forward_length"),
        "num_hidden_layers": value("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.get(f"{architecture_name}.attention.head_count_kv", heads),
        "head_dim": metadata.get(f"{architecture_name}.attention.key_length", width // heads),
        "max_position_embeddings": value("context_length"),
        "rms_norm_eps": shortest(value("attention.layer_norm_rms_epsilon")),
        "rope_theta": shortest(metadata.get(f"{architecture_name}.rope.freq_base", 10000.0)),
    }


def shortest(number: float) -> float:
    """Return the shortest decimal that is the same float32: 1e-05, not 9.99999974e-06."""
    single = torch.tensor(number, dtype=torch.float32)
    for digits in range(1, 10):
        short = float(f"{number:.{digits}g}")
        if torch.tensor(short, dtype=torch.float32) == single:
            return short
    return number
